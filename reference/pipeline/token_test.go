package pipeline_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/pipeline"
)

// With tokens, a session plays from its manifests, both kinds, and nobody plays without a session.
func TestASessionPlaysWithItsTokens(t *testing.T) {
	if testing.Short() {
		t.Skip("runs on the wall clock for some seconds")
	}
	c := liveConfig(t)
	c.Regions = pipeline.Regions(c.Regions[0].Port, []string{"us-east"}, map[string]int{"us-east": 1})
	c.Playback.Tokens = true
	region, _ := start(t, c, 0, nil)
	ready(t, region)
	stream, err := c.Stream()
	if err != nil {
		t.Fatal(err)
	}
	begun := play(t, c.Regions[0].PlaybackURL(), `{"title":"first-light"}`)
	number := stream.Timeline.At(time.Now()) - 1
	if number < stream.First {
		number = stream.First
	}

	_, _, mpd := fetch(t, begun.Manifests.DASH)
	base := regexp.MustCompile(`<BaseURL[^>]*>([^<]*)</BaseURL>`).FindSubmatch(mpd)
	clock := regexp.MustCompile(`value="(http[^"]*/time)"`).FindSubmatch(mpd)
	if base == nil || clock == nil {
		t.Fatalf("%s", mpd)
	}
	segment := fmt.Sprintf("%s%s/%d.m4s", base[1], stream.Renditions[0].ID, number)
	_, _, master := fetch(t, begun.Manifests.HLS)
	playlist := regexp.MustCompile(`(?m)^http.*media\.m3u8$`).Find(master)
	for what, url := range map[string]string{"segment": segment, "clock": string(clock[1]), "playlist": string(playlist)} {
		eventually(t, what+" "+url, func() bool { status, _, _ := fetch(t, url); return status == 200 })
	}
	// What the playlist lists is relative, and so has the token too.
	_, _, media := fetch(t, string(playlist))
	if strings.Contains(string(media), "/") && regexp.MustCompile(`(?m)^[^#].*/`).Match(media) {
		t.Errorf("the playlist's URLs are not relative:\n%s", media)
	}
	token := regexp.MustCompile(`/t/[^/]*`).FindString(segment)
	changed := token[:4] + strings.ToLower(token[4:])
	for what, url := range map[string]string{"without": strings.Replace(segment, token, "", 1), "changed": strings.Replace(segment, token, changed, 1)} {
		if status, _, _ := fetch(t, url); status != 403 {
			t.Errorf("%s its token a segment has status %d", what, status)
		}
	}
	if status, _, _ := fetch(t, c.Regions[0].EdgeURL(1)+"/healthz"); status != 200 {
		t.Errorf("health: %d", status)
	}
}
