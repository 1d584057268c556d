package report

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

var samplesDir = flag.String("samples", "", "write every sample's files into this folder, to look at")

func TestWriteSamples(t *testing.T) {
	if *samplesDir == "" {
		t.Skip("no -samples folder")
	}
	for _, s := range samples {
		if err := Write(filepath.Join(*samplesDir, s.name), s.make(), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPageSaysTheVerdictAndWhyFirst(t *testing.T) {
	for _, s := range samples {
		r := s.make()
		doc := parsePage(t, r)
		if got := text(find(doc, "h1")[0]); got != VerdictWord(r.Verdict) {
			t.Errorf("%s: h1 is %q", s.name, got)
		}
		why := byClass(doc, "why")
		if len(why) != 1 || !strings.HasPrefix(strings.ReplaceAll(text(why[0]), "\u2060", ""), clean(r.Reasons[0])[:20]) {
			t.Errorf("%s: the sentence why is missing", s.name)
		}
	}
}

func TestPageNeedsNoNetwork(t *testing.T) {
	for _, s := range samples {
		doc := parsePage(t, s.make())
		walk(doc, func(n *html.Node) {
			switch n.Data {
			case "link", "img", "iframe", "object", "embed", "base", "form", "image", "use", "a":
				t.Errorf("%s: <%s> in the page", s.name, n.Data)
			}
			for _, a := range n.Attr {
				if a.Key == "src" || a.Key == "href" || strings.HasPrefix(a.Key, "on") {
					t.Errorf("%s: <%s %s=%q>", s.name, n.Data, a.Key, a.Val)
				}
			}
		})
		if bytes.Contains(render(t, s.make()), []byte("@import")) || regexp.MustCompile(`url\((?:[^#]|$)`).Match(render(t, s.make())) {
			t.Errorf("%s: the style reaches outside the page", s.name)
		}
	}
}

// The only script that runs is ours, and its hash is in the policy; whatever a scenario says stays text.
func TestPageRunsNothingThatAScenarioSays(t *testing.T) {
	ours, theirs := parsePage(t, sampleNoGo()), parsePage(t, sampleHostile())
	for _, doc := range []*html.Node{ours, theirs} {
		var running []string
		for _, n := range find(doc, "script") {
			if attr(n, "type") != "application/json" {
				running = append(running, text(n))
			}
		}
		if len(running) != 1 || running[0] != pageJS {
			t.Fatalf("scripts that run: %q", running)
		}
		policy := ""
		for _, n := range find(doc, "meta") {
			if attr(n, "http-equiv") == "Content-Security-Policy" {
				policy = attr(n, "content")
			}
		}
		if !strings.Contains(policy, "script-src '"+scriptHash(running[0])+"'") || !strings.Contains(policy, "default-src 'none'") {
			t.Errorf("policy %q does not allow just our script", policy)
		}
	}
	whole := sampleRetryStorm() // every kind of element that a page can have
	whole.Forecast, whole.Processes, whole.Reasons, whole.Verdict = sampleForecast().Forecast, sampleForecast().Processes, sampleNoGo().Reasons, NoGo
	whole.Experiment = sampleCanary().Experiment
	whole.Faults, whole.Objectives = sampleNoGo().Faults, sampleNoGo().Objectives
	ours = parsePage(t, whole)
	tags := func(doc *html.Node) (names []string) {
		walk(doc, func(n *html.Node) { names = append(names, n.Data) })
		slices.Sort(names)
		return slices.Compact(names)
	}
	if a, b := tags(ours), tags(theirs); !slices.Equal(a, b) {
		t.Errorf("hostile words brought in elements: %v, without them %v", b, a)
	}
}

func TestPagePutsFailingObjectivesFirst(t *testing.T) {
	for _, c := range []struct {
		r    *Report
		want []string
	}{
		{sampleNoGo(), []string{"Missed", "Missed", "Missed", "Met", "Met"}},
		{sampleInconclusive(), []string{"No data", "Met", "Met", "Met", "Met", "Met"}},
	} {
		var got []string
		doc := parsePage(t, c.r)
		for _, n := range byClass(doc, "res") {
			got = append(got, strings.TrimSpace(text(n)))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: results %v, want %v", c.r.Scenario, got, c.want)
		}
	}
}

func TestPageShowsFiguresFaultsAndLedger(t *testing.T) {
	all := text(parsePage(t, sampleNoGo()))
	for _, want := range []string{
		"26.1\u00a0%", "under 0.5\u00a0%", "52× the limit", "Suspect: crash of us-east.",
		"crash of us-east · confirmed", "T+30\u00a0s to T+50\u00a0s, 20.2\u00a0s",
		"58,113 emitted = 58,113 stored", "26.12\u00a0%", "us-east (2 edges)",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	all = text(parsePage(t, sampleInconclusive()))
	for _, want := range []string{"212 events lost", "64,210 emitted ≠ 63,998 stored", "cut of us-west · mismatch", "1 of 4 checks failed"} {
		if !strings.Contains(all, want) {
			t.Errorf("the inconclusive page does not say %q", want)
		}
	}
}

func TestPageLeavesOutWhatDoesNotApply(t *testing.T) {
	doc := parsePage(t, sampleTarget())
	for _, n := range find(doc, "h2") {
		if s := text(n); s == "Load" || s == "Faults and their evidence" {
			t.Errorf("target mode without load or faults has a section %q", s)
		}
	}
	if all := text(doc); strings.Contains(all, "Play starts a second") {
		t.Error("a panel of play starts without play starts")
	}
	empty := parsePage(t, &Report{Verdict: Inconclusive})
	if !strings.Contains(text(empty), "Nothing was recorded on the timeline") {
		t.Error("an empty report does not say so")
	}
}

// Every drawing is named and described, every header cell has its scope, ids are unique, headings do not skip.
func TestPageIsAccessible(t *testing.T) {
	for _, s := range samples {
		doc := parsePage(t, s.make())
		ids := map[string]bool{}
		walk(doc, func(n *html.Node) {
			if id := attr(n, "id"); id != "" {
				if ids[id] {
					t.Errorf("%s: id %q twice", s.name, id)
				}
				ids[id] = true
			}
			switch n.Data {
			case "th":
				if attr(n, "scope") == "" {
					t.Errorf("%s: a header cell without scope: %q", s.name, text(n))
				}
			case "h3":
				if section := enclosing(n, "section"); section == nil || len(find(section, "h2")) == 0 {
					t.Errorf("%s: heading <h3> %q skips a level", s.name, text(n))
				}
			case "h4":
				t.Errorf("%s: heading <%s> skips a level", s.name, n.Data)
			}
		})
		walk(doc, func(n *html.Node) {
			for _, id := range strings.Fields(attr(n, "aria-labelledby")) {
				if !ids[id] {
					t.Errorf("%s: aria-labelledby names %q, which is not there", s.name, id)
				}
			}
		})
		plots := byClass(doc, "plot")
		timeline := 0
		for _, p := range plots {
			if strings.HasPrefix(text(find(p, "title")[0]), "Timeline of ") {
				timeline++
			}
		}
		if timeline != 2 || len(plots)%2 != 0 {
			t.Fatalf("%s: %d drawings of the timeline, %d in all", s.name, timeline, len(plots))
		}
		for _, p := range plots {
			if !ids[attr(p, "data-figures")] || len(byClass(p.Parent, "tip")) != 1 || len(byClass(p, "cross")) != 1 {
				t.Errorf("%s: the crosshair of %q has no figures", s.name, text(find(p, "title")[0]))
			}
			if attr(p, "role") != "img" || len(find(p, "title")) == 0 || len(find(p, "desc")) == 0 {
				t.Errorf("%s: a drawing without role, title or desc", s.name)
			}
		}
		if attr(find(doc, "html")[0], "lang") != "en" {
			t.Errorf("%s: no language", s.name)
		}
	}
}

func TestLongRunStaysSmall(t *testing.T) {
	if n := len(render(t, sampleLong())); n > 256<<10 {
		t.Errorf("a three-hour report is %d KB", n>>10)
	}
}

func render(t *testing.T, r *Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b.Bytes(), []byte("ZgotmplZ")) {
		t.Fatal("the template refused a value")
	}
	if m := regexp.MustCompile(`NaN|[+-]Inf`).Find(b.Bytes()); m != nil {
		t.Fatalf("the page holds %s", m)
	}
	return b.Bytes()
}

func parsePage(t *testing.T, r *Report) *html.Node {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(render(t, r)))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func walk(n *html.Node, f func(*html.Node)) {
	if n.Type == html.ElementNode {
		f(n)
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		walk(c, f)
	}
}

func find(n *html.Node, name string) (out []*html.Node) {
	walk(n, func(n *html.Node) {
		if n.Data == name {
			out = append(out, n)
		}
	})
	return out
}

func enclosing(n *html.Node, name string) *html.Node {
	for n != nil && n.Data != name {
		n = n.Parent
	}
	return n
}

func byClass(n *html.Node, class string) (out []*html.Node) {
	walk(n, func(n *html.Node) {
		if slices.Contains(strings.Fields(attr(n, "class")), class) {
			out = append(out, n)
		}
	})
	return out
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	if n.Type == html.TextNode {
		return n.Data
	}
	var b strings.Builder
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		b.WriteString(text(c))
	}
	return b.String()
}

// clean is what a parser makes of a NUL.
func clean(s string) string { return strings.ReplaceAll(s, "\x00", "\ufffd") }

// TestContrast holds every pair of text and ground colour of the style to WCAG AA, light and dark.
func TestContrast(t *testing.T) {
	blocks := regexp.MustCompile(`(?s):root\{(.*?)\}`).FindAllStringSubmatch(pageCSS, -1)
	if len(blocks) != 3 {
		t.Fatalf("%d palettes in the style, want light, dark and print", len(blocks))
	}
	for i, name := range []string{"light", "dark", "print"} {
		color := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z-]+):(#[0-9a-f]{3,6})\b`).FindAllStringSubmatch(blocks[i][1], -1) {
			color[m[1]] = m[2]
		}
		for _, ground := range []string{"bg", "surface"} {
			for _, ink := range []string{"ink", "soft", "ok", "bad", "warn"} {
				if c := contrast(t, color[ink], color[ground]); c < 4.5 {
					t.Errorf("%s: %s on %s has contrast %.2f", name, ink, ground, c)
				}
			}
			for _, line := range []string{"blue", "violet", "fault"} {
				if c := contrast(t, color[line], color[ground]); c < 3 {
					t.Errorf("%s: %s on %s has contrast %.2f", name, line, ground, c)
				}
			}
		}
		for ground, ink := range map[string]string{"go": "#ffffff", "no-go": "#ffffff", "inconclusive": "#1a1300"} {
			if c := contrast(t, ink, color[ground]); c < 4.5 {
				t.Errorf("%s: the verdict on %s has contrast %.2f", name, ground, c)
			}
		}
	}
}

// contrast is the ratio of WCAG 2.2, "contrast ratio".
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	la, lb := luminance(t, a), luminance(t, b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 4 {
		hex = "#" + strings.Repeat(hex[1:2], 2) + strings.Repeat(hex[2:3], 2) + strings.Repeat(hex[3:4], 2)
	}
	var c [3]int
	if n, err := fmt.Sscanf(hex, "#%02x%02x%02x", &c[0], &c[1], &c[2]); n != 3 {
		t.Fatalf("colour %q: %v", hex, err)
	}
	var l float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		l += weight * linear(float64(c[i])/255)
	}
	return l
}

func linear(v float64) float64 {
	if v <= 0.04045 {
		return v / 12.92
	}
	return math.Pow((v+0.055)/1.055, 2.4)
}

// neverDue is a report of a run that was interrupted before its fault.
func neverDue() *Report {
	r := sampleInconclusive()
	r.Timeline = r.Timeline[:10]
	r.Faults = []Fault{{ID: "region-1", Fail: "region", Model: "crash", Where: "us-east", AtS: 30, Restored: true,
		Evidence: Evidence{Status: Inconclusive, Unit: "% of probes", Detail: "the run ended before the fault was due"}}}
	return r
}

func TestPageOfAFaultThatNeverCame(t *testing.T) {
	r := neverDue()
	all := text(parsePage(t, r))
	for _, want := range []string{"not injected", "the run ended before the fault was due", "nothing to undo"} {
		if !strings.Contains(all, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(all, "of probes") || strings.Contains(all, "T+30\u00a0s to") {
		t.Error("the page gives figures of a fault that never came")
	}
	c := r.drawChart(wide)
	if len(c.Bands) != 0 || c.T1 != 10 {
		t.Errorf("drawn to T+%v s with bands %+v", c.T1, c.Bands)
	}
	var junit bytes.Buffer
	if err := r.WriteJUnit(&junit); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(junit.String(), "expected 0") {
		t.Errorf("junit.xml gives figures of a fault that never came:\n%s", junit.String())
	}
}

func TestPlayersCard(t *testing.T) {
	r := sampleGo()
	r.Players.StartupP50S, r.Players.SkippedS = 0.00734, 4.2
	card := ""
	for _, n := range find(parsePage(t, r), "section") {
		if attr(n, "aria-labelledby") == "players" {
			card = text(n)
		}
	}
	for _, want := range []string{"Startup, median7.34\u00a0ms", "Skipped to catch up4.2\u00a0s"} {
		if !strings.Contains(card, want) {
			t.Errorf("the card does not say %q: %s", want, card)
		}
	}
}
