package defects

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
)

// Figures of an order that no caller has had reason to set.
const (
	// DefaultLease ends a defect well within three seconds of its conductor's death.
	DefaultLease = 2500 * time.Millisecond
	maxLease     = 10 * time.Second
	// orderTime bounds what waits for the answer to an order: a region that takes connections and answers nothing holds nobody up.
	orderTime = 2 * time.Second
	maxAnswer = 16 << 10

	ordersPath   = "/v1/defects/"
	ordersHeader = "Tminus-Operator"
)

// Order is a defect to be ordered.
type Order struct {
	URL string // base URL of the playback service of the component's region, without a trailing slash
	Key []byte // of the run: it signs orders

	ID     string         // the fault's: letters, digits, dots, dashes, underscores
	Part   string         // "us-east/edge-1"
	Kind   string         // "cache-wipe"
	Params map[string]any // numbers and texts by name, in the units that their names end with
	Lease  time.Duration  // 0: DefaultLease
}

// Injector keeps one defect in force.
type Injector struct {
	order  Order
	body   []byte
	client *http.Client

	mu      sync.Mutex
	stop    context.CancelFunc // of what renews the lease; nil: not in force
	renewed chan struct{}      // closed when that has ended
	surely  time.Time          // until when it may be in force, whoever answers
	lapses  int                // renewals that found it gone
	failed  error              // of the last renewal
	late    bool               // the last order was not answered: it may arrive after the one that ends the defect
}

// NewInjector checks an order.
func NewInjector(o Order) (*Injector, error) {
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	switch u, err := url.Parse(o.URL); {
	case err != nil || u.Scheme != "http" || u.Host == "":
		return nil, fmt.Errorf("order %s: %q is no base URL", o.ID, o.URL)
	case o.ID == "" || o.Part == "" || o.Kind == "" || len(o.Key) == 0:
		return nil, fmt.Errorf("order %q: an id, a part, a kind and the run's key are needed", o.ID)
	case o.Lease < 500*time.Millisecond || o.Lease > maxLease:
		return nil, fmt.Errorf("order %s: a lease of %s is outside 500ms to %s", o.ID, o.Lease, maxLease)
	}
	body, err := json.Marshal(map[string]any{"part": o.Part, "kind": o.Kind, "params": o.Params, "lease_ms": o.Lease.Milliseconds()})
	if err != nil {
		return nil, fmt.Errorf("order %s: %w", o.ID, err)
	}
	transport := &http.Transport{
		DialContext:     (&net.Dialer{Timeout: time.Second}).DialContext,
		MaxConnsPerHost: 2, MaxResponseHeaderBytes: maxAnswer, IdleConnTimeout: maxLease,
	}
	return &Injector{order: o, body: body, client: &http.Client{Transport: transport}}, nil
}

// Inject returns when the defect is in force; its lease is renewed until Restore.
func (i *Injector) Inject(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stop != nil {
		return nil
	}
	i.surely = time.Now().Add(i.order.Lease + orderTime) // an order may take a moment, and succeed though its answer is lost
	asked, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	status, err := i.send(asked, http.MethodPut, i.body, http.StatusCreated, http.StatusOK)
	if i.late = err != nil && status == 0; err != nil {
		return err
	}
	i.surely = time.Now().Add(i.order.Lease)
	i.lapses, i.failed = 0, nil
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	i.stop, i.renewed = stop, make(chan struct{})
	go i.renew(renewing, i.renewed)
	return nil
}

// renew renews the lease until ctx ends. A renewal that is under way then is not broken off: cut short it could arrive after the
// order that ends the defect, and bring it back for another lease.
func (i *Injector) renew(ctx context.Context, done chan struct{}) {
	defer close(done)
	every := i.order.Lease / 3
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), every)
		sent := time.Now()
		i.mu.Lock()
		i.surely = maxTime(i.surely, sent.Add(i.order.Lease+every)) // it may arrive though its answer does not
		i.mu.Unlock()
		status, err := i.send(asked, http.MethodPut, i.body, http.StatusCreated, http.StatusOK)
		cancel()
		i.mu.Lock()
		i.late = err != nil && status == 0
		switch i.failed = err; {
		case err == nil && status == http.StatusCreated:
			i.lapses++
			fallthrough
		case err == nil:
			i.surely = time.Now().Add(i.order.Lease)
		}
		i.mu.Unlock()
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Restore ends the defect. When the region does not answer, or did not answer an order that may still arrive, it returns when the
// last lease is over for certain, or ctx is.
func (i *Injector) Restore(ctx context.Context) error {
	i.mu.Lock()
	stop, renewed := i.stop, i.renewed
	i.stop = nil
	i.mu.Unlock()
	if stop != nil {
		stop()
		<-renewed
	}
	defer i.client.CloseIdleConnections()
	asked, cancel := context.WithTimeout(ctx, orderTime)
	_, err := i.send(asked, http.MethodDelete, nil, http.StatusNoContent)
	cancel()
	i.mu.Lock()
	surely, late := i.surely, i.late
	i.mu.Unlock()
	if err == nil && !late {
		return nil
	}
	timer := time.NewTimer(time.Until(surely))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end %s of %s before its lease is over: %w", i.order.Kind, i.order.Part, cmp.Or(err, ctx.Err()))
	}
}

// Note says what there is to say about the lease; empty: it was held throughout. It is not the evidence.
func (i *Injector) Note() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.lapses > 0:
		return fmt.Sprintf("the lease of %s lapsed %d times", i.order.Kind, i.lapses)
	case i.failed != nil:
		return fmt.Sprintf("the lease of %s could not be renewed at last: %v", i.order.Kind, i.failed)
	}
	return ""
}

// send sends one order and returns the status of the answer (0: there was none), an error unless it is one of want.
func (i *Injector) send(ctx context.Context, method string, body []byte, want ...int) (int, error) {
	what := fmt.Sprintf("order %s of %s", i.order.Kind, i.order.Part)
	path := ordersPath + url.PathEscape(i.order.ID)
	req, err := http.NewRequestWithContext(ctx, method, i.order.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	mac := hmac.New(sha256.New, i.order.Key)
	mac.Write([]byte(method + " " + req.URL.Path + "\n"))
	mac.Write(body)
	req.Header.Set(ordersHeader, hex.EncodeToString(mac.Sum(nil)))
	resp, err := i.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	for _, s := range want {
		if s == resp.StatusCode {
			return s, nil
		}
	}
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(answer, &said) != nil || said.Error == "" {
		return resp.StatusCode, fmt.Errorf("%s: answered %s", what, resp.Status)
	}
	refusal := errors.New(said.Error)
	if resp.StatusCode == http.StatusForbidden {
		return resp.StatusCode, fmt.Errorf("%s: %w: %w", what, evidence.ErrRefused, refusal)
	}
	return resp.StatusCode, fmt.Errorf("%s: %w", what, refusal)
}
