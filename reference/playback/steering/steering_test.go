package steering_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/playback/steering"
	"pgregory.net/rapid"
)

var twoByTwo = steering.NewMap([]steering.Edge{
	{ID: "us-east-1", Region: "us-east"}, {ID: "us-east-2", Region: "us-east"},
	{ID: "us-west-1", Region: "us-west"}, {ID: "us-west-2", Region: "us-west"},
})

func names(m *steering.Map, order []int) (ids []string) {
	for _, i := range order {
		ids = append(ids, m.Edges()[i].ID)
	}
	return
}

func TestHomeRegionFirstThenTheOtherThenTheUnhealthy(t *testing.T) {
	down := func(dead ...string) func(int) bool {
		return func(i int) bool { return !slices.Contains(dead, twoByTwo.Edges()[i].ID) }
	}
	viewer := steering.Hash("viewer-1")
	for _, c := range []struct {
		what  string
		home  string
		dead  []string
		wants [][]string // groups; inside a group any rotation
	}{
		{"all healthy", "us-east", nil, [][]string{{"us-east-1", "us-east-2"}, {"us-west-1", "us-west-2"}}},
		{"the other home", "us-west", nil, [][]string{{"us-west-1", "us-west-2"}, {"us-east-1", "us-east-2"}}},
		{"one edge out", "us-east", []string{"us-east-1"}, [][]string{{"us-east-2"}, {"us-west-1", "us-west-2"}, {"us-east-1"}}},
		{"home out", "us-east", []string{"us-east-1", "us-east-2"}, [][]string{{"us-west-1", "us-west-2"}, {"us-east-1", "us-east-2"}}},
		{"all out: as if all were healthy", "us-west", []string{"us-east-1", "us-east-2", "us-west-1", "us-west-2"},
			[][]string{{"us-west-1", "us-west-2"}, {"us-east-1", "us-east-2"}}},
	} {
		got := names(twoByTwo, twoByTwo.Order(nil, viewer, twoByTwo.Region(c.home), down(c.dead...)))
		rest := got
		for _, group := range c.wants {
			if len(rest) < len(group) {
				t.Fatalf("%s: %v is too short for %v", c.what, got, c.wants)
			}
			part := slices.Clone(rest[:len(group)])
			slices.Sort(part)
			if !slices.Equal(part, group) {
				t.Errorf("%s: %v, want groups %v", c.what, got, c.wants)
			}
			rest = rest[len(group):]
		}
	}
}

func TestEveryEdgeOnceAndHealthyOnesFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var edges []steering.Edge
		for r, n := range rapid.SliceOfN(rapid.IntRange(1, 5), 1, 5).Draw(t, "edges per region") {
			for k := range n {
				edges = append(edges, steering.Edge{ID: string(rune('a'+r)) + string(rune('1'+k)), Region: string(rune('a' + r))})
			}
		}
		m := steering.NewMap(edges)
		healthy := rapid.SliceOfN(rapid.Bool(), len(edges), len(edges)).Draw(t, "healthy")
		home := rapid.IntRange(-1, len(m.Regions())).Draw(t, "home")
		order := m.Order(nil, rapid.Uint64().Draw(t, "viewer"), home, func(i int) bool { return healthy[i] })
		sorted := slices.Clone(order)
		slices.Sort(sorted)
		for i := range edges {
			if i >= len(sorted) || sorted[i] != i {
				t.Fatalf("%v does not have every edge once", order)
			}
		}
		for i := 1; i < len(order); i++ {
			if healthy[order[i]] && !healthy[order[i-1]] {
				t.Fatalf("%v: an unhealthy edge before a healthy one", order)
			}
		}
		if home >= 0 && home < len(m.Regions()) {
			for i, e := range edges {
				if m.Region(e.Region) == home && healthy[i] && m.Region(edges[order[0]].Region) != home {
					t.Fatalf("%v: the home region's edge %d is healthy but not first", order, i)
				}
			}
		}
	})
}

func TestLoadSpreadsAlsoWhenARegionIsOut(t *testing.T) {
	m := steering.NewMap([]steering.Edge{{"a1", "a"}, {"a2", "a"}, {"b1", "b"}, {"b2", "b"}, {"c1", "c"}, {"c2", "c"}})
	first := make([]int, 6)
	const viewers = 40_000
	for v := range viewers {
		order := m.Order(nil, uint64(v), 0, func(i int) bool { return i >= 2 }) // region a is out
		first[order[0]]++
	}
	for i, n := range first {
		want := 0
		if i >= 2 {
			want = viewers / 4
		}
		if diff := n - want; diff < -viewers/50 || diff > viewers/50 {
			t.Errorf("edge %d is first for %d viewers, want about %d (all: %v)", i, n, want, first)
		}
	}
}

func TestHealthChangesAfterEnoughProbesInARow(t *testing.T) {
	p := steering.Probing{Down: 2, Up: 3, Stale: 10 * time.Second}
	now := time.Unix(1000, 0)
	var h steering.Health
	for i, c := range []struct {
		ok, changed, healthy bool
	}{
		{true, false, true}, {false, false, true}, {true, false, true}, // one failure is forgiven
		{false, false, true}, {false, true, false}, // two in a row are not
		{true, false, false}, {true, false, false}, {false, false, false}, // two successes are not enough
		{true, false, false}, {true, false, false}, {true, true, true}, // three are
		{false, false, true}, {false, true, false},
	} {
		now = now.Add(time.Second)
		var changed bool
		h, changed = p.Step(h, c.ok, now)
		if changed != c.changed || p.Healthy(h, now) != c.healthy {
			t.Errorf("probe %d: changed %v healthy %v, want %v %v", i, changed, p.Healthy(h, now), c.changed, c.healthy)
		}
	}
	if p.Healthy(h, now.Add(10*time.Second)) || !p.Healthy(h, now.Add(11*time.Second)) {
		t.Error("a verdict of unhealthy must be void once no probe confirmed it for 10 s, and not before")
	}
}

func TestAnEdgeThatIsStillStartingIsNotDown(t *testing.T) {
	p := steering.Probing{Down: 2, Up: 3, Grace: 5 * time.Second}
	begin := time.Unix(1000, 0)
	var h steering.Health
	for i := range 12 {
		now := begin.Add(time.Duration(i) * time.Second)
		h, _ = p.Step(h, false, now)
		// The failures at 5 s and 6 s are the first two that count.
		if want := i < 6; p.Healthy(h, now) != want {
			t.Errorf("never answered for %d s: healthy is %v, want %v", i, !want, want)
		}
	}
	h = steering.Health{}
	h, _ = p.Step(h, true, begin)
	h, _ = p.Step(h, false, begin.Add(time.Second))
	if h, _ = p.Step(h, false, begin.Add(2*time.Second)); p.Healthy(h, begin) {
		t.Error("an edge that answered once has no grace")
	}
}

func TestSteeringManifest(t *testing.T) {
	b := steering.Render([]string{"us-east-2", "us-west-1"}, 10*time.Second, "http://127.0.1.5:8080/v1/steering/x")
	want := `{"VERSION":1,"TTL":10,"RELOAD-URI":"http://127.0.1.5:8080/v1/steering/x","PATHWAY-PRIORITY":["us-east-2","us-west-1"]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	var m map[string]any
	if err := json.Unmarshal(steering.Render(nil, 0, ""), &m); err != nil || m["TTL"] != 1.0 || m["PATHWAY-PRIORITY"] == nil {
		t.Errorf("an empty order renders as %v, %v", m, err)
	}
}
