package pipeline_test

import (
	"encoding/json"
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
