package spec

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/tminus-live/tminus/simulator/audience"
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
		Audience   fileAudience        `json:"audience"`
		Target     *fileTarget         `json:"target,omitempty" jsonschema:"description=Somebody else's live stream instead of the reference pipeline"`
		Faults     []fileFault         `json:"faults,omitempty"`
		Objectives map[string][]string `json:"objectives" jsonschema:"description=What GO means: thresholds by metric"`
	}
	fileEvent struct {
		Duration fileDuration `json:"duration"`
		Ladder   string       `json:"ladder,omitempty"`
	}
	fileTopology struct {
		Regions []string       `json:"regions" jsonschema:"minItems=1,uniqueItems=true,description=In order: it decides their addresses"`
		Edges   map[string]int `json:"edges,omitempty" jsonschema:"description=Edges by region; 2 where left out"`
	}
	fileAudience struct {
		Mix     string      `json:"mix,omitempty"`
		Starts  []fileStart `json:"starts,omitempty" jsonschema:"description=Legs of the open-loop schedule of play starts"`
		Players int         `json:"players,omitempty" jsonschema:"minimum=0,description=Sessions that fetch and play real media to the end"`
	}
	fileStart struct {
		At    fileDuration `json:"at"`
		Rate  float64      `json:"rate" jsonschema:"minimum=0,description=Play starts a second"`
		For   fileDuration `json:"for,omitempty" jsonschema:"description=After it the rate is the base rate again; left out: until the next leg"`
		Curve string       `json:"curve,omitempty"`
	}
	fileTarget struct {
		Manifest string `json:"manifest" jsonschema:"pattern=^https?://,description=DASH or HLS URL on a loopback address"`
	}
	fileFault struct {
		At    fileDuration `json:"at"`
		For   fileDuration `json:"for"`
		Fail  string       `json:"fail"`
		Where string       `json:"where"`
		Model string       `json:"model,omitempty"`
	}
	fileDuration string
)

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
	// metric, or metric{dimension=value,…}
	p, _ := s.Properties.Get("objectives")
	thresholds := p.AdditionalProperties
	p.AdditionalProperties = jsonschema.FalseSchema
	p.PatternProperties = map[string]*jsonschema.Schema{}
	least, most := uint64(1), uint64(MaxThresholds)
	p.MinProperties = &least
	for _, m := range qoe.Metrics() {
		t := *thresholds
		t.Description = fmt.Sprintf("%s (%s): %s", m.Name, m.Unit, m.Meaning)
		t.Examples = []any{[]string{example(m, "")}}
		t.MinItems, t.MaxItems = &least, &most
		pattern := "^" + m.Name
		if len(m.Dimensions) > 0 {
			pattern += `(\{ *(` + strings.Join(m.Dimensions, "|") + `) *=[^{}]+\})?`
		}
		p.PatternProperties[pattern+"$"] = &t
	}
	// Editors offer the keys of properties, not of patterns.
	p.Properties = jsonschema.NewProperties()
	for _, m := range qoe.Metrics() {
		p.Properties.Set(m.Name, &jsonschema.Schema{})
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
}

func (fileStart) JSONSchemaExtend(s *jsonschema.Schema) {
	words(s, "curve", audience.Curves())
	most(s, "rate", audience.MaxRate)
}

func (fileFault) JSONSchemaExtend(s *jsonschema.Schema) {
	words(s, "fail", fails)
	words(s, "model", models)
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
