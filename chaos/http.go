package chaos

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos/audit"
	"github.com/tminus-live/tminus/chaos/httprelay"
	"github.com/tminus-live/tminus/chaos/media"
)

var onHTTP = []string{PartPackager, PartOrigin, PartEdge, PartPlayback, PartService}

const (
	behindRelay  = "a relay in front of it"
	httpEvidence = "requests of its own, at the address that clients use, before, during and after, and of a playback service a viewer's; where there is a neighbour in another region, it answers throughout"
	// passFor is how long what an audit asks an edge with is let pass.
	passFor = 24 * time.Hour
)

// Parameters that many faults in answers have.
var (
	ofStatus   = Parameter{Name: "status", Type: TypeWhole, Default: "503", Least: 400, Most: 599, Summary: "what is answered"}
	ofRequests = Parameter{Name: "share", Type: TypeShare, Default: "100%", Least: .005, Most: 1, Summary: "of requests"}
	afterBytes = Parameter{Name: "after", Type: TypeSize, Default: "0B", Most: 1e9, Summary: "bytes of the body that pass before"}
	onPath     = Parameter{Name: "path", Type: TypeText, Summary: "regular expression on the path; every path where left out"}
	ofMethod   = Parameter{Name: "method", Type: TypeWord, Words: []string{"any", http.MethodGet, http.MethodPost}, Default: "any", Summary: "of requests with this method; POST of a playback service alone, since nothing else is asked with it to prove it"}
	askedPath  = Parameter{Name: "ask", Type: TypeText, Summary: "path that is asked for with GET to prove it; where left out, what the fault is about of these: what a viewer asks a playback service, the newest segment, what says that the part is well"}
)

// answers describes a fault in what a part answers.
func answers(name, summary, example string, parameters []Parameter, does func(Fault) (httprelay.Action, audit.Want)) Model {
	return Model{
		Name: name, Summary: summary, Evidence: httpEvidence, Example: example,
		Parameters: append(parameters, ofRequests, ofMethod, onPath, askedPath),
		front:      func(Fault, Terms) Front { return FrontHTTP },
		check: func(f Fault) error {
			action, _ := does(f)
			_, err := answerRule(f, action)
			return err
		},
		lack: func(f Fault, t Terms) error {
			if f.Text("method") == http.MethodPost && t.Kind != PartPlayback {
				return fmt.Errorf("%w: method: POST is what a playback service alone is asked with, and so is its proof", ErrUnsupported)
			}
			return nil
		},
		plan: func(f Fault, cfg *Config) (plan, error) {
			action, want := does(f)
			want.Share = f.Share("share")
			return planAnswers(f, cfg, action, want)
		},
	}
}

var httpKinds = []Kind{{
	Fail: "http", Summary: "a part answers HTTP badly: errors, delays, answers that stop in the middle", Where: "a component of a region that serves HTTP, or something of one's own", On: onHTTP,
	Models: []Model{
		answers("status", "requests are answered with an error", "{at: 30s, for: 20s, fail: http, where: us-east/edge-1, model: {status: {status: 503, share: 20%}}}",
			[]Parameter{
				ofStatus,
				{Name: "retry-after", Type: TypeDuration, Default: "0s", Most: 3600, Summary: "the Retry-After field; 0s: none"},
			},
			func(f Fault) (httprelay.Action, audit.Want) {
				return httprelay.Action{Kind: httprelay.Status, Status: f.Whole("status"), RetryAfter: f.Duration("retry-after")}, audit.Want{Kind: audit.Status, Status: f.Whole("status")}
			}),
		answers("latency", "answers take their time", "{at: 30s, for: 20s, fail: http, where: us-east/origin, model: {latency: {delay: 800ms}}}",
			[]Parameter{
				{Name: "delay", Type: TypeDuration, Required: true, Least: .001, Most: 60, Summary: "how much longer"},
				{Name: "jitter", Type: TypeDuration, Default: "0s", Most: 60, Summary: "the delay varies by so much to either side"},
			},
			func(f Fault) (httprelay.Action, audit.Want) {
				return httprelay.Action{Kind: httprelay.Latency, Delay: f.Duration("delay"), Jitter: f.Duration("jitter")},
					audit.Want{Kind: audit.Latency, Delay: f.Duration("delay"), Jitter: f.Duration("jitter")}
			}),
		answers("stall", "answers pause in the middle of their body", "{at: 30s, for: 20s, fail: http, where: us-east/edge-1, model: {stall: {for: 3s, share: 30%}}}",
			[]Parameter{afterBytes, {Name: "for", Type: TypeDuration, Default: "2s", Least: .1, Most: 60, Summary: "how long they pause"}},
			func(f Fault) (httprelay.Action, audit.Want) {
				return httprelay.Action{Kind: httprelay.Stall, After: int64(f.Size("after")), For: f.Duration("for")}, audit.Want{Kind: audit.Stall, For: f.Duration("for")}
			}),
		answers("reset", "connections are reset in the middle of an answer", "{at: 30s, for: 20s, fail: http, where: us-east/edge-1, model: {reset: {share: 10%}}}",
			[]Parameter{afterBytes},
			func(f Fault) (httprelay.Action, audit.Want) {
				return httprelay.Action{Kind: httprelay.Reset, After: int64(f.Size("after"))}, audit.Want{Kind: audit.Reset}
			}),
		answers("truncate", "answers end short of their length", "{at: 30s, for: 20s, fail: http, where: us-east/edge-1, model: {truncate: {share: 10%}}}",
			[]Parameter{afterBytes},
			func(f Fault) (httprelay.Action, audit.Want) {
				return httprelay.Action{Kind: httprelay.Truncate, After: int64(f.Size("after"))}, audit.Want{Kind: audit.Truncate}
			}),
		answers("throttle", "bodies come slowly", "{at: 30s, for: 20s, fail: http, where: us-east/edge-1, model: {throttle: {rate: 400kbit}}}",
			[]Parameter{{Name: "rate", Type: TypeRate, Required: true, Least: 8000, Most: 1e11, Summary: "of each answer's body"}},
			func(f Fault) (httprelay.Action, audit.Want) {
				return httprelay.Action{Kind: httprelay.Throttle, Rate: f.Rate("rate") / 8}, audit.Want{Kind: audit.Throttle, Rate: f.Rate("rate") / 8}
			}),
		answers("corrupt", "bytes of bodies are flipped", "{at: 30s, for: 20s, fail: http, where: us-east/edge-1, model: {corrupt: {share: 20%}}}",
			[]Parameter{{Name: "each", Type: TypeWhole, Default: "1024", Least: 1, Most: 1e9, Summary: "one byte in so many"}},
			func(f Fault) (httprelay.Action, audit.Want) {
				return httprelay.Action{Kind: httprelay.Corrupt, Each: f.Whole("each")}, audit.Want{Kind: audit.Corrupt}
			}),
	},
}}

// relayed is a fault that the relay in front of a part commits.
func relayed(f Fault, p Part, rule httprelay.Rule, o Observer) plan {
	i := &httprelay.Injector{Relay: p.HTTP, Owner: f.ID, Rules: []httprelay.Rule{rule}}
	return plan{injector: i, observer: o, note: i.Note, means: behindRelay}
}

// unfronted says that a fault needs a relay in front of a part.
func unfronted(f Fault, p Part, which string) error {
	return fmt.Errorf("fault %s (%s of %s): %w: it needs a relay in front of %s, %s", f.ID, f.Fail, f.Where, ErrUnsupported, p.Name, which)
}

// behind finds a part with an HTTP relay in front of it.
func behind(f Fault, cfg *Config) (Part, error) {
	p, err := part(f, cfg)
	if err != nil {
		return Part{}, err
	}
	if p.HTTP == nil {
		return Part{}, unfronted(f, p, "and there is none")
	}
	return p, nil
}

// answerRule is what the relay is told.
func answerRule(f Fault, action httprelay.Action) (httprelay.Rule, error) {
	rule := httprelay.Rule{Name: f.ID, Share: f.Share("share"), Seed: f.Seed, Action: action}
	if rule.Methods = []string{f.Text("method")}; f.Text("method") == "any" {
		rule.Methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete}
	}
	if expr := f.Text("path"); expr != "" {
		var err error
		if rule.Path, err = regexp.Compile(expr); err != nil {
			return rule, fmt.Errorf("path: %w", err)
		}
	}
	return rule, rule.Validate()
}

func planAnswers(f Fault, cfg *Config, action httprelay.Action, want audit.Want) (plan, error) {
	p, err := behind(f, cfg)
	if err != nil {
		return plan{}, err
	}
	rule, err := answerRule(f, action)
	if err != nil {
		return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
	}
	q, err := provenBy(rule, p, questions(p, f.Text("ask"), want, cfg), cfg.Now())
	if err != nil {
		return plan{}, fmt.Errorf("fault %s (%s of %s): %w", f.ID, f.Fail, f.Where, err)
	}
	if f.Text("ask") == "" && p.Asks == nil {
		q.hint = "say what to ask for with ask: /healthz (by hand: --set ask=/healthz)"
	}
	other, _ := neighbour(p, f, cfg)
	o, err := questioned(f, p, other, cfg, q, want)
	if err != nil {
		return plan{}, err
	}
	return relayed(f, p, rule, o), nil
}

// questioned watches how a part answers a question, and how another does that is to answer as ever; the zero Part: nothing is compared.
func questioned(f Fault, p, other Part, cfg *Config, q question, want audit.Want) (Observer, error) {
	url, err := q.url(p)
	if err != nil {
		return nil, err
	}
	c := audit.HTTPConfig{
		Fault: f.ID, Region: p.Region, For: f.For, Targets: []audit.URL{url}, Method: q.method, Body: q.body, Want: want, Now: cfg.Now, Sink: cfg.Sink,
		Hint: q.hint,
	}
	if other.URL != "" {
		if url, err := q.url(other); err == nil {
			c.Control, c.Elsewhere = []audit.URL{url}, other.Name
		}
	}
	return audit.NewHTTP(c)
}

// question is a request that shows how a part answers.
type question struct {
	method string
	url    func(Part) (audit.URL, error) // where it is asked: of the part, or of another of its kind
	body   []byte
	hint   string // what helps where it is not answered well to begin with
}

// fixed is a question's URL that stays the same.
func fixed(url func(Part) string) func(Part) (audit.URL, error) {
	return func(p Part) (audit.URL, error) { return audit.Fixed(url(p)), nil }
}

// viewers is what a viewer asks a playback service at an endpoint.
func viewers(p Part, endpoint string, cfg *Config) question {
	a := p.Asks(endpoint, cfg.Now())
	return question{method: a.Method, url: fixed(func(p Part) string { return p.URL + a.Path }), body: a.Body}
}

// questions are what a part can be asked, those first that say most. ask is the path of the only one, if it is given.
func questions(p Part, ask string, want audit.Want, cfg *Config) (out []question) {
	if ask != "" {
		return []question{{method: http.MethodGet, url: fixed(func(p Part) string { return passing(p, cfg) + "/" + strings.TrimPrefix(ask, "/") })}}
	}
	if p.Asks != nil {
		endpoints := []string{"play", "manifest", "steering", "licence"}
		if want.Kind == audit.Corrupt { // each play start is answered with bytes of its own
			endpoints = endpoints[1:]
		}
		for _, endpoint := range endpoints {
			out = append(out, viewers(p, endpoint, cfg))
		}
	}
	if p.Layout.Clocked && p.Kind != PartPlayback {
		for _, rung := range p.Rungs {
			out = append(out, question{method: http.MethodGet, url: func(p Part) (audit.URL, error) {
				return audit.Newest(passing(p, cfg), p.Layout, rung, 1)
			}})
		}
	}
	return append(out, question{method: http.MethodGet, url: fixed(func(p Part) string { return p.URL + cmp.Or(p.Look, "/") })})
}

// provenBy is the first of the questions to a part that a rule is about.
func provenBy(rule httprelay.Rule, p Part, questions []question, now time.Time) (question, error) {
	const moments = 10 // of a path that changes with time
	var tried []string
	for _, q := range questions {
		url, err := q.url(p)
		if err != nil {
			return q, err
		}
		taken, path := true, ""
		for i := range moments {
			path, _, _ = strings.Cut(strings.TrimPrefix(url(now.Add(time.Duration(i)*p.Layout.Duration)), p.URL), "?")
			taken = taken && rule.Takes(q.method, path)
		}
		if taken {
			return q, nil
		}
		tried = append(tried, q.method+" "+path)
	}
	return question{}, fmt.Errorf("%w: it breaks nothing of what it could be proven by, which is %s (ask: /path names another one to get; by hand --set ask=/path)", ErrUnsupported, strings.Join(tried, ", "))
}

// neighbour is a part of the same kind that has no trouble of its own while f is watched: elsewhere, or else in the same region
// if nothing else is broken there, since both depend on the rest of it.
func neighbour(p Part, f Fault, cfg *Config) (Part, bool) {
	if p.Region == "" {
		return Part{}, false
	}
	if other := elsewhere(p, p.Kind, f, cfg); other.URL != "" {
		return other, true
	}
	alone := !troubled(p.Region, f, slices.DeleteFunc(slices.Clone(cfg.Faults), func(g Fault) bool { return g.ID == f.ID }))
	for _, other := range cfg.Parts {
		if alone && other.Region == p.Region && other.Kind == p.Kind && other.Name != p.Name {
			return other, true
		}
	}
	return Part{}, false
}

// Parameters that say which segments a fault is about.
var (
	ofRung   = Parameter{Name: "rung", Type: TypeText, Summary: "of this rung, by name or height (720p); of all where left out"}
	ofTrack  = Parameter{Name: "track", Type: TypeWord, Words: []string{"all", media.Video, media.Audio}, Default: "all", Summary: "of this track"}
	everyNth = Parameter{Name: "every", Type: TypeWhole, Default: "1", Least: 1, Most: 1000, Summary: "every so many segments"}
	atLive   = Parameter{Name: "live", Type: TypeText, Summary: "only when asked for at this position: live, live-2, live-4..live-2; at any where left out"}
	listed   = Parameter{Name: "playlist", Type: TypeText, Summary: "for one's own stream: path of the rung's media playlist, by which its segments are watched"}
)

// segmentFault describes a fault in segments.
func segmentFault(name, summary, example string, parameters []Parameter, does func(Fault) (media.Defect, media.Selector)) Model {
	return Model{
		Name: name, Summary: summary, Example: example, Parameters: append(parameters, listed),
		Evidence: "the rung's segments are fetched at the live edge before, during and after, and looked into: there, on time, whole, continuous, with new pictures; a neighbour's are as ever",
		front:    func(Fault, Terms) Front { return FrontHTTP },
		check: func(f Fault) error {
			defect, selector := does(f)
			_, err := segmentRule(f, defect, selector)
			return err
		},
		plan: func(f Fault, cfg *Config) (plan, error) {
			defect, selector := does(f)
			rule, err := segmentRule(f, defect, selector)
			if err != nil {
				return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
			}
			return planSegments(f, cfg, rule)
		},
	}
}

// selected is which segments a fault's parameters say.
func selected(f Fault) media.Selector {
	s := media.Selector{Rung: f.Text("rung"), Every: uint64(f.Whole("every"))}
	if t := f.Text("track"); t != "all" {
		s.Track = t
	}
	return s
}

var which = []Parameter{ofRung, ofTrack, everyNth, atLive}

func with(p ...Parameter) []Parameter { return append(p, which...) }

var segmentKinds = []Kind{{
	Fail: "segments", Summary: "segments that are missing, late, short, corrupt, frozen or at the wrong time", Where: "a component that serves segments, or something of one's own", On: []string{PartPackager, PartOrigin, PartEdge, PartService},
	Models: []Model{
		segmentFault(media.Missing, "segments are not there", "{at: 30s, for: 20s, fail: segments, where: us-east/origin, model: {missing: {every: 3, rung: 720p}}}",
			with(Parameter{Name: "status", Type: TypeWhole, Default: "404", Least: 400, Most: 599, Summary: "what is answered"}),
			func(f Fault) (media.Defect, media.Selector) {
				return media.Defect{Kind: media.Missing, Status: f.Whole("status")}, selected(f)
			}),
		segmentFault(media.Late, "segments come late", "{at: 30s, for: 20s, fail: segments, where: us-east/origin, model: {late: {delay: 1500ms}}}",
			with(Parameter{Name: "delay", Type: TypeDuration, Required: true, Least: .1, Most: 60, Summary: "how late"}),
			func(f Fault) (media.Defect, media.Selector) {
				return media.Defect{Kind: media.Late, Delay: f.Duration("delay")}, selected(f)
			}),
		segmentFault(media.Short, "segments end before their time", "{at: 30s, for: 20s, fail: segments, where: us-east/edge-1, model: {short: {keep: 50%}}}",
			with(Parameter{Name: "keep", Type: TypeShare, Default: "50%", Least: .01, Most: .9, Summary: "of their time that they have"}),
			func(f Fault) (media.Defect, media.Selector) {
				return media.Defect{Kind: media.Short, Keep: f.Share("keep")}, selected(f)
			}),
		segmentFault(media.MissingFrames, "frames of segments are missing", "{at: 30s, for: 20s, fail: segments, where: us-east/edge-1, model: {missing-frames: {share: 20%}}}",
			with(Parameter{Name: "share", Type: TypeShare, Default: "20%", Least: .01, Most: 1, Summary: "of frames"}),
			func(f Fault) (media.Defect, media.Selector) {
				return media.Defect{Kind: media.MissingFrames, Share: f.Share("share")}, selected(f)
			}),
		segmentFault(media.Corrupt, "bytes of segments' frames are flipped", "{at: 30s, for: 20s, fail: segments, where: us-east/edge-1, model: {corrupt: {share: 50%, track: video}}}",
			with(Parameter{Name: "share", Type: TypeShare, Default: "50%", Least: .01, Most: 1, Summary: "of frames"}),
			func(f Fault) (media.Defect, media.Selector) {
				return media.Defect{Kind: media.Corrupt, Share: f.Share("share")}, selected(f)
			}),
		segmentFault(media.Frozen, "segments have the pictures of an earlier one, with their own times", "{at: 30s, for: 20s, fail: segments, where: us-east/edge-1, model: frozen}",
			with(), func(f Fault) (media.Defect, media.Selector) {
				return media.Defect{Kind: media.Frozen}, selected(f)
			}),
		segmentFault(media.WrongTime, "segments' timestamps are wrong", "{at: 30s, for: 20s, fail: segments, where: us-east/edge-1, model: {wrong-timestamp: {shift: 3s}}}",
			with(Parameter{Name: "shift", Type: TypeOffset, Required: true, Summary: "how much later; negative: earlier"}),
			func(f Fault) (media.Defect, media.Selector) {
				return media.Defect{Kind: media.WrongTime, Shift: f.Duration("shift")}, selected(f)
			}),
		segmentFault("rung-lost", "a rung is gone, with its playlist", "{at: 30s, for: 20s, fail: segments, where: us-east/edge-1, model: {rung-lost: {rung: 720p}}}",
			[]Parameter{{Name: "rung", Type: TypeText, Required: true, Summary: "which one, by name or height"}},
			func(f Fault) (media.Defect, media.Selector) {
				return media.Defect{Kind: media.Missing}, media.Selector{Rung: f.Text("rung"), Whole: true}
			}),
		segmentFault("audio-lost", "the audio track is gone, with its playlist", "{at: 30s, for: 20s, fail: segments, where: us-east/edge-1, model: audio-lost}",
			nil, func(f Fault) (media.Defect, media.Selector) {
				return media.Defect{Kind: media.Missing}, media.Selector{Track: media.Audio, Whole: true}
			}),
	},
}}

// segmentRule is what the relay is told.
func segmentRule(f Fault, defect media.Defect, selector media.Selector) (httprelay.Rule, error) {
	var err error
	if selector.Live, err = media.ParseLive(f.Text("live")); err != nil {
		return httprelay.Rule{}, fmt.Errorf("live: %w", err)
	}
	defect.Seed = f.Seed
	rule := httprelay.Rule{Name: f.ID, Share: 1, Seed: f.Seed, Media: &selector, Action: httprelay.Action{Kind: httprelay.Segment, Defect: defect}}
	return rule, rule.Validate()
}

func planSegments(f Fault, cfg *Config, rule httprelay.Rule) (plan, error) {
	p, err := behind(f, cfg)
	if err != nil {
		return plan{}, err
	}
	defect, selector := rule.Action.Defect, *rule.Media
	c := audit.SegmentsConfig{Fault: f.ID, Region: p.Region, Want: defect, Select: selector, Now: cfg.Now, Sink: cfg.Sink}
	if c.Stream, err = streamOf(p, selector, f.Text("playlist"), cfg.Now()); err != nil {
		return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
	}
	if other, ok := neighbour(p, f, cfg); ok {
		control, err := streamOf(other, selector, "", cfg.Now())
		if err == nil {
			c.Control, c.Copy = &control, control.Base
		}
	}
	o, err := audit.NewSegments(c)
	if err != nil {
		return plan{}, err
	}
	return relayed(f, p, rule, o), nil
}

// streamOf is a rung that a selector is about, as it is watched at a part.
func streamOf(p Part, s media.Selector, playlist string, now time.Time) (audit.Stream, error) {
	out := audit.Stream{Base: p.URL, Layout: p.Layout, Playlist: playlist}
	if p.Pass != nil {
		out.Base += p.Pass(now.Add(passFor))
	}
	for _, rung := range p.Rungs {
		path, ok := p.Layout.Path(rung, 1)
		ref, known := p.Layout.Find(path)
		if ok && known && s.Named(ref) {
			out.Rung = rung
			return out, nil
		}
	}
	if len(p.Rungs) > 0 {
		return out, fmt.Errorf("%w rung %q of %s (there is %s)", ErrUnknown, s.Rung+s.Track, p.Name, strings.Join(p.Rungs, ", "))
	}
	out.Rung = s.Rung
	return out, nil
}
