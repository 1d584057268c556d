package spec

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/tminus-live/tminus/scenarios/experiment"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/audience/forecast"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// The types below mirror the file format for editors. The reader does not use them: it says more than a schema can.
type (
	fileScenario struct {
		APIVersion string              `json:"apiVersion"`
		Name       string              `json:"name" jsonschema:"pattern=^[a-z0-9]([a-z0-9-]{0\\,61}[a-z0-9])?$,description=Names the run's event and its URLs"`
		Seed       uint64              `json:"seed,omitempty" jsonschema:"default=1,description=The same seed gives the same crowd"`
		Event      fileEvent           `json:"event"`
		Topology   *fileTopology       `json:"topology,omitempty" jsonschema:"description=The reference pipeline; left out with a target"`
		Playback   *filePlayback       `json:"playback,omitempty" jsonschema:"description=The reference playback services"`
		Audience   fileAudience        `json:"audience"`
		Limits     *fileLimits         `json:"limits,omitempty" jsonschema:"description=Ceilings: a load beyond them is refused before it starts"`
		Target     *fileTarget         `json:"target,omitempty" jsonschema:"description=Somebody else's live stream or play API instead of the reference pipeline"`
		Faults     []fileFault         `json:"faults,omitempty"`
		Experiment *fileExperiment     `json:"experiment,omitempty" jsonschema:"description=What the rehearsal is to prove of the system while it is broken"`
		Objectives map[string][]string `json:"objectives" jsonschema:"description=What GO means: thresholds by metric"`
	}
	fileEvent struct {
		Duration fileDuration `json:"duration"`
		Ladder   string       `json:"ladder,omitempty"`
		DVR      fileDuration `json:"dvr,omitempty" jsonschema:"description=How far back viewers can go; 2m where left out"`
	}
	fileTopology struct {
		Regions []string       `json:"regions" jsonschema:"minItems=1,uniqueItems=true,description=In order: it decides their addresses"`
		Edges   map[string]int `json:"edges,omitempty" jsonschema:"description=Edges by region; 2 where left out"`
	}
	fileAudience struct {
		Mix           string       `json:"mix,omitempty"`
		Starts        []fileStart  `json:"starts,omitempty" jsonschema:"description=Legs of the open-loop schedule of play starts"`
		Players       int          `json:"players,omitempty" jsonschema:"minimum=0,description=Sessions that fetch and play real media to the end"`
		PlayersWithin fileDuration `json:"playersWithin,omitempty" jsonschema:"description=They press Play within this time from the event's start; half the event where left out"`

		Connections   *fileConnections   `json:"connections,omitempty" jsonschema:"description=How play starts reach a playback service"`
		People        *filePeople        `json:"people,omitempty" jsonschema:"description=What viewers do when Play fails; left out: all follow the service's retry policy"`
		Forecast      *fileForecast      `json:"forecast,omitempty" jsonschema:"description=What is expected of the crowd"`
		Interruptions []fileInterruption `json:"interruptions,omitempty" jsonschema:"description=Viewers who lose their picture and come back"`
	}
	filePlayback struct {
		Capacity      float64 `json:"capacity,omitempty" jsonschema:"minimum=0,description=Play starts a second of all regions together; what is beyond is shed by priority"`
		GuidedBackoff *bool   `json:"guidedBackoff,omitempty" jsonschema:"default=true,description=Answers say when to come back"`
		Tokens        *bool   `json:"tokens,omitempty" jsonschema:"default=true,description=Edges serve media to sessions alone; false: also to whoever knows the stream's name"`

		Instance float64      `json:"instance,omitempty" jsonschema:"minimum=1,description=Play starts a second that one instance carries; the nowcast asks for instances"`
		Lead     fileDuration `json:"lead,omitempty" jsonschema:"description=How long a new instance takes to be of use; 20s where left out"`
	}
	fileLimits struct {
		Rate     float64      `json:"rate,omitempty" jsonschema:"minimum=0,description=Play starts a second"`
		Duration fileDuration `json:"duration,omitempty" jsonschema:"description=Of the event"`
	}
	fileConnections struct {
		Kind       string `json:"kind,omitempty" jsonschema:"default=keep-alive,description=keep-alive as a gateway fleet holds them; fresh: one TCP connection each; fresh-tls: with TLS 1.3"`
		PerService uint64 `json:"perService,omitempty" jsonschema:"minimum=1,description=Connections kept per playback service"`
		InFlight   uint64 `json:"inFlight,omitempty" jsonschema:"minimum=1,description=Requests in flight on one connection"`
	}
	filePeople struct {
		Human    fileShare    `json:"human,omitempty" jsonschema:"description=Viewers who press again themselves; the others follow the service's retry policy; 0% where left out"`
		Again    fileShare    `json:"again,omitempty" jsonschema:"description=How likely they press again each time; 100% where left out"`
		After    fileDuration `json:"after,omitempty" jsonschema:"description=Median of the time they take; 3s where left out"`
		Presses  uint64       `json:"presses,omitempty" jsonschema:"minimum=1,default=5,description=Most presses of one viewer"`
		Patience fileDuration `json:"patience,omitempty" jsonschema:"description=Median of how long a viewer keeps trying before they leave; as long as it takes where left out"`
	}
	fileInterruption struct {
		At      fileDuration `json:"at"`
		For     fileDuration `json:"for,omitempty" jsonschema:"description=How long their picture stays away: they come back after it"`
		Region  string       `json:"region"`
		Viewers uint64       `json:"viewers" jsonschema:"minimum=1,description=Viewers of the region who lose their picture and press Play again"`
		Guided  *bool        `json:"guided,omitempty" jsonschema:"default=true,description=They hold to the retry policy that came with their session; false: nobody does and no answer has one"`
	}
	fileForecast struct {
		Kind      string  `json:"kind,omitempty"`
		Viewers   float64 `json:"viewers,omitempty" jsonschema:"minimum=0,description=Expected play starts in all; left out: learnt from past events"`
		From      string  `json:"from,omitempty" jsonschema:"description=When the rehearsal begins, seen from the event's start: -2m"`
		Past      string  `json:"past,omitempty" jsonschema:"description=CSV file of past events, beside the scenario"`
		Marketing string  `json:"marketing,omitempty" jsonschema:"description=CSV file of interest by hours before the start, beside the scenario"`
	}
	fileStart struct {
		At        fileDuration `json:"at"`
		Rate      float64      `json:"rate,omitempty" jsonschema:"minimum=0,description=Play starts a second"`
		For       fileDuration `json:"for,omitempty" jsonschema:"description=After it the rate is the base rate again; left out: until the next leg"`
		Curve     string       `json:"curve,omitempty"`
		Amplitude float64      `json:"amplitude,omitempty" jsonschema:"minimum=0,description=Of a sinus: how far the rate swings around its middle"`
		Period    fileDuration `json:"period,omitempty" jsonschema:"description=Of a sinus: from one peak to the next"`
		Times     float64      `json:"times,omitempty" jsonschema:"minimum=0,maximum=100,description=Of a forecast: so many times as many come as expected"`
		File      string       `json:"file,omitempty" jsonschema:"description=Of a measured curve: a CSV file beside the scenario"`
	}
	fileTarget struct {
		Manifest string             `json:"manifest,omitempty" jsonschema:"pattern=^https?://,description=DASH or HLS URL"`
		Play     *filePlay          `json:"play,omitempty" jsonschema:"description=An HTTP API that answers play starts"`
		Own      map[string]fileOwn `json:"own,omitempty" jsonschema:"description=What of it faults may break by name"`
		Consent  string             `json:"consent,omitempty" jsonschema:"description=For a target outside this machine: the token that tminus consent printed and the target serves"`
	}
	fileOwn struct {
		Address  string `json:"address" jsonschema:"description=Where it listens: 127.0.0.1:8080"`
		Relay    string `json:"relay,omitempty" jsonschema:"description=Where a relay in front of it is to listen: for faults in what it answers"`
		Protocol string `json:"protocol,omitempty" jsonschema:"enum=tcp,enum=udp,default=tcp"`
		Segments string `json:"segments,omitempty" jsonschema:"description=Template of its segments' paths: /live/{rung}/{number}.m4s"`
		Init     string `json:"init,omitempty" jsonschema:"description=Path of their initialisation segment; relative to the segment's"`
	}
	filePlay struct {
		URL      string            `json:"url" jsonschema:"pattern=^https?://"`
		Method   string            `json:"method,omitempty"`
		Headers  map[string]string `json:"headers,omitempty"`
		Body     string            `json:"body,omitempty" jsonschema:"description=Template with {{viewer}} {{device}} {{isp}} {{region}} {{title}} {{number}}"`
		Session  string            `json:"session" jsonschema:"description=Where the answer has the session: data.session.id"`
		Manifest string            `json:"manifest,omitempty" jsonschema:"description=Where the answer has the manifest's URL"`
	}
	fileFault struct {
		At    fileDuration `json:"at"`
		For   fileDuration `json:"for"`
		Fail  string       `json:"fail"`
		Where string       `json:"where"`
		Model any          `json:"model,omitempty"`
		Seed  uint64       `json:"seed,omitempty"`
	}
	fileExperiment struct {
		SteadyState map[string][]string `json:"steadyState,omitempty" jsonschema:"description=The hypothesis: what holds of the system while it is well"`
		Strategy    string              `json:"strategy,omitempty" jsonschema:"default=continuously,description=When the steady state is checked; continuously: before the faults and during and after them"`
		Settle      fileDuration        `json:"settle,omitempty" jsonschema:"description=From the end of the last fault to the beginning of after; 10s where left out"`
		Stop        map[string][]string `json:"stop,omitempty" jsonschema:"description=Stop conditions: when one holds every fault is undone at once"`
		Window      fileDuration        `json:"window,omitempty" jsonschema:"description=What stop conditions look back over; 5s where left out"`
		Canary      string              `json:"canary,omitempty" jsonschema:"description=The region whose part of the crowd the faults hit"`
		Baseline    string              `json:"baseline,omitempty" jsonschema:"description=The region whose part of the crowd the canary's is compared with"`
	}
	fileDuration string
	fileShare    string
)

func (fileShare) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: `^[0-9]+(\.[0-9]+)? *%$`, Description: "A percentage such as 30%", Examples: []any{"30%"}}
}

func (fileDuration) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`,
		Description: "A duration such as 90s or 1m30s", Examples: []any{"90s"}}
}

func words(s *jsonschema.Schema, key string, words []string) {
	p, _ := s.Properties.Get(key)
	for _, w := range words {
		p.Enum = append(p.Enum, w)
	}
}

func most(s *jsonschema.Schema, key string, n int) {
	p, _ := s.Properties.Get(key)
	p.Maximum = json.Number(fmt.Sprint(n))
}

func mostItems(s *jsonschema.Schema, key string, n uint64) {
	p, _ := s.Properties.Get(key)
	p.MaxItems = &n
}

func (fileScenario) JSONSchemaExtend(s *jsonschema.Schema) {
	words(s, "apiVersion", []string{APIVersion})
	mostItems(s, "faults", MaxFaults)
	thresholdsOf(s, "objectives", asObjectives)
}

func (fileExperiment) JSONSchemaExtend(s *jsonschema.Schema) {
	words(s, "strategy", experiment.Strategies())
	thresholdsOf(s, "steadyState", asHypothesis)
	thresholdsOf(s, "stop", asStops)
}

// thresholdsOf says what the keys of thresholds may be: metric, or metric{dimension=value,…}.
func thresholdsOf(s *jsonschema.Schema, key string, as asked) {
	p, _ := s.Properties.Get(key)
	thresholds := p.AdditionalProperties
	p.AdditionalProperties = jsonschema.FalseSchema
	p.PatternProperties = map[string]*jsonschema.Schema{}
	least, most := uint64(1), uint64(MaxThresholds)
	p.MinProperties = &least
	for _, m := range qoe.Metrics() {
		if as.never(m) {
			continue
		}
		t := *thresholds
		t.Description = fmt.Sprintf("%s (%s): %s", m.Name, m.Unit, m.Meaning)
		t.Examples = []any{[]string{example(m, "")}}
		t.MinItems, t.MaxItems = &least, &most
		pattern := "^" + m.Name
		keys := m.Dimensions
		if !m.Whole && !as.part {
			keys = append(keys, "from", "to")
		}
		if len(keys) > 0 {
			pattern += `(\{ *(` + strings.Join(keys, "|") + `) *=[^{}]+\})?`
		}
		p.PatternProperties[pattern+"$"] = &t
	}
	// Editors offer the keys of properties, not of patterns.
	p.Properties = jsonschema.NewProperties()
	for _, m := range qoe.Metrics() {
		if !as.never(m) {
			p.Properties.Set(m.Name, &jsonschema.Schema{})
		}
	}
}

func (fileEvent) JSONSchemaExtend(s *jsonschema.Schema) { words(s, "ladder", ladders) }

func (fileTopology) JSONSchemaExtend(s *jsonschema.Schema) {
	mostItems(s, "regions", MaxRegions)
	p, _ := s.Properties.Get("edges")
	p.AdditionalProperties = &jsonschema.Schema{Type: "integer", Minimum: "1", Maximum: json.Number(fmt.Sprint(MaxEdges))}
}

func (fileAudience) JSONSchemaExtend(s *jsonschema.Schema) {
	words(s, "mix", audience.Mixes())
	most(s, "players", MaxPlayers)
	mostItems(s, "starts", MaxStarts)
	mostItems(s, "interruptions", MaxInterruptions)
}

func (filePlayback) JSONSchemaExtend(s *jsonschema.Schema) { most(s, "capacity", audience.MaxRate) }

func (fileLimits) JSONSchemaExtend(s *jsonschema.Schema) { most(s, "rate", audience.MaxRate) }

func (fileConnections) JSONSchemaExtend(s *jsonschema.Schema) {
	words(s, "kind", connectionKinds)
	most(s, "perService", MaxConnections)
	most(s, "inFlight", MaxInFlight)
}

func (fileForecast) JSONSchemaExtend(s *jsonschema.Schema) { words(s, "kind", forecast.Kinds()) }

func (filePeople) JSONSchemaExtend(s *jsonschema.Schema) { most(s, "presses", MaxPresses) }

func (fileInterruption) JSONSchemaExtend(s *jsonschema.Schema) { most(s, "viewers", MaxInterrupted) }

func (filePlay) JSONSchemaExtend(s *jsonschema.Schema) { words(s, "method", methods) }

func (fileStart) JSONSchemaExtend(s *jsonschema.Schema) {
	words(s, "curve", audience.Curves())
	most(s, "rate", audience.MaxRate)
	most(s, "amplitude", audience.MaxRate)
}

// JSONSchemaExtend says what a model is: a word, or a word with its parameters.
func (fileFault) JSONSchemaExtend(s *jsonschema.Schema) {
	words(s, "fail", fails)
	one := uint64(1)
	word := &jsonschema.Schema{Type: "string"}
	with := &jsonschema.Schema{Type: "object", MinProperties: &one, MaxProperties: &one, Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
	for _, name := range models {
		word.Enum = append(word.Enum, name)
		with.Properties.Set(name, parametersOf(name))
	}
	p, _ := s.Properties.Get("model")
	*p = jsonschema.Schema{OneOf: []*jsonschema.Schema{word, with}}
}

// parametersOf lists what the models of one name take, whichever kinds they belong to.
func parametersOf(model string) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
	for _, k := range kinds {
		for _, m := range k.Models {
			for _, p := range m.Parameters {
				if m.Name == model {
					s.Properties.Set(p.Name, &jsonschema.Schema{Description: p.Summary, Type: "", OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}}})
				}
			}
		}
	}
	return s
}

// Schema returns the JSON Schema (draft 2020-12) of scenario files, with which editors complete and check them as they
// are written. It is looser than Read: what holds between values only Read knows.
func Schema() []byte {
	s := (&jsonschema.Reflector{Anonymous: true, DoNotReference: true}).Reflect(&fileScenario{})
	s.Title = "tminus scenario"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("spec: the schema of our own types does not marshal: %v", err))
	}
	return append(b, '\n')
}
