package player

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/simulator/stream"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Bounds of bodies and of what a play answer may ask for.
const (
	maxPlayAnswer = 64 << 10
	maxInit       = 1 << 20
	maxSegment    = 32 << 20
	maxPlays      = 12 // play requests in all, whatever the server's policy says
	maxRetryWait  = 30 * time.Second
)

// playRequest is the play start under way.
type playRequest struct {
	due      time.Time
	sent     time.Time // the first request
	attempts int
	service  int // index in Services of the next request
	tried    int // services that failed since the last wait
	rounds   int // waits so far
	policy   retryPolicy
	reported bool // play_start is written
}

type retryPolicy struct {
	MaxRetries        int     `json:"maxRetries"`
	RetryAfterSeconds float64 `json:"retryAfterSeconds"`
}

func (r retryPolicy) wait() time.Duration {
	d := time.Duration(r.RetryAfterSeconds * float64(time.Second))
	return min(max(d, 100*time.Millisecond), maxRetryWait)
}

type playAnswer struct {
	Session   string `json:"session"`
	Manifests struct {
		DASH string `json:"dash"`
		HLS  string `json:"hls"`
	} `json:"manifests"`
	Steering    []string     `json:"steering"`
	RetryPolicy *retryPolicy `json:"retryPolicy"`
}

// manifest is where the manifest comes from and when it is due again.
type manifest struct {
	urls     []string // the same manifest at several services
	next     int      // index of the one to ask
	due      time.Time
	failures int // in a row
}

func (p *Player) requestPlay() bool {
	if p.inFlight(Play) || p.now.Before(p.play.due) {
		return false
	}
	s := p.cfg.Services[p.play.service]
	body, err := json.Marshal(map[string]string{"title": p.cfg.Title, "device": p.cfg.Device, "viewer": p.cfg.Viewer, "region": p.cfg.Region})
	if err != nil {
		p.playFailed("failed", err.Error())
		return false
	}
	p.play.attempts++
	if p.play.sent.IsZero() {
		p.play.sent = p.now
	}
	p.send(&flight{purpose: Play, url: s.URL + "/v1/play", service: p.play.service, patience: p.tune.PlayTimeout,
		final: p.now.Add(p.tune.PlayTimeout)}, body, stream.ByteRange{}, maxPlayAnswer, stream.Media{})
	return true
}

func (p *Player) playAnswered(f *flight, a Answer) {
	var answer playAnswer
	readable := len(a.Body) > 0 && json.Unmarshal(a.Body, &answer) == nil
	if readable && answer.RetryPolicy != nil {
		p.play.policy = *answer.RetryPolicy
	}
	switch {
	case a.Status == 200 && readable:
		u := answer.Manifests.DASH
		if p.cfg.Format == HLS || u == "" {
			u = cmp.Or(answer.Manifests.HLS, u)
		}
		if u == "" || answer.Session == "" {
			p.playMissed(f, "the play answer names no session or no manifest")
			return
		}
		p.steering = answer.Steering[:min(len(answer.Steering), 64)]
		p.manifest = manifest{urls: p.alternates(u, f.service), due: p.now}
		p.stats.fetched++
		p.reportPlay("ok", answer.Session, p.cfg.Services[f.service])
		p.state = Loading
	case a.Status == 503 || a.Status == 429:
		p.failed(f, "shed: "+status(a.Status))
		wait := p.play.policy.wait()
		if a.Retry > 0 && (answer.RetryPolicy == nil) {
			wait = min(a.Retry, maxRetryWait)
		}
		p.retryPlay("shed", status(a.Status), wait)
	case a.Status >= 400 && a.Status < 500 && a.Status != 408:
		p.failed(f, status(a.Status))
		p.playFailed("failed", status(a.Status))
	default:
		p.playMissed(f, cmp.Or(a.Err, status(a.Status)))
	}
}

// playMissed is a request that got no usable answer: the next region's service is asked at once, and when all have
// failed, again after a while.
func (p *Player) playMissed(f *flight, why string) {
	p.failed(f, why)
	p.play.service = (f.service + 1) % len(p.cfg.Services)
	p.play.tried++
	if p.play.tried < len(p.cfg.Services) && p.play.attempts < maxPlays {
		p.play.due = p.now
		return
	}
	p.retryPlay("failed", why, p.play.policy.wait())
}

// retryPlay waits as the server's policy says, jittered, or gives up.
func (p *Player) retryPlay(outcome, why string, wait time.Duration) {
	if p.play.policy == (retryPolicy{}) {
		p.play.policy = retryPolicy{MaxRetries: 3, RetryAfterSeconds: 1}
		wait = max(wait, p.play.policy.wait())
	}
	p.play.tried = 0
	if p.play.rounds++; p.play.rounds > p.play.policy.MaxRetries || p.play.attempts >= maxPlays {
		p.playFailed(outcome, why)
		return
	}
	p.play.due = p.now.Add(p.jitter(wait))
}

func (p *Player) playFailed(outcome, why string) {
	p.reportPlay(outcome, why, p.cfg.Services[p.play.service])
	p.startFailed("play request " + outcome + ": " + why)
}

// reportPlay writes the play start, once; detail is why it failed, or the playback service's name of the session.
func (p *Player) reportPlay(outcome, detail string, s Service) {
	if p.play.reported {
		return
	}
	p.play.reported = true
	e := p.event(event.PlayStart)
	if outcome != "ok" {
		e.Session = ""
	}
	e.Status, e.Detail = outcome, detail
	e.Region, e.Edge = cmp.Or(s.Region, p.cfg.Region), host(s.URL)
	e.Value = ms(p.now.Sub(p.pressed))
	if !p.play.sent.IsZero() {
		e.LagMS = ms(p.play.sent.Sub(p.pressed))
	}
	e.Attempts = uint32(p.play.attempts)
	e.State = ""
	p.do(Emit{e})
}

// startFailed gives up before the first frame.
func (p *Player) startFailed(why string) {
	outcome := "failed"
	if p.cfg.Manifest != "" {
		p.reportPlay(outcome, why, Service{URL: p.cfg.Manifest})
	} else {
		p.reportPlay(outcome, why, p.cfg.Services[p.play.service])
	}
	e := p.event(event.StartFailed)
	e.Value, e.Detail = ms(p.now.Sub(p.pressed)), why
	p.do(Emit{e})
	p.finish(Failed, why)
}

// alternates are the same manifest at every region's playback service, which can all answer for every session.
func (p *Player) alternates(u string, service int) []string {
	urls := []string{u}
	from := p.cfg.Services[service].URL
	if rest, ok := strings.CutPrefix(u, from+"/"); ok {
		for i := 1; i < len(p.cfg.Services); i++ {
			urls = append(urls, p.cfg.Services[(service+i)%len(p.cfg.Services)].URL+"/"+rest)
		}
	}
	return urls
}

func (p *Player) requestManifest() bool {
	if p.manifest.due.IsZero() || p.now.Before(p.manifest.due) || p.inFlight(Manifest) || len(p.manifest.urls) == 0 {
		return false
	}
	if p.cfg.Manifest != "" && p.pres == nil {
		p.play.attempts++
		if p.play.sent.IsZero() {
			p.play.sent = p.now
		}
	}
	p.send(&flight{purpose: Manifest, url: p.manifest.urls[p.manifest.next], service: p.manifest.next, patience: p.tune.PlayTimeout,
		final: p.now.Add(2 * p.tune.PlayTimeout)}, nil, stream.ByteRange{}, stream.MaxManifest, stream.Media{})
	return true
}

func (p *Player) manifestAnswered(f *flight, a Answer) {
	if a.Status != 200 {
		p.manifestMissed(f, cmp.Or(a.Err, status(a.Status)))
		return
	}
	pres, err := stream.Parse(a.Body, cmp.Or(a.URL, f.url), f.sent, p.pres)
	if errors.Is(err, stream.ErrUnsupported) && p.pres == nil {
		p.failed(f, err.Error())
		p.startFailed(err.Error())
		return
	}
	if err == nil && len(pres.Paths) == 0 {
		err = errors.New("manifest: it lists nothing to play")
	}
	if err != nil {
		p.manifestMissed(f, err.Error())
		return
	}
	type move struct {
		ladder  []int
		current int
	}
	moves := make([]move, len(p.tracks))
	for i, t := range p.tracks {
		ladder, current, ok := t.remap(pres)
		if !ok {
			p.manifestMissed(f, "the reloaded manifest has lost what is playing")
			return
		}
		moves[i] = move{ladder, current}
	}
	p.stats.fetched++
	p.manifest.failures = 0
	p.manifest.due = time.Time{}
	if pres.Refresh > 0 {
		p.manifest.due = f.sent.Add(pres.Refresh)
		// The MPD may say where to ask from now on (Location); the other services' copies stay in reserve.
		p.manifest.urls[f.service] = pres.Location
	}
	old := p.pres
	p.pres = pres
	p.setPaths(pres.Paths)
	if old != nil {
		for i, t := range p.tracks {
			t.pres, t.ladder, t.current = pres, moves[i].ladder, moves[i].current
			if t.load == nil {
				t.due = p.now
			}
		}
		return
	}
	if p.cfg.Manifest != "" {
		p.reportPlay("ok", "", Service{URL: p.cfg.Manifest})
	}
	if err := p.layTracks(f.sent); err != nil {
		p.startFailed(err.Error())
		return
	}
	p.state = Starting
}

// manifestMissed asks the next service at once; after a round of failures it waits.
func (p *Player) manifestMissed(f *flight, why string) {
	p.failed(f, "manifest: "+why)
	p.manifest.failures++
	p.manifest.next = (f.service + 1) % len(p.manifest.urls)
	p.manifest.due = p.now
	if p.manifest.failures%len(p.manifest.urls) == 0 {
		p.manifest.due = p.now.Add(p.jitter(time.Second))
	}
}

// layTracks makes a track of the ladder and one of the sound that goes with it.
func (p *Player) layTracks(loaded time.Time) error {
	ladder := p.pres.Ladder()
	if h := p.cfg.MaxHeight; h > 0 {
		fits := slices.DeleteFunc(slices.Clone(ladder), func(r int) bool { return p.pres.Renditions[r].Height > h })
		if len(fits) == 0 {
			fits = ladder[:1]
		}
		ladder = fits
	}
	if len(ladder) == 0 {
		return fmt.Errorf("manifest: it lists nothing to play")
	}
	main := newTrack(p.pres.Renditions[ladder[0]].Kind, ladder, p.pres)
	p.tracks = []*track{main}
	if sound := p.pres.Renditions[ladder[0]].Audio; main.kind == stream.Video && len(sound) > 0 {
		p.tracks = append(p.tracks, newTrack(stream.Audio, sound[:1], p.pres))
	}
	for _, t := range p.tracks {
		for _, r := range t.ladder {
			for _, c := range p.paths {
				if s, ok := p.pres.Source(r, c.id); ok && s.Index != nil && s.Playlist != "" {
					t.lists[listKey{t.name(r), c.id}] = &list{index: s.Index, loaded: loaded, grew: loaded, changed: true}
					if m, ok := s.Index.Mark(); ok && p.mark == nil {
						p.mark = &m
					}
				}
			}
		}
		t.due = p.now
	}
	return nil
}

func status(code int) string {
	if code == 0 {
		return "no answer"
	}
	return fmt.Sprintf("status %d", code)
}

func host(u string) string {
	if p, err := url.Parse(u); err == nil {
		return p.Host
	}
	return ""
}
