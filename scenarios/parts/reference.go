package parts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/reference/defect"
	"github.com/tminus-live/tminus/reference/defect/orders"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/reference/playback/token"
	"github.com/tminus-live/tminus/scenarios/spec"
)

// Reference is a run's pipeline as its parts see it.
type Reference struct {
	Pipeline  pipeline.Config
	Network   *netns.Network                                      // that the regions live in; nil: the loopback
	Processes func(region string) func() ([]procfs.Process, error) // nil: none are known
}

// Part makes one of the pipeline's parts.
func (r Reference) Part(p spec.Part) (chaos.Part, error) {
	for _, region := range r.Pipeline.Regions {
		if region.Name != p.Region {
			continue
		}
		out := chaos.Part{Name: p.Name, Kind: p.Kind, Region: p.Region, Network: r.Network, Defects: r.defects(region, p.Name)}
		if p.Kind == chaos.PartRegion {
			out.Prefix = region.Prefix()
			for k := 1; k <= region.Edges; k++ {
				out.Addrs = append(out.Addrs, region.EdgeAddr(k))
			}
			out.Addrs = append(out.Addrs, region.PlaybackAddr())
			if r.Processes != nil {
				out.Processes = r.Processes(region.Name)
			}
			return out, nil
		}
		if addr, ok := region.Component(strings.TrimPrefix(p.Name, region.Name+"/")); ok {
			out.Addrs = []netip.AddrPort{addr}
			out.URL = "http://" + addr.String()
			out.Look = "/healthz"
			if p.Kind == chaos.PartPackager {
				out.Look = ""
			}
		}
		return out, nil
	}
	return chaos.Part{}, fmt.Errorf("%w region %q", chaos.ErrUnknown, p.Region)
}

// Pass is the beginning of a path that an edge lets pass for so long; "": none is needed.
func (r Reference) Pass(until time.Time) (string, error) {
	if !r.Pipeline.Playback.Tokens {
		return "", nil
	}
	ring, err := token.NewRing(r.Pipeline.Event, token.Key{ID: 1, Secret: r.Pipeline.Key})
	if err != nil {
		return "", err
	}
	return string(ring.Append([]byte(token.Prefix), 0, until)), nil
}

// Layout is what the pipeline's paths mean.
func (r Reference) Layout() media.Layout {
	return media.ReferenceEvent(r.Pipeline.Event, r.Pipeline.Timeline().Duration)
}

// defects orders a component's own misbehaviour, from the region that it is in.
func (r Reference) defects(region pipeline.RegionConfig, part string) chaos.Defects {
	return desk{url: region.PlaybackURL() + orders.Path, key: r.Pipeline.Key, part: part}
}

// orderTime bounds an order and its answer.
const orderTime = 2 * time.Second

// desk is where defects of one part are ordered.
type desk struct {
	url  string
	key  []byte
	part string
}

// client keeps no connections: a region that was killed and came back is another one.
var client = &http.Client{Timeout: orderTime, Transport: &http.Transport{DisableKeepAlives: true}}

func (d desk) Order(ctx context.Context, id, kind string, params map[string]any, lease time.Duration) error {
	body, err := json.Marshal(defect.Order{Part: d.part, Kind: kind, Params: params, Lease: lease.Milliseconds()})
	if err != nil {
		return err
	}
	return d.send(ctx, http.MethodPut, id, body)
}

func (d desk) End(ctx context.Context, id string) error {
	return d.send(ctx, http.MethodDelete, id, nil)
}

func (d desk) send(ctx context.Context, method, id string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, d.url+"/"+id, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set(orders.Header, orders.Sign(d.key, method, req.URL.Path, body))
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("order a defect of %s: %w", d.part, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 300 {
		return nil
	}
	var said struct {
		Error string `json:"error"`
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, defect.MaxOrder))
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error = resp.Status
	}
	return fmt.Errorf("order a defect of %s: %w", d.part, errors.New(said.Error))
}
