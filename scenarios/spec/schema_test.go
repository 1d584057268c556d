package spec_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/tminus-live/tminus/scenarios/library"
	"github.com/tminus-live/tminus/scenarios/spec"
)

func TestSchema(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(spec.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	check := func(src string) error {
		var v any
		if err := yaml.Unmarshal([]byte(src), &v); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		v = nil
		json.Unmarshal(b, &v)
		return validate(schema, v, "")
	}
	for _, name := range library.Names() {
		src, err := library.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(string(src)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, src := range []string{titleFight, least, storm, canary, with("topology: {regions: [here]}", "target: {manifest: 'http://localhost/a.m3u8'}")} {
		if err := check(src); err != nil {
			t.Errorf("%v in\n%s", err, src)
		}
	}
	for _, src := range []string{
		least + "sed: 7\n",
		with("tminus/v1", "tminus/v2"),
		with("name: least", "name: Least Of All"),
		with("name: least\n", ""),
		with("10s", "10"),
		with("10s", "soon"),
		with("[here]", "[]"),
		with("players: 1", "players: 20000"),
		with("players: 1", "mix: nobody"),
		with("players: 1", "people: {human: 0.3}, players: 1"),
		with("players: 1", "connections: {kind: warm}, players: 1"),
		with("startup_time", "startup_tme"),
		with("startup_time", "'startup_time{regoin=here}'"),
		with(`["p(95)<2s"]`, `"p(95)<2s"`),
		least + "faults: [{at: 1s, for: 1s, fail: regoin, where: here}]\n",
		least + "faults: [{at: 1s, for: 1s, fail: region}]\n",
		strings.Replace(canary, "strategy: default", "strategy: always", 1),
		strings.Replace(canary, "home=us-west", "hone=us-west", 1),
		strings.Replace(canary, "home=us-west", "to=9s", 1),
		strings.Replace(canary, `"avg>20%", `, `20, `, 1),
		strings.Replace(canary, "baseline:", "base:", 1),
		strings.Replace(canary, `rebuffer_ratio: ["avg>20%", "max>90%"]`, `rebuffer_duration: ["max>10s"]`, 1),
	} {
		if check(src) == nil {
			t.Errorf("the schema accepts\n%s", src)
		}
		if _, err := spec.Read("f", []byte(src), nil); err == nil {
			t.Errorf("the reader accepts\n%s", src)
		}
	}
}

// validate knows the keywords that Schema uses, and fails on any other: JSON Schema 2020-12, core and validation.
func validate(schema map[string]any, v any, at string) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...))
	}
	object, _ := v.(map[string]any)
	list, _ := v.([]any)
	for key, arg := range schema {
		switch key {
		case "$schema", "title", "description", "default", "examples":
		case "type":
			ok := false
			switch arg {
			case "object":
				ok = object != nil
			case "array":
				ok = list != nil
			case "string":
				_, ok = v.(string)
			case "boolean":
				_, ok = v.(bool)
			case "number", "integer":
				var f float64
				f, ok = v.(float64)
				ok = ok && (arg == "number" || f == float64(int64(f)))
			}
			if !ok {
				return fail("%v is no %v", v, arg)
			}
		case "enum":
			if !slices.Contains(arg.([]any), v) {
				return fail("%v is none of %v", v, arg)
			}
		case "pattern":
			if s, ok := v.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(s) {
				return fail("%q does not match %v", s, arg)
			}
		case "minimum", "maximum":
			if f, ok := v.(float64); ok && (key == "minimum" && f < arg.(float64) || key == "maximum" && f > arg.(float64)) {
				return fail("%v beyond the %s %v", f, key, arg)
			}
		case "minItems", "maxItems":
			if n := float64(len(list)); list != nil && (key == "minItems" && n < arg.(float64) || key == "maxItems" && n > arg.(float64)) {
				return fail("%v items beyond the %s %v", n, key, arg)
			}
		case "minProperties", "maxProperties":
			if n := float64(len(object)); object != nil && (key == "minProperties" && n < arg.(float64) || key == "maxProperties" && n > arg.(float64)) {
				return fail("%v keys beyond the %s %v", n, key, arg)
			}
		case "oneOf":
			fits := 0
			for _, one := range arg.([]any) {
				if validate(one.(map[string]any), v, at) == nil {
					fits++
				}
			}
			if fits != 1 {
				return fail("%v fits %d of %v", v, fits, arg)
			}
		case "uniqueItems":
			for i := range list {
				if slices.Contains(list[:i], list[i]) {
					return fail("%v is there twice", list[i])
				}
			}
		case "items":
			for i, e := range list {
				if err := validate(arg.(map[string]any), e, fmt.Sprintf("%s[%d]", at, i)); err != nil {
					return err
				}
			}
		case "required":
			for _, k := range arg.([]any) {
				if _, ok := object[k.(string)]; !ok {
					return fail("%v is missing", k)
				}
			}
		case "properties", "patternProperties", "additionalProperties":
			if key != "additionalProperties" {
				continue // below, with it
			}
		default:
			return fail("this test does not know the keyword %q", key)
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	patterns, _ := schema["patternProperties"].(map[string]any)
	for k, e := range object {
		known := false
		if p, ok := properties[k]; ok {
			known = true
			if p, ok := p.(map[string]any); ok {
				if err := validate(p, e, at+"."+k); err != nil {
					return err
				}
			}
		}
		for pattern, p := range patterns {
			if regexp.MustCompile(pattern).MatchString(k) {
				known = true
				if err := validate(p.(map[string]any), e, at+"."+k); err != nil {
					return err
				}
			}
		}
		if more, ok := schema["additionalProperties"]; ok && !known {
			p, allowed := more.(map[string]any)
			if !allowed {
				return fail("unknown key %q", k)
			}
			if err := validate(p, e, at+"."+k); err != nil {
				return err
			}
		}
	}
	return nil
}
