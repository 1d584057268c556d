package rehearsal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/reference/playback"
	"github.com/tminus-live/tminus/reference/playback/admission"
	"github.com/tminus-live/tminus/scenarios/spec"
)

// lookEvery is the time between two looks at the playback services, and the nowcast's step.
const lookEvery = time.Second

// maxState bounds what a playback service tells of itself, in bytes.
const maxState = 64 << 10

// control is the run's operator: it watches the playback services, has the nowcast scale them, and says what is to be
// warned of.
type control struct {
	sc       *spec.Scenario
	zero     time.Time
	services []service
	client   *http.Client
	key      []byte
	nowcast  *nowcast // nil: nothing was forecast
	log      *slog.Logger

	mu     sync.Mutex
	states []admission.State // by region; the last that was heard
}

type service struct{ region, url string }

func newControl(sc *spec.Scenario, cfg pipeline.Config, cast *nowcast, zero time.Time, log *slog.Logger) *control {
	c := &control{sc: sc, zero: zero, key: cfg.Key, nowcast: cast, log: log, client: &http.Client{Timeout: lookEvery, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}}
	for _, r := range cfg.Regions {
		c.services = append(c.services, service{r.Name, r.PlaybackURL()})
	}
	c.states = make([]admission.State, len(c.services))
	return c
}

// run watches until ctx ends. What a service that is down would have been told, it is told when it is back.
func (c *control) run(ctx context.Context) {
	defer c.client.CloseIdleConnections()
	want := make([]order, len(c.services))
	seen := make([]uint64, len(c.services))
	last := time.Duration(0) // up to when the nowcast has seen the event
	// On whole seconds of the event: what the nowcast sees is what came in them.
	if sleepUntil(ctx, c.zero) != nil {
		return
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.look(ctx)
			since := time.Since(c.zero) // a region that does not answer has held the look up
			if at := since.Round(time.Second); c.nowcast != nil && at > last {
				last = at
				for i, capacity := range c.nowcast.step(at, c.offered(seen)) {
					want[i].capacity = capacity
				}
			}
			guided := c.guided(since)
			var wg sync.WaitGroup
			for i := range want {
				want[i].guided = guided
				wg.Go(func() {
					if err := c.tell(ctx, i, want[i]); err != nil && ctx.Err() == nil {
						c.log.Debug("a playback service did not take an order", "region", c.services[i].region, "error", err)
					}
				})
			}
			wg.Wait()
		}
	}
}

// order is what a playback service is to be set to.
type order struct {
	capacity float64 // 0: as it was set up
	guided   bool
}

// guided is whether answers are to carry a retry policy: during an interruption that is not guided, and from then on until the
// next, they are not.
func (c *control) guided(since time.Duration) bool {
	guided := c.sc.Playback.GuidedBackoff
	for _, i := range c.sc.Audience.Interruptions {
		if since >= i.At {
			guided = i.Guided
		}
	}
	return guided
}

// look asks every service how it stands.
func (c *control) look(ctx context.Context) {
	var wg sync.WaitGroup
	for i, s := range c.services {
		wg.Go(func() {
			var state admission.State
			if err := c.exchange(ctx, http.MethodGet, s.url, nil, &state); err != nil {
				return // the region's health is others' to tell
			}
			c.mu.Lock()
			c.states[i] = state
			c.mu.Unlock()
		})
	}
	wg.Wait()
}

// tell sets a service to an order, unless it stands so already.
func (c *control) tell(ctx context.Context, i int, o order) error {
	c.mu.Lock()
	state := c.states[i]
	c.mu.Unlock()
	if state.Region == "" {
		return nil // it has not been heard yet
	}
	var change playback.Order
	if o.capacity > 0 && state.Capacity != o.capacity {
		change.Capacity = &o.capacity
	}
	if state.GuidedBackoff != o.guided {
		change.GuidedBackoff = &o.guided
	}
	if change == (playback.Order{}) {
		return nil
	}
	body, err := json.Marshal(change)
	if err != nil {
		return err
	}
	return c.exchange(ctx, http.MethodPost, c.services[i].url, body, nil)
}

func (c *control) exchange(ctx context.Context, method, base string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, base+playback.OperatorPath, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if method == http.MethodPost {
		req.Header.Set(playback.OperatorHeader, playback.SignOrder(c.key, body))
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxState))
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("status %d: %s", resp.StatusCode, strings.TrimSpace(string(answer)))
	case into == nil:
		return nil
	}
	return json.Unmarshal(answer, into)
}

// offered is how many play starts each region's service was asked for since the last look; seen holds their totals then. A
// service that was started again counts from 0.
func (c *control) offered(seen []uint64) []float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	starts := make([]float64, len(c.states))
	for i, s := range c.states {
		var total uint64
		for _, t := range s.Totals {
			total += t.Offered
		}
		if total < seen[i] {
			seen[i] = 0
		}
		starts[i], seen[i] = float64(total-seen[i]), total
	}
	return starts
}

// controlNow is what a terminal shows of the playback services.
type controlNow struct {
	capacity float64 // of all together; 0: not bounded
	levers   []string
	warnings []string
}

func (c *control) now() controlNow {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n controlNow
	for _, s := range c.states {
		n.capacity += s.Capacity
		for _, l := range s.Levers {
			if l.Engaged {
				n.levers = append(n.levers, fmt.Sprintf("%s: %s", s.Region, l.Name))
			}
		}
	}
	if c.nowcast != nil {
		n.warnings = c.nowcast.warned()
	}
	return n
}
