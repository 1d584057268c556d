package audit

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/httprelay"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/reference/timeline"
)

// A region of the reference pipeline on the wall clock, its edge behind relays: spoiled at the live edge, and well again.
func TestReferenceRegion(t *testing.T) {
	region := pipeline.Regions(freePort(t), []string{"us-east"}, map[string]int{"us-east": 1})
	r, err := pipeline.Listen(pipeline.Config{
		Run: "audit", Event: "final", Ladder: "sports", First: timeline.Default.At(time.Now()) - 5, LeadIn: 5, Regions: region, Key: []byte("0123456789abcdef"),
	}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-r.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the region is not ready")
	}
	layout := media.ReferenceEvent("final", timeline.SegmentDuration)
	live, err := media.ParseLive("live - 2")
	if err != nil {
		t.Fatal(err)
	}
	edge := region[0].EdgeAddr(1).String()
	g := newTogether(t)
	defer g.wg.Wait()
	for _, c := range []struct {
		name   string
		defect media.Defect
		chosen media.Selector
	}{
		{"every third segment at live - 2 of 720p is missing", media.Defect{Kind: media.Missing}, media.Selector{Rung: "720p", Every: 3, Live: live}},
		{"every second one is short", media.Defect{Kind: media.Short, Keep: 0.5}, media.Selector{Rung: "v720", Every: 2}},
		{"frozen", media.Defect{Kind: media.Frozen}, media.Selector{Rung: "v720"}},
		{"late", media.Defect{Kind: media.Late, Delay: 1500 * time.Millisecond}, media.Selector{Rung: "v720"}},
		{"the rung is lost", media.Defect{Kind: media.Missing}, media.Selector{Rung: "v720", Whole: true}},
		{"wrong timestamps", media.Defect{Kind: media.WrongTime, Shift: -time.Hour}, media.Selector{Rung: "v720"}},
	} {
		g.run(c.name, func(t *testing.T) {
			relay, base := behind(t, layout, edge)
			cfg := SegmentsConfig{
				Fault: "media-1", Stream: Stream{Base: base, Layout: layout, Rung: "v720"}, Control: &Stream{Base: base, Layout: layout, Rung: "v360"},
				Want: c.defect, Select: c.chosen, Now: time.Now,
			}
			watch := func() (observer, error) { return NewSegments(cfg) }
			rule := httprelay.Rule{Name: c.name, Share: 1, Media: &c.chosen, Action: httprelay.Action{Kind: httprelay.Segment, Defect: c.defect}}
			i := &httprelay.Injector{Relay: relay, Owner: "media-1", Rules: []httprelay.Rule{rule}}
			if e := play(t, i, watch, 5*time.Second, 14*time.Second, 5*time.Second); e.Status != evidence.Confirmed {
				t.Errorf("%+v (%s)", e, i.Note())
			} else {
				t.Logf("%+v (%s)", e, i.Note())
			}
		})
	}
	// Bodies of real segments are large enough to stall and to slow down.
	for _, c := range []struct {
		want   Want
		action httprelay.Action
	}{
		{Want{Kind: Throttle, Share: 1, Rate: 150_000}, httprelay.Action{Kind: httprelay.Throttle, Rate: 150_000}},
		{Want{Kind: Stall, Share: 0.5, For: time.Second}, httprelay.Action{Kind: httprelay.Stall, After: 50_000, For: time.Second}},
	} {
		g.run(c.want.Kind, func(t *testing.T) {
			relay, base := behind(t, layout, edge)
			newest, err := Newest(base, layout, "v720", 1)
			if err != nil {
				t.Fatal(err)
			}
			cfg := HTTPConfig{Fault: "http-1", For: 14 * time.Second, Targets: []URL{newest}, Want: c.want, Now: time.Now}
			watch := func() (observer, error) { return NewHTTP(cfg) }
			rule := httprelay.Rule{Name: c.want.Kind, Share: c.want.Share, Seed: 1, Action: c.action}
			i := &httprelay.Injector{Relay: relay, Owner: "http-1", Rules: []httprelay.Rule{rule}}
			if e := play(t, i, watch, 5*time.Second, 14*time.Second, 5*time.Second); e.Status != evidence.Confirmed {
				t.Errorf("%+v (%s)", e, i.Note())
			} else {
				t.Logf("%+v (%s)", e, i.Note())
			}
		})
	}
}

// freePort is a port that is free at the addresses of a region.
func freePort(t *testing.T) int {
	t.Helper()
	const from, to = 20000, 32000
next:
	for i := range 100 {
		port := from + (os.Getpid()*41+i*103)%(to-from)
		for _, host := range strings.Fields("127.0.1.3 127.0.1.4 127.0.1.5 127.0.1.11") {
			ln, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
			if err != nil {
				continue next
			}
			ln.Close()
		}
		return port
	}
	t.Fatal("no free port")
	return 0
}
