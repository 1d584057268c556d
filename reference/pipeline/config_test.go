package pipeline_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/reference/pipeline"
)

func config() pipeline.Config {
	return pipeline.Config{
		Run: "r-1", Seed: 7, Event: "first-light", Ladder: "sports", First: 1000, Key: []byte("0123456789abcdef"),
		Regions: pipeline.Regions(8080, []string{"us-east", "us-west"}, map[string]int{"us-east": 2, "us-west": 1}),
	}
}

func TestEveryAddressFollowsFromTheConfiguration(t *testing.T) {
	c := config()
	west := c.Regions[1]
	for got, want := range map[string]string{
		west.Prefix().String():       "127.0.2.0/24",
		west.PackagerURL():           "http://127.0.2.3:8080",
		west.OriginURL():             "http://127.0.2.4:8080",
		west.PlaybackURL():           "http://127.0.2.5:8080",
		west.EdgeURL(1):              "http://127.0.2.11:8080",
		west.EdgeAddr(2).String():    "127.0.2.12:8080",
		west.PlaybackAddr().String(): "127.0.2.5:8080",
		west.EdgeID(1):               "us-west-1",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	var ids []string
	for _, e := range c.Edges() {
		ids = append(ids, e.ID)
	}
	if strings.Join(ids, " ") != "us-east-1 us-east-2 us-west-1" {
		t.Errorf("edges %v", ids)
	}
}

// A region may live in a namespace, with a /24 of its own, and a component may have something in front of it.
func TestAddressesOfARegionElsewhereAndBehindARelay(t *testing.T) {
	here := config().Regions[1]
	there := here
	there.Block = netip.MustParsePrefix("198.18.7.0/24")
	shadow := func(r pipeline.RegionConfig, name string) string {
		addr, ok := r.Component(name)
		if !ok {
			t.Errorf("%s has no %s", r.Name, name)
		}
		return r.Shadow(addr).String()
	}
	for got, want := range map[string]string{
		there.Prefix().String():   "198.18.7.0/24",
		there.EdgeURL(1):          "http://198.18.7.11:8080",
		shadow(here, "edge-1"):    "127.1.2.11:8080",
		shadow(here, "origin"):    "127.1.2.4:8080",
		shadow(there, "playback"): "198.18.7.5:8081",
		shadow(there, "packager"): "198.18.7.3:8081",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, name := range []string{"edge-0", "edge-9", "edge-01", "edge", "encoder", ""} {
		if a, ok := here.Component(name); ok {
			t.Errorf("%q is %s", name, a)
		}
	}
	c := config()
	c.Regions[1].Behind = []string{"edge-7"}
	c.Regions[0].Block = netip.MustParsePrefix("198.18.0.0/15")
	err := c.Validate()
	for _, want := range []string{`"edge-7" is no component`, "198.18.0.0/15 is no IPv4 /24"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestConfigurationSurvivesJSON(t *testing.T) {
	c := config()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back pipeline.Config
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(c, back) {
		t.Errorf("%v: %+v comes back as %+v", err, c, back)
	}
	if err := back.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateReportsEverything(t *testing.T) {
	c := config()
	c.Run, c.Event, c.Key, c.Region, c.First, c.Last = "", "a/b", nil, 2, 10, 5
	c.Regions[1].Name, c.Regions[1].Number, c.Regions[1].Edges, c.Regions[1].Port = "us-east", 1, 0, 70000
	err := c.Validate()
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"run:", "event:", "last:", "key:", "region: index 2", "regions[1].name", "regions[1].number", "regions[1].edges", "regions[1].port"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in:\n%v", want, err)
		}
	}
}
