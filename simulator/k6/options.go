package k6

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/grafana/sobek"
	"go.k6.io/k6/lib/types"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/consent"
	"github.com/tminus-live/tminus/simulator/wire/starts"
)

// Bounds on what one call may ask for.
const (
	maxFor      = 24 * time.Hour
	maxServices = 64
)

// duration is written as k6 writes them: "1m30s", or a number of milliseconds.
type duration time.Duration

func (d *duration) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	got, err := types.GetDurationValue(v)
	if err != nil {
		return fmt.Errorf("%s is no duration such as \"90s\" or a number of milliseconds", clip(string(b)))
	}
	*d = duration(got)
	return nil
}

// crowdOptions are what play starts and players have in common.
type crowdOptions struct {
	Services []serviceOption `json:"services"`
	Title    string          `json:"title"`
	For      duration        `json:"for"`
	Seed     *uint64         `json:"seed"`
	Mix      string          `json:"mix"`
	Consent  string          `json:"consent"` // token for targets outside loopback
	Shard    *shardOption    `json:"shard"`
	At       string          `json:"at"` // T+0, RFC 3339; "": now

	Run   string `json:"run"`
	Kafka string `json:"kafka"`
}

type serviceOption struct {
	Region string `json:"region"`
	URL    string `json:"url"`
}

type shardOption struct {
	I  int `json:"i"`
	Of int `json:"of"`
}

// startsOptions are those of playStarts.
type startsOptions struct {
	crowdOptions
	Rate        float64           `json:"rate"`
	Starts      []legOption       `json:"starts"`
	Token       string            `json:"token"`
	Connections connectionsOption `json:"connections"`
	People      *peopleOption     `json:"people"`
	Limits      *limitsOption     `json:"limits"`
	Request     *requestOption    `json:"request"` // nil: the reference playback service's
}

// requestOption is a play API's own request, as a scenario's target.play has it; where to is the services' URL.
type requestOption struct {
	Method   string            `json:"method"`
	Headers  map[string]string `json:"headers"`
	Body     string            `json:"body"`
	Session  string            `json:"session"`
	Manifest string            `json:"manifest"`
}

// limitsOption are the ceilings that a script sets its own load, of all pods together.
type limitsOption struct {
	Rate     float64  `json:"rate"`
	Duration duration `json:"duration"`
}

type legOption struct {
	At        duration `json:"at"`
	Rate      float64  `json:"rate"`
	For       duration `json:"for"`
	Curve     string   `json:"curve"`
	Amplitude float64  `json:"amplitude"`
	Period    duration `json:"period"`
}

type connectionsOption struct {
	Kind       string `json:"kind"`
	PerService int    `json:"perService"`
	InFlight   int    `json:"inFlight"`
}

type peopleOption struct {
	Human    float64   `json:"human"`
	Again    *float64  `json:"again"`
	After    *duration `json:"after"`
	Presses  *int      `json:"presses"`
	Patience *duration `json:"patience"`
}

// playersOptions are those of players.
type playersOptions struct {
	crowdOptions
	Players  int       `json:"players"`
	Manifest string    `json:"manifest"`
	Spread   *duration `json:"spread"`
}

// read fills options from what a script passed, and refuses what it does not know.
func read(v sobek.Value, into any) error {
	if v == nil || sobek.IsUndefined(v) || sobek.IsNull(v) {
		return errors.New("want an object of options")
	}
	b, err := json.Marshal(v.Export())
	if err != nil {
		return fmt.Errorf("want an object of plain options: %w", err)
	}
	return decode(b, into)
}

func decode(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			if wrong.Field == "" {
				return errors.New("want an object of options")
			}
			return fmt.Errorf("%s: a %s, want a %s", wrong.Field, wrong.Value, wrong.Type.Kind())
		}
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("want one object of options")
	}
	return nil
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// patience is how long ago T+0 may lie when a call begins.
const patience = time.Second

// zero is T+0.
func (o *crowdOptions) zero(now time.Time) (time.Time, error) {
	if o.At == "" {
		return now, nil
	}
	at, err := time.Parse(time.RFC3339, o.At)
	switch {
	case err != nil:
		return at, fmt.Errorf("at: %q is no time such as 2026-11-21T19:58:00Z", clip(o.At))
	case now.Sub(at) > patience:
		return at, fmt.Errorf("at: %s is over since %v: what was due then could not be sent in time", o.At, now.Sub(at).Round(time.Second))
	case at.Sub(now) > maxFor:
		return at, fmt.Errorf("at: %s is more than %v away", o.At, maxFor)
	}
	return at, nil
}

// regions are the services' regions in their order.
func (o *crowdOptions) regions() []string {
	var names []string
	for _, s := range o.Services {
		names = append(names, s.Region)
	}
	return names
}

func (o *crowdOptions) seed() uint64 {
	if o.Seed == nil {
		return 1
	}
	return *o.Seed
}

// check completes the options and says everything that is wrong with them.
func (o *crowdOptions) check() error { return o.checked(false) }

// checked is check; anyPath: the services are no reference playback services, and their URLs are whatever they are.
func (o *crowdOptions) checked(anyPath bool) error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if o.For <= 0 || time.Duration(o.For) > maxFor {
		bad("for: %v, want more than 0 and %v at most", time.Duration(o.For), maxFor)
	}
	if o.Mix == "" {
		o.Mix = audience.DefaultMix
	}
	if len(o.Services) > maxServices {
		bad("services: %d, at most %d", len(o.Services), maxServices)
	}
	seen := map[string]bool{}
	for i, s := range o.Services {
		if s.Region == "" {
			bad("services[%d]: want the region's name", i)
		} else if seen[s.Region] {
			bad("services[%d]: region %s is there twice", i, s.Region)
		}
		seen[s.Region] = true
		if _, err := s.base(); err != nil {
			bad("services[%d]: %w", i, err)
		} else if err := s.playback(); err != nil && !anyPath {
			bad("services[%d]: %w", i, err)
		}
	}
	if len(o.Services) > 0 && o.Title == "" && !anyPath {
		bad("title: want the event's, as the playback services name it, such as 'title-fight'")
	}
	if s := o.Shard; s != nil && (s.Of < 1 || s.I < 0 || s.I >= s.Of) {
		bad("shard: %d of %d, want i from 0 to of-1", s.I, s.Of)
	}
	return errors.Join(errs...)
}

// playPath is where a playback service takes play starts.
const playPath = "/v1/play"

// base is the service's URL without its path: "tminus up" prints URLs with /v1/play, other tools without.
func (s serviceOption) base() (*url.URL, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("url: %q is none that begins with http:// or https:// and names a host", clip(s.URL))
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// playback refuses a URL that is no reference playback service's.
func (s serviceOption) playback() error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return err
	}
	if p := strings.TrimSuffix(u.Path, "/"); p != "" && p != playPath || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("url: %q, want the playback service's address, or that and %s; another play API needs request: {body, session}", clip(s.URL), playPath)
	}
	return nil
}

// rest is what a URL asks its host for.
func (s serviceOption) rest() string {
	_, rest, _ := strings.Cut(s.URL, "://")
	if slash := strings.IndexAny(rest, "/?"); slash >= 0 {
		rest = rest[slash:]
		if rest[0] == '?' {
			rest = "/" + rest
		}
		return rest
	}
	return "/"
}

// check completes the options and says everything that is wrong with them.
func (o *startsOptions) check() error {
	errs := []error{o.checked(o.Request != nil)}
	if r := o.Request; r != nil && len(o.Services) > 0 {
		for _, s := range o.Services[1:] {
			if s.rest() != o.Services[0].rest() {
				errs = append(errs, fmt.Errorf("services: %s and %s: one request asks all of them for the same path", clip(o.Services[0].URL), clip(s.URL)))
				break
			}
		}
		if r.Session == "" && r.Manifest == "" {
			errs = append(errs, errors.New("request: want session, where the answer has it, such as 'data.session.id': without it every status from 200 to 299 would count"))
		}
		if base, err := o.Services[0].base(); err == nil {
			errs = append(errs, o.target().Validate(base.Scheme == "https"))
		}
	}
	return errors.Join(errs...)
}

// target is the request to another play API; nil: the reference's.
func (o *startsOptions) target() *starts.Request {
	r := o.Request
	if r == nil || len(o.Services) == 0 {
		return nil
	}
	t := &starts.Request{Method: r.Method, URL: o.Services[0].URL, Body: r.Body, Session: r.Session, Manifest: r.Manifest}
	if len(o.Services) > 1 { // each is asked by its own address
		t.URL = o.Services[0].rest()
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		t.Headers = append(t.Headers, starts.Header{Name: name, Value: r.Headers[name]})
	}
	return t
}

// schedule makes the open-loop schedule, whole.
func (o *startsOptions) schedule() (*audience.Schedule, error) {
	if o.Rate < 0 {
		return nil, fmt.Errorf("rate: %v, want more than 0 play starts a second", o.Rate)
	}
	if (o.Rate > 0) == (len(o.Starts) > 0) {
		return nil, errors.New("want rate (play starts a second) or starts (a list of {at, rate, for, curve}), one of them")
	}
	legs := []audience.Leg{{Rate: o.Rate}}
	if len(o.Starts) > 0 {
		legs = legs[:0]
		for _, l := range o.Starts {
			legs = append(legs, audience.Leg{At: time.Duration(l.At), Rate: l.Rate, For: time.Duration(l.For), Curve: audience.Curve(l.Curve),
				Amplitude: l.Amplitude, Period: time.Duration(l.Period)})
		}
	}
	s, err := audience.NewSchedule(legs, time.Duration(o.For))
	if err != nil {
		return nil, fmt.Errorf("starts: %w", err)
	}
	if s.Total() == 0 {
		return nil, errors.New("starts: the schedule has no play start")
	}
	return s, nil
}

// limited says why the schedule, whole, is above the ceilings that its script sets it, or nil. A load of targets outside
// loopback (far) must have both.
func (o *startsOptions) limited(s *audience.Schedule, far bool) error {
	var l limitsOption
	if o.Limits != nil {
		l = *o.Limits
	}
	limits := consent.Limits{MaxRate: l.Rate, MaxDuration: time.Duration(l.Duration)}
	if err := limits.Validate(); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	if far && (l.Rate == 0 || l.Duration == 0) {
		return errors.New("limits: a target outside this machine is loaded within limits alone: give the call some, such as limits: {rate: 1000, duration: '10m'}")
	}
	if err := limits.Allow(s.Peak(), time.Duration(o.For)); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	return nil
}

// people is who presses again; the defaults are the scenario's.
func (o *startsOptions) people() audience.People {
	if o.People == nil {
		return audience.People{}
	}
	p := audience.People{Human: o.People.Human, Again: 1, After: 3 * time.Second, Presses: 5}
	if o.People.Again != nil {
		p.Again = *o.People.Again
	}
	if o.People.After != nil {
		p.After = time.Duration(*o.People.After)
	}
	if o.People.Presses != nil {
		p.Presses = *o.People.Presses
	}
	if o.People.Patience != nil {
		p.Patience = time.Duration(*o.People.Patience)
	}
	return p
}
