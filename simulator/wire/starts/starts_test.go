package starts

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/telemetry/event"
)

const (
	s  = time.Second
	ms = time.Millisecond
)

func schedule(t testing.TB, end time.Duration, legs ...audience.Leg) *audience.Schedule {
	t.Helper()
	sch, err := audience.NewSchedule(legs, end)
	if err != nil {
		t.Fatal(err)
	}
	return sch
}

const good = `{"session":"s-1","manifests":{"dash":"http://127.0.1.5:8080/v1/sessions/s-1/manifest.mpd","hls":"http://127.0.1.5:8080/v1/sessions/s-1/master.m3u8"},"steering":["us-east-1"],"retryPolicy":{"maxRetries":3,"retryAfterSeconds":1}}`

func response(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// regions of a test's services, in the order of config's addresses.
var regions = []string{"us-east", "us-west"}

func config(t testing.TB, sink event.Sink, sch *audience.Schedule, services ...netip.AddrPort) Config {
	t.Helper()
	c := Config{Schedule: sch, Title: "title-fight", Start: time.Now(), Sink: sink}
	for i, addr := range services {
		c.Services = append(c.Services, Service{regions[i], addr})
	}
	crowd, err := audience.NewCrowd(audience.DefaultMix, regions[:len(services)], 7)
	if err != nil {
		t.Fatal(err)
	}
	c.Crowd = crowd
	return c
}
