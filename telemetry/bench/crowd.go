package bench

import (
	"encoding/base32"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
)

// crowd makes play starts as the open-loop generator writes them, 100,000 a second of a made-up clock: each viewer's
// session is its own and does not compress, latencies spread, nearly all are ok.
type crowd struct {
	rand    *rand.Rand
	at      time.Time
	session [32]byte
	text    [52]byte
}

var sessionText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func newCrowd(at time.Time) *crowd { return &crowd{rand: rand.New(rand.NewPCG(7, 7)), at: at} }

var (
	devices = []string{"tv", "tv", "tv", "phone", "browser", "console", "tablet"}
	isps    = []string{"fibre-1", "cable-1", "cable-2", "mobile-1", "dsl-1", "mobile-2"}
	regions = []string{"us-east", "us-west"}
)

func (c *crowd) next() event.Event {
	c.at = c.at.Add(10 * time.Microsecond)
	e := event.Event{
		At: c.at, Kind: event.PlayStart, Status: "ok", Component: "starts", Attempts: 1,
		Device: devices[c.rand.IntN(len(devices))], ISP: isps[c.rand.IntN(len(isps))], Region: regions[c.rand.IntN(len(regions))],
		Value: 0.3 + 2*c.rand.ExpFloat64(), LagMS: 0.1 * c.rand.ExpFloat64(),
	}
	e.Edge, e.Home = e.Region, e.Region
	if c.rand.IntN(10_000) == 0 {
		e.Status, e.Detail = "failed", "time-out"
		return e
	}
	for i := 8; i < len(c.session); i += 8 {
		binary.LittleEndian.PutUint64(c.session[i:], c.rand.Uint64())
	}
	sessionText.Encode(c.text[:], c.session[:])
	e.Session = string(c.text[:])
	return e
}
