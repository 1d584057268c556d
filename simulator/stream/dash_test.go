package stream

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }

const byNumber = `<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="dynamic" availabilityStartTime="2026-11-21T20:00:00Z"
  suggestedPresentationDelay="PT6S" timeShiftBufferDepth="PT1M" profiles="">
  <BaseURL serviceLocation="a">http://127.0.1.11:8080/ev/</BaseURL>
  <BaseURL serviceLocation="b">http://127.0.1.12:8080/ev/</BaseURL>
  <Period id="1" start="PT10S">
    <AdaptationSet contentType="video" mimeType="video/mp4">
      <SegmentTemplate timescale="1000" duration="1920" startNumber="5" presentationTimeOffset="7000"
        media="$RepresentationID$/$Number%05d$.m4s?b=$Bandwidth$" initialization="$RepresentationID$/init.mp4"/>
      <Representation id="hi" bandwidth="2000000" width="1280" height="720"/>
      <Representation id="lo" bandwidth="500000" width="640" height="360"/>
    </AdaptationSet>
    <AdaptationSet contentType="audio" lang="en" mimeType="audio/mp4">
      <SegmentTemplate timescale="48000" duration="96000" media="a/$Time$.m4s" initialization="a/init.mp4"/>
      <Representation id="en" bandwidth="96000"/>
    </AdaptationSet>
    <AdaptationSet contentType="text" mimeType="application/mp4"><Representation id="sub" bandwidth="1"/></AdaptationSet>
  </Period>
</MPD>`

func parse(t *testing.T, body, url string, now time.Time) *Presentation {
	t.Helper()
	p, err := Parse([]byte(body), url, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func index(t *testing.T, p *Presentation, id, path string) *Index {
	t.Helper()
	for i, r := range p.Renditions {
		if r.ID == id {
			s, ok := p.Source(i, path)
			if !ok || s.Index == nil {
				t.Fatalf("no index of %s on %s", id, path)
			}
			return s.Index
		}
	}
	t.Fatalf("no rendition %s in %+v", id, p.Renditions)
	return nil
}

func TestDASHByNumber(t *testing.T) {
	p := parse(t, byNumber, "http://127.0.1.5/m/manifest.mpd", at(30))
	if got := fmt.Sprint(p.Paths); got != "[a b]" {
		t.Errorf("paths %s", got)
	}
	if len(p.Renditions) != 3 || p.Renditions[0].ID != "lo" || p.Renditions[1].ID != "hi" || p.Renditions[2].Kind != Audio || fmt.Sprint(p.Renditions[0].Audio) != "[2]" {
		t.Errorf("renditions %+v", p.Renditions)
	}
	if p.Delay != 6*time.Second || fmt.Sprint(p.Ladder()) != "[0 1]" {
		t.Errorf("delay %s, ladder %v", p.Delay, p.Ladder())
	}
	x := index(t, p, "hi", "b")
	for _, c := range []struct {
		t      float64
		place  Place
		number uint64
		start  float64
	}{
		{0, Later, 5, 10},
		{10, Here, 5, 10},
		{11.8, Here, 5, 10},
		{11.919999, Here, 6, 11.92}, // a microsecond short of the boundary is rounding
		{11.92, Here, 6, 11.92},
		{10 + 1.92*1000 + 1, Here, 1005, 10 + 1.92*1000},
	} {
		s, place := x.At(at(c.t))
		if place != c.place || s.Number != c.number || !s.Start.Equal(at(c.start)) {
			t.Errorf("At(%v) = %d from %v, place %d; want %d from %v, place %d", c.t, s.Number, s.Start.Sub(t0), place, c.number, c.start, c.place)
		}
	}
	s, _ := x.At(at(12))
	if s.URL != "http://127.0.1.12:8080/ev/hi/00006.m4s?b=2000000" || s.Init.URL != "http://127.0.1.12:8080/ev/hi/init.mp4" {
		t.Errorf("URL %s, init %s", s.URL, s.Init.URL)
	}
	if s.MediaTime != 8920*time.Millisecond || !s.Available.Equal(at(13.84)) || s.Duration != 1920*time.Millisecond {
		t.Errorf("media time %s, available %v, duration %s", s.MediaTime, s.Available, s.Duration)
	}
	if e, ok := x.LiveEdge(at(13.83)); !ok || !e.Equal(at(11.92)) {
		t.Errorf("live edge %v %t", e.Sub(t0), ok)
	}
	if _, ok := x.LiveEdge(at(11)); ok {
		t.Error("a live edge before the first segment is complete")
	}
	if e, _ := x.Earliest(at(100)); !e.Equal(at(40)) {
		t.Errorf("earliest %v", e.Sub(t0))
	}
	if s, _ := index(t, p, "en", "a").At(at(15)); s.URL != "http://127.0.1.11:8080/ev/a/192000.m4s" {
		t.Errorf("by time: %s", s.URL)
	}
}

func TestDASHTimeline(t *testing.T) {
	mpd := func(s string) string {
		return `<MPD type="dynamic" availabilityStartTime="2026-11-21T20:00:00Z" minimumUpdatePeriod="PT2S" profiles=""><Period start="PT0S"><AdaptationSet mimeType="video/mp4">
<Representation id="v" bandwidth="9"><SegmentTemplate timescale="1000" startNumber="7" media="$Number$-$Time$.m4s" initialization="i"><SegmentTimeline>` + s +
			`</SegmentTimeline></SegmentTemplate></Representation></AdaptationSet></Period></MPD>`
	}
	const url = "http://127.0.0.1:1/x/live.mpd"
	cases := map[string]struct {
		s     string
		ask   float64
		place Place
		url   string
	}{
		"first":           {`<S t="4000" d="2000" r="2"/>`, 4.1, Here, "7-4000"},
		"repeated":        {`<S t="4000" d="2000" r="2"/>`, 8, Here, "9-8000"},
		"past":            {`<S t="4000" d="2000" r="2"/>`, 1, Later, "7-4000"},
		"ahead":           {`<S t="4000" d="2000" r="2"/>`, 10, Ahead, ""},
		"uneven":          {`<S t="0" d="1500"/><S d="2500"/>`, 1.6, Here, "8-1500"},
		"hole":            {`<S t="0" d="2000"/><S t="6000" d="2000"/>`, 3, Later, "8-6000"},
		"repeat to next":  {`<S t="0" d="2000" r="-1"/><S t="6000" d="1000"/>`, 6.5, Here, "10-6000"},
		"repeat for ever": {`<S t="0" d="2000"/><S d="1000" r="-1"/>`, 100.5, Here, "106-100000"},
		"empty":           {``, 3, Ahead, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			x := index(t, parse(t, mpd(c.s), url, at(20)), "v", "127.0.0.1:1")
			s, place := x.At(at(c.ask))
			want := "http://127.0.0.1:1/x/" + c.url + ".m4s"
			if place != c.place || place != Ahead && s.URL != want {
				t.Errorf("At(%v) = %s, place %d; want %s, place %d", c.ask, s.URL, place, want, c.place)
			}
		})
	}
	for name, s := range map[string]string{"zero": `<S t="0" d="0"/>`, "backwards": `<S t="9000" d="10"/><S t="0" d="10"/>`, "endless": `<S t="0" d="1000" r="2000000000"/>`} {
		if _, err := Parse([]byte(mpd(s)), url, at(20), nil); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDASHPeriodsAndEnd(t *testing.T) {
	body := `<MPD type="dynamic" availabilityStartTime="2026-11-21T20:00:00" minimumUpdatePeriod="PT5S" profiles=""><BaseURL>media/</BaseURL>
<Period id="1" duration="PT10S"><AdaptationSet contentType="video"><SegmentTemplate duration="2" media="p1-$RepresentationID$-$Number$"/><Representation id="v" bandwidth="1"/></AdaptationSet></Period>
<Period id="2" duration="PT20S"><AdaptationSet contentType="video"><SegmentTemplate duration="4" media="p2-$RepresentationID$-$Number$"/><Representation id="w" bandwidth="1"/></AdaptationSet></Period>
<Period id="3"><AdaptationSet contentType="video"><SegmentTemplate duration="4" media="p3-$RepresentationID$-$Number$"/><Representation id="v" bandwidth="1"/></AdaptationSet></Period>
</MPD>`
	p := parse(t, body, "http://localhost/a/b.mpd", at(5))
	x := index(t, p, "v", "localhost")
	for _, c := range []struct {
		t   float64
		url string
		era int
	}{{0, "p1-v-1", 0}, {9, "p1-v-5", 0}, {10, "p2-w-1", 1}, {29, "p2-w-5", 1}, {30, "p3-v-1", 2}, {300, "p3-v-68", 2}} {
		s, place := x.At(at(c.t))
		if place != Here || s.URL != "http://localhost/a/media/"+c.url || s.Era != c.era {
			t.Errorf("At(%v) = %s era %d place %d, want %s", c.t, s.URL, s.Era, place, c.url)
		}
	}
	// The packager ends the event: the MPD turns static and loses its clock.
	static := strings.ReplaceAll(strings.Replace(strings.Replace(body, "dynamic", "static", 1), ` availabilityStartTime="2026-11-21T20:00:00"`, "", 1), `<Period id="3">`, `<Period id="3" duration="PT8S">`)
	if _, err := Parse([]byte(static), "http://localhost/a/b.mpd", at(40), nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a static MPD out of the blue: %v", err)
	}
	p, err := Parse([]byte(static), "http://localhost/a/b.mpd", at(40), p)
	if err != nil || !p.Ended {
		t.Fatalf("ended %v: %v", p, err)
	}
	x = index(t, p, "v", "localhost")
	if _, place := x.At(at(38)); place != Beyond {
		t.Errorf("after the end: place %d", place)
	}
	if e, ok := x.End(); !ok || !e.Equal(at(38)) {
		t.Errorf("end %v %t", e, ok)
	}
}

func TestDASHRefusals(t *testing.T) {
	wrap := func(inner string) string {
		return `<MPD type="dynamic" availabilityStartTime="2026-11-21T20:00:00Z" profiles="">` + inner + `</MPD>`
	}
	set := func(inner string) string {
		return wrap(`<Period start="PT0S"><AdaptationSet contentType="video"><Representation id="v" bandwidth="1">` + inner + `</Representation></AdaptationSet></Period>`)
	}
	cases := []struct {
		name, body string
		is         error
		says       string
	}{
		{"empty", ``, ErrMalformed, "neither an MPD nor"},
		{"html", `<html></html>`, ErrMalformed, `root element is "html"`},
		{"cut off", byNumber[:600], ErrMalformed, ""},
		{"static", strings.Replace(byNumber, "dynamic", "static", 1), ErrUnsupported, "not a live stream"},
		{"no clock", strings.Replace(byNumber, "availabilityStartTime", "x", 1), ErrMalformed, "availabilityStartTime"},
		{"no period", wrap(``), ErrMalformed, "0 periods"},
		{"segment base", set(`<SegmentBase/>`), ErrUnsupported, "no SegmentTemplate"},
		{"segment list", set(`<SegmentList/>`), ErrUnsupported, "SegmentList"},
		{"no duration", set(`<SegmentTemplate media="$Number$"/>`), ErrMalformed, "duration"},
		{"zero timescale", set(`<SegmentTemplate media="$Number$" timescale="0" duration="1"/>`), ErrMalformed, "timescale"},
		{"tiny segments", set(`<SegmentTemplate media="$Number$" timescale="1000" duration="1"/>`), ErrMalformed, "0.1 s"},
		{"unknown identifier", set(`<SegmentTemplate media="$Nummer$" duration="2"/>`), ErrUnsupported, "$Nummer$"},
		{"open identifier", set(`<SegmentTemplate media="a$Number" duration="2"/>`), ErrMalformed, "without its end"},
		{"huge width", set(`<SegmentTemplate media="$Number%0999999d$" duration="2"/>`), ErrMalformed, "width"},
		{"ftp", wrap(`<BaseURL>ftp://x/</BaseURL><Period start="PT0S"/>`), ErrUnsupported, "want http"},
		{"deep", "<MPD>" + strings.Repeat("<a>", 1000), ErrMalformed, "levels"},
		{"xlink", wrap(`<Period xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="http://x/"/>`), ErrUnsupported, "remote"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.body), "http://127.0.0.1/x.mpd", at(10), nil)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v; want %v that says %q", err, c.is, c.says)
			}
		})
	}
	if _, err := Parse(make([]byte, MaxManifest+1), "http://127.0.0.1/", at(0), nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("too long: %v", err)
	}
}

// An index must answer every time it is asked for, in order and without a hole of its own making.
func walk(t *testing.T, x *Index, from time.Time, n int) {
	for range n {
		s, place := x.At(from)
		if place == Ahead || place == Beyond {
			return
		}
		if !s.End().After(from) && s.Duration > 0 {
			t.Fatalf("At(%s) gave a segment that ends at %s", from, s.End())
		}
		next := s.End()
		if !next.After(from) {
			next = from.Add(time.Millisecond)
		}
		from = next
	}
}

func fuzzParse(f *testing.F, url string) {
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := Parse(body, url, at(30), nil)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		for i := range p.Renditions {
			for _, path := range p.Paths {
				s, ok := p.Source(i, path)
				if !ok || s.Index == nil {
					continue
				}
				walk(t, s.Index, at(0), 50)
				if e, ok := s.Index.LiveEdge(at(30)); ok {
					walk(t, s.Index, e.Add(-10*time.Second), 10)
				}
				s.Index.Earliest(at(30))
				s.Index.End()
				s.Index.Mark()
			}
		}
		_, _ = Parse(body, url, at(32), p)
	})
}

func FuzzParseDASH(f *testing.F) {
	f.Add([]byte(byNumber))
	for _, pattern := range []string{"../../reference/manifest/testdata/*.mpd", "testdata/*.mpd"} {
		names, _ := filepath.Glob(pattern)
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil {
				f.Add(b)
			}
		}
	}
	fuzzParse(f, "http://127.0.0.1/a/b.mpd")
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{"PT2S": 2 * time.Second, "PT0S": 0, "PT1.92S": 1920 * time.Millisecond, "P0Y0M0DT0H0M2.000S": 2 * time.Second,
		"P1DT1H1M": 25*time.Hour + time.Minute, "PT500M": 500 * time.Minute, "P2D": 48 * time.Hour, " PT6S ": 6 * time.Second} {
		var d xsDuration
		if err := d.UnmarshalXMLAttr(xml.Attr{Value: s}); err != nil || time.Duration(d) != want {
			t.Errorf("%q = %s, %v; want %s", s, time.Duration(d), err, want)
		}
	}
	for _, s := range []string{"", "P", "2S", "-PT2S", "PT-2S", "PT2", "PT2X", "PTS", "P1Y", "P1M", "PT2S1M", "PT1e99S", "PTNaNS", "PTInfS", "P100000D", "PT1S1S"} {
		var d xsDuration
		if err := d.UnmarshalXMLAttr(xml.Attr{Value: s}); s != "P" && err == nil {
			t.Errorf("%q was taken for %s", s, time.Duration(d))
		}
	}
}
