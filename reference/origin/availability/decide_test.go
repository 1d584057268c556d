package availability_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/origin/availability"
	"github.com/tminus-live/tminus/reference/timeline"
	"pgregory.net/rapid"
)

// The event's segments are 1000 to 1099, of 2 s each: segment 1000 covers 2000 s to 2002 s after the epoch.
var stream = manifest.Stream{
	Event: "final", Timeline: timeline.Default, First: 1000, Last: 1099, DVR: 60 * time.Second,
	Renditions: []manifest.Rendition{
		{ID: "v720", Kind: manifest.Video, Codecs: "avc1.64001f", Bandwidth: 3_000_000, Timescale: 90000, Width: 1280, Height: 720, FrameRate: "30"},
		{ID: "a-en", Kind: manifest.Audio, Codecs: "mp4a.40.2", Bandwidth: 128_000, Timescale: 48000, Language: "en", SampleHz: 48000, Channels: 2},
	},
}

func at(seconds float64) time.Time { return time.Unix(0, int64(seconds*1e9)) }

func segment(n uint64) availability.Request {
	return availability.Request{Resource: availability.Resource{Event: "final", Rendition: "v720", Kind: availability.Segment, Number: n}}
}

func TestDecide(t *testing.T) {
	good := availability.Candidate{Pipeline: "us-east"}
	goodWest := availability.Candidate{Pipeline: "us-west"}
	short := availability.Candidate{Pipeline: "us-east", Defects: []string{"short"}}
	corruptWest := availability.Candidate{Pipeline: "us-west", Defects: []string{"corrupt"}}
	init := availability.Request{Resource: availability.Resource{Event: "final", Rendition: "v720", Kind: availability.Init}, Arrived: at(2010)}
	other := segment(1010)
	other.Event = "other"
	noRung := segment(1010)
	noRung.Rendition = "v4320"

	policy := availability.DefaultPolicy
	policy.Pipelines = 2
	type want struct {
		action   availability.Action
		pick     int
		ttl, upp time.Duration // lower and upper bound of the lifetime; upp 0: exactly ttl
		until    time.Time
	}
	has := func(cs ...availability.Candidate) availability.Held { return availability.Held{Candidates: cs} }
	for _, c := range []struct {
		what string
		now  time.Time
		req  availability.Request
		held availability.Held
		want want
	}{
		{"an unknown event", at(2022), other, has(), want{action: availability.NotFound, ttl: 9 * time.Second, upp: 10 * time.Second}},
		{"an unknown rendition", at(2022), noRung, has(), want{action: availability.NotFound, ttl: 9 * time.Second, upp: 10 * time.Second}},
		{"before the event's first segment", at(2022), segment(999), has(), want{action: availability.NotFound, ttl: 9 * time.Second, upp: 10 * time.Second}},
		{"after the event's last segment", at(2022), segment(1100), has(), want{action: availability.NotFound, ttl: 9 * time.Second, upp: 10 * time.Second}},
		{"not due by far: until just before it is due, 2062 s", at(2022), segment(1030), has(), want{action: availability.NotFound, ttl: 39800 * time.Millisecond, upp: 39900 * time.Millisecond}},
		{"not due, next but one", at(2022), segment(1012), has(), want{action: availability.NotFound, ttl: 3800 * time.Millisecond, upp: 3900 * time.Millisecond}},
		{"not due, whatever the store holds", at(2022), segment(1012), has(good), want{action: availability.NotFound, ttl: 3800 * time.Millisecond, upp: 3900 * time.Millisecond}},
		{"the next one is held open until 2 s after it is due", at(2022), segment(1011), has(), want{action: availability.Hold, until: at(2026)}},
		{"the next one, published early", at(2023.9), segment(1011), has(good), want{action: availability.Serve, ttl: 60100 * time.Millisecond}},
		{"due and present", at(2024.1), segment(1011), has(good), want{action: availability.Serve, ttl: 59900 * time.Millisecond}},
		{"due and missing, before its deadline", at(2025.9), segment(1011), has(), want{action: availability.Hold, until: at(2026)}},
		{"due and missing, at its deadline", at(2026), segment(1011), has(), want{action: availability.Gone, ttl: 4500 * time.Millisecond, upp: 5 * time.Second}},
		{"came after its deadline after all", at(2030), segment(1011), has(goodWest), want{action: availability.Serve, ttl: 54000 * time.Millisecond}},
		{"the first good one in the order of names", at(2025), segment(1011), has(good, goodWest), want{action: availability.Serve, pick: 0, ttl: 59000 * time.Millisecond}},
		{"a good one beats a defective one of an earlier name", at(2025), segment(1011), has(short, goodWest), want{action: availability.Serve, pick: 1, ttl: 59000 * time.Millisecond}},
		{"a defective one alone: a better one may come", at(2025), segment(1011), has(short), want{action: availability.Hold, until: at(2026)}},
		{"a defective one alone, past the deadline", at(2026), segment(1011), has(short), want{action: availability.Serve, ttl: 900 * time.Millisecond, upp: time.Second}},
		{"all pipelines' are defective: the least bad, at once", at(2025), segment(1011), has(corruptWest, short), want{action: availability.Serve, pick: 1, ttl: 900 * time.Millisecond, upp: time.Second}},
		{"has left the time-shift buffer", at(2084.1), segment(1011), has(good), want{action: availability.Gone, ttl: 9 * time.Second, upp: 10 * time.Second}},
		{"stress: catching up must wait", at(2050), segment(1011), availability.Held{Candidates: []availability.Candidate{good}, Stress: true}, want{action: availability.Busy, ttl: 5 * time.Second}},
		{"stress: the live edge goes on", at(2025), segment(1011), availability.Held{Candidates: []availability.Candidate{good}, Stress: true}, want{action: availability.Serve, ttl: 59000 * time.Millisecond}},
		{"no stress: catching up is fine", at(2050), segment(1011), has(good), want{action: availability.Serve, ttl: 34000 * time.Millisecond}},
		{"init", at(2010), init, has(good), want{action: availability.Serve, ttl: 54 * time.Second, upp: time.Minute}},
		{"init before the event", at(1995), init, has(), want{action: availability.NotFound, ttl: 4900 * time.Millisecond}},
		{"init not yet there", at(2010), init, has(), want{action: availability.Hold, until: at(2012)}},
		{"init never there", at(2012), init, has(), want{action: availability.NotFound, ttl: 900 * time.Millisecond, upp: time.Second}},
	} {
		t.Run(c.what, func(t *testing.T) {
			d := availability.Decide(c.now, stream, policy, c.req, c.held)
			if d.Action != c.want.action || d.Pick != c.want.pick || !d.Until.Equal(c.want.until) {
				t.Errorf("got %+v, want %+v", d, c.want)
			}
			if upper := max(c.want.ttl, c.want.upp); d.TTL < c.want.ttl || d.TTL > upper {
				t.Errorf("lifetime %v, want %v to %v", d.TTL, c.want.ttl, upper)
			}
			if d.Action != availability.Serve && d.Action != availability.Hold && d.Why == "" {
				t.Error("a refusal without a reason")
			}
		})
	}
}

func TestManifestsAreServedUntilTheyChange(t *testing.T) {
	for _, c := range []struct {
		kind     availability.Kind
		min, max time.Duration
	}{
		{availability.MPD, 9 * time.Second, 10 * time.Second},
		{availability.Master, 9 * time.Second, 10 * time.Second},
		{availability.Media, time.Millisecond, 2 * time.Second},
	} {
		r := availability.Request{Resource: availability.Resource{Event: "final", Rendition: "v720", Kind: c.kind}}
		d := availability.Decide(at(2022), stream, availability.DefaultPolicy, r, availability.Held{})
		if d.Action != availability.Serve || d.TTL < c.min || d.TTL > c.max {
			t.Errorf("kind %d: %+v, want it served for %v to %v", c.kind, d, c.min, c.max)
		}
	}
}

func TestLifetimesAreSpread(t *testing.T) {
	seen := map[time.Duration]bool{}
	for n := range uint64(100) {
		d := availability.Decide(at(2022), stream, availability.DefaultPolicy, segment(2000+n), availability.Held{})
		seen[d.TTL] = true
	}
	if len(seen) < 90 {
		t.Errorf("100 refusals share %d lifetimes: they would all end together", len(seen))
	}
}

// A "not due yet" must have expired when the segment is due, and no decision may keep a request waiting for ever.
func TestDecisionsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := at(rapid.Float64Range(1900, 2400).Draw(t, "now"))
		policy := availability.DefaultPolicy
		policy.Pipelines = rapid.IntRange(1, 3).Draw(t, "pipelines")
		policy.Seed = rapid.Uint64().Draw(t, "seed")
		req := segment(rapid.Uint64Range(990, 1110).Draw(t, "n"))
		req.Arrived = now
		var held availability.Held
		for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID).Draw(t, "pipelines there") {
			held.Candidates = append(held.Candidates, availability.Candidate{Pipeline: p, Defects: rapid.SliceOfN(rapid.SampledFrom([]string{"short", "corrupt", "odd"}), 0, 2).Draw(t, "defects")})
		}
		held.Stress = rapid.Bool().Draw(t, "stress")
		due := stream.Timeline.End(req.Number)
		d := availability.Decide(now, stream, policy, req, held)
		switch d.Action {
		case availability.Hold:
			if !d.Until.After(now) || d.Until.After(due.Add(policy.RetryDeadline)) {
				t.Fatalf("held from %v until %v", now, d.Until)
			}
			if d2 := availability.Decide(d.Until, stream, policy, req, held); d2.Action == availability.Hold {
				t.Fatalf("held again at the deadline: %+v", d2)
			}
		case availability.NotFound:
			if d.TTL <= 0 {
				t.Fatalf("a refusal that cannot be cached: %+v", d)
			}
			if d.Why == "the segment is not due yet" && now.Add(d.TTL).After(due) {
				t.Fatalf("not due is cached until %v, due is %v", now.Add(d.TTL), due)
			}
		case availability.Serve:
			if d.Pick < 0 || d.Pick >= len(held.Candidates) {
				t.Fatalf("serves candidate %d of %d", d.Pick, len(held.Candidates))
			}
		}
	})
}

func TestEveryOriginChoosesAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var cs []availability.Candidate
		for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 4, rapid.ID).Draw(t, "pipelines") {
			cs = append(cs, availability.Candidate{Pipeline: p, Defects: rapid.SliceOfN(rapid.SampledFrom([]string{"short", "missing-frames", "corrupt", "odd"}), 0, 3).Draw(t, "defects")})
		}
		i, good := availability.Choose(cs)
		shuffled := rapid.Permutation(cs).Draw(t, "arrival")
		j, good2 := availability.Choose(shuffled)
		if cs[i].Pipeline != shuffled[j].Pipeline || good != good2 {
			t.Fatalf("%v chosen, but %v when they arrive as %v", cs[i], shuffled[j], shuffled)
		}
		if good != slices.ContainsFunc(cs, func(c availability.Candidate) bool { return len(c.Defects) == 0 }) {
			t.Fatalf("good is %v for %v", good, cs)
		}
	})
}
