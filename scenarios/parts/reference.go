package parts

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/reference/playback"
	"github.com/tminus-live/tminus/reference/playback/token"
	"github.com/tminus-live/tminus/scenarios/spec"
)

// Reference is a run's pipeline as its parts see it.
type Reference struct {
	Pipeline  pipeline.Config
	Network   *netns.Network                                       // that the regions live in; nil: the loopback
	Processes func(region string) func() ([]procfs.Process, error) // nil: none are known
}

// Part makes one of the pipeline's parts. The error wraps chaos.ErrUnknown where it has no such region; others are about the
// pipeline's own configuration: its ladder, its key.
func (r Reference) Part(p spec.Part) (chaos.Part, error) {
	stream, err := r.Pipeline.Stream()
	if err != nil {
		return chaos.Part{}, err
	}
	for _, region := range r.Pipeline.Regions {
		if region.Name != p.Region {
			continue
		}
		out := chaos.Part{Name: p.Name, Kind: p.Kind, Region: p.Region, Network: r.Network, Layout: r.Layout(), Event: r.Pipeline.Event, Orders: &chaos.Orders{URL: region.PlaybackURL(), Key: r.Pipeline.Key}}
		for _, rendition := range stream.Renditions {
			out.Rungs = append(out.Rungs, rendition.ID)
		}
		if p.Kind == chaos.PartEdge {
			if out.Pass, err = r.pass(); err != nil {
				return chaos.Part{}, err
			}
		}
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
			switch p.Kind {
			case chaos.PartPackager:
				out.Look = ""
			case chaos.PartPlayback:
				out.Asks = r.asks()
			}
		}
		return out, nil
	}
	return chaos.Part{}, fmt.Errorf("%w region %q", chaos.ErrUnknown, p.Region)
}

// pass makes the beginnings of paths that an edge lets pass; nil: none is needed.
func (r Reference) pass() (func(until time.Time) string, error) {
	if !r.Pipeline.Playback.Tokens {
		return nil, nil
	}
	ring, err := token.NewRing(r.Pipeline.Event, token.Key{ID: 1, Secret: r.Pipeline.Key})
	if err != nil {
		return nil, err
	}
	return func(until time.Time) string { return string(ring.Append([]byte(token.Prefix), 0, until)) }, nil
}

// asks makes a viewer's requests, with a session of their own.
func (r Reference) asks() func(endpoint string, at time.Time) chaos.Ask {
	sessions := playback.NewSessions(r.Pipeline.Key, r.Pipeline.Event)
	return func(endpoint string, at time.Time) (a chaos.Ask) {
		id := sessions.Append(nil, playback.Session{Home: playback.NoRegion, Issued: at})
		a.Method, a.Path, a.Body = playback.Ask(endpoint, r.Pipeline.Event, string(id))
		return a
	}
}

// Layout is what the pipeline's paths mean.
func (r Reference) Layout() media.Layout {
	return media.ReferenceEvent(r.Pipeline.Event, r.Pipeline.Timeline().Duration)
}
