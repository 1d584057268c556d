package playback

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/tminus-live/tminus/reference/playback/admission"
	"github.com/tminus-live/tminus/telemetry/event"
)

// maxReport bounds a peer's report, in bytes.
const maxReport = 16 << 10

// decide works out admission's slow measures and tells what changed, until ctx ends.
func (s *Service) decide(ctx context.Context) {
	tick := time.NewTicker(admission.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.mu.Lock()
			s.control.Step(s.cfg.Now())
			s.mu.Unlock()
			s.tellChanges()
		}
	}
}

// tellChanges puts what admission did on the timeline.
func (s *Service) tellChanges() {
	s.mu.Lock()
	changes, lost := s.control.Changes()
	s.mu.Unlock()
	for _, c := range changes {
		e := event.Event{At: c.At, Region: s.steer.Regions()[c.Region], Component: "playback/" + s.cfg.Region, State: c.By, Value: c.Value}
		switch c.What {
		case admission.LeverMoved:
			e.Kind, e.Detail, e.Status = event.Lever, c.Lever.String(), status(c.Engaged, "engaged", "released")
		case admission.WeightMoved:
			e.Kind, e.Status = event.RegionWeight, status(c.Engaged, "moving", "settled")
		case admission.Spilled:
			e.Kind, e.Region, e.Status = event.SpillOver, s.cfg.Region, status(c.Engaged, "begun", "ended")
			if c.Engaged {
				e.Detail = s.steer.Regions()[c.Region]
			}
		}
		s.cfg.Sink.Emit(e)
		s.cfg.Log.Info("playback changed", "kind", e.Kind, "status", e.Status, "detail", e.Detail, "by", c.By, "region", e.Region, "value", c.Value)
	}
	if lost > 0 {
		s.cfg.Log.Warn("changes were not told in time", "lost", lost)
	}
}

func status(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// listen asks one peer for its load at the interval of probes, until ctx ends.
func (s *Service) listen(ctx context.Context, p Peer) {
	region := s.steer.Region(p.Region)
	tick := time.NewTicker(s.cfg.ProbeInterval)
	defer tick.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, s.cfg.ProbeTimeout)
		report, err := s.cfg.Ask(asked, p)
		cancel()
		if err == nil {
			s.mu.Lock()
			s.control.Hear(s.cfg.Now(), region, report)
			s.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// httpAsk gets reports over one connection that is kept.
func httpAsk(local netip.Addr) func(context.Context, Peer) (admission.Report, error) {
	dialer := &net.Dialer{}
	if local.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxConnsPerHost: 1, MaxResponseHeaderBytes: 16 << 10, IdleConnTimeout: 5 * time.Second}
	return func(ctx context.Context, p Peer) (report admission.Report, err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+loadPath, nil)
		if err != nil {
			return report, err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return report, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxReport))
		switch {
		case err != nil:
			return report, err
		case resp.StatusCode != http.StatusOK:
			return report, fmt.Errorf("%s answered %s", req.URL, resp.Status)
		}
		if err := unmarshalStrict(body, &report); err != nil {
			return report, fmt.Errorf("%s: %w", req.URL, err)
		}
		if report.Region != p.Region {
			return report, fmt.Errorf("%s reports for region %q, not %q", req.URL, report.Region, p.Region)
		}
		return report, nil
	}
}

// unmarshalStrict reads one JSON value with known members and nothing behind it.
func unmarshalStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more than one value")
	}
	return nil
}
