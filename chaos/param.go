package chaos

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The types that a parameter may have, as `tminus chaos list` names them.
const (
	TypeShare    = "share"    // "5%"; 0 to 1 in code
	TypeDuration = "duration" // "250ms"; never negative
	TypeOffset   = "offset"   // "-3s": a duration that may be negative
	TypeWhole    = "whole"    // "3"
	TypeNumber   = "number"   // "1.5"
	TypeRate     = "rate"     // "5Mbit": bits a second
	TypeSize     = "size"     // "64kB": bytes
	TypeSwitch   = "switch"   // "true", "false"
	TypeWord     = "word"     // one of Words
	TypeText     = "text"
	TypeFile     = "file" // the name of a file; what it holds is in Fault.Files
)

// maxText bounds a parameter's text, in bytes.
const maxText = 4096

// Parameter documents one parameter of a model of fault, and says what it may be.
type Parameter struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`              // one of the Type words
	Default string   `json:"default,omitempty"` // "" and Required: none
	Summary string   `json:"summary"`
	Words   []string `json:"words,omitempty"` // of a TypeWord

	// Least and Most bound it, in the type's base unit: 1 for a share, seconds, bits a second, bytes. Both zero: the type's own.
	Least float64 `json:"least,omitempty"`
	Most  float64 `json:"most,omitempty"`

	Required bool `json:"required,omitempty"`
}

// Check says what is wrong with text as a value of p; nil: nothing.
func (p Parameter) Check(text string) error {
	if len(text) > maxText {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(text), maxText)
	}
	if p.Type == TypeText || p.Type == TypeFile {
		return nil
	}
	if p.Type == TypeWord {
		if !slices.Contains(p.Words, text) {
			return fmt.Errorf("%w word %q (there is %s)", ErrUnknown, text, strings.Join(p.Words, ", "))
		}
		return nil
	}
	v, ok := amount(p.Type, text)
	if !ok {
		return fmt.Errorf("want %s, got %q", example(p.Type), text)
	}
	least, most := p.Least, p.Most
	if least == 0 && most == 0 {
		least, most = bounds(p.Type)
	}
	if v < least || v > most {
		return fmt.Errorf("%s is outside %s to %s", text, show(p.Type, least), show(p.Type, most))
	}
	return nil
}

// Bounds say between what a parameter has to be, as a person would: "8kbit to 1000Gbit"; "": it has no bounds of its own.
func (p Parameter) Bounds() string {
	if p.Least == 0 && p.Most == 0 {
		return ""
	}
	return show(p.Type, p.Least) + " to " + show(p.Type, p.Most)
}

// bounds are those of a type without other ones.
func bounds(kind string) (least, most float64) {
	switch kind {
	case TypeShare, TypeSwitch:
		return 0, 1
	case TypeOffset:
		return -86400, 86400
	case TypeDuration:
		return 0, 86400
	case TypeRate:
		return 1, 1e12
	}
	return 0, 1e12
}

// amount reads a parameter's text in its base unit.
func amount(kind, text string) (float64, bool) {
	switch kind {
	case TypeShare:
		text, percent := strings.CutSuffix(text, "%")
		v, ok := number(text)
		return v / 100, ok && percent
	case TypeDuration, TypeOffset:
		d, err := time.ParseDuration(text)
		return d.Seconds(), err == nil
	case TypeWhole:
		v, err := strconv.ParseInt(text, 10, 53)
		return float64(v), err == nil
	case TypeNumber:
		return number(text)
	case TypeRate:
		return scaled(strings.TrimSuffix(text, "/s"), rateUnits)
	case TypeSize:
		return scaled(text, sizeUnits)
	case TypeSwitch:
		switch text {
		case "true":
			return 1, true
		case "false":
			return 0, true
		}
	}
	return 0, false
}

// number reads a plain decimal number.
func number(text string) (float64, bool) {
	if text == "" || strings.Trim(text, "0123456789.-") != "" {
		return 0, false
	}
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil && !math.IsInf(v, 0)
}

// Units are listed from the largest, each a thousand of the next.
var (
	rateUnits = []string{"Gbit", "Mbit", "kbit", "bit"}
	sizeUnits = []string{"GB", "MB", "kB", "B"}
)

// scaled reads a number with one of the units.
func scaled(text string, units []string) (float64, bool) {
	for i, u := range units {
		if rest, ok := strings.CutSuffix(text, u); ok {
			v, ok := number(strings.TrimSpace(rest))
			return v * math.Pow(1000, float64(len(units)-1-i)), ok
		}
	}
	return 0, false
}

// example is what a value of a type looks like.
func example(kind string) string {
	switch kind {
	case TypeShare:
		return "a percentage such as 5%"
	case TypeDuration:
		return "a duration such as 250ms"
	case TypeOffset:
		return "a duration such as -3s"
	case TypeWhole:
		return "a whole number such as 3"
	case TypeRate:
		return "a rate such as 5Mbit"
	case TypeSize:
		return "a size such as 64kB"
	case TypeSwitch:
		return "true or false"
	}
	return "a number such as 1.5"
}

// show writes an amount of a type as a person would.
func show(kind string, v float64) string {
	plain := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	in := func(units []string) string {
		last := len(units) - 1
		for i, u := range units {
			if factor := math.Pow(1000, float64(last-i)); v >= factor || i == last {
				return plain(v/factor) + u
			}
		}
		return ""
	}
	switch kind {
	case TypeShare:
		return plain(v*100) + "%"
	case TypeDuration, TypeOffset:
		return time.Duration(v * float64(time.Second)).String()
	case TypeRate:
		return in(rateUnits)
	case TypeSize:
		return in(sizeUnits)
	}
	return plain(v)
}

// Share reads a share, from 0 to 1. Like all of these it is for the parameters of a fault that was checked: what is not
// there, or is something else, is zero.
func (f Fault) Share(name string) float64 { return f.amount(TypeShare, name) }

// Number reads a number, whole or not.
func (f Fault) Number(name string) float64 { return f.amount(TypeNumber, name) }

// Rate reads a rate, in bits a second.
func (f Fault) Rate(name string) float64 { return f.amount(TypeRate, name) }

// Whole reads a whole number.
func (f Fault) Whole(name string) int { return int(f.amount(TypeWhole, name)) }

// Size reads a size, in bytes.
func (f Fault) Size(name string) int { return int(f.amount(TypeSize, name)) }

// Switch reads a switch.
func (f Fault) Switch(name string) bool { return f.amount(TypeSwitch, name) == 1 }

// Text reads a word or a text.
func (f Fault) Text(name string) string { return f.Params[name] }

// Duration reads a duration or an offset.
func (f Fault) Duration(name string) time.Duration {
	d, _ := time.ParseDuration(f.Params[name])
	return d
}

func (f Fault) amount(kind, name string) float64 {
	v, _ := amount(kind, f.Params[name])
	return v
}

// Complete checks a fault's parameters against its model's, each by itself and all together, and fills in those that were
// left out. It returns a copy with the model's own name; the error joins everything that is wrong, each a sentence.
func (f Fault) Complete() (Fault, error) {
	_, m, err := lookup(f)
	if err != nil {
		return f, err
	}
	f.Model = m.Name
	params, errs := m.complete(f.Params)
	f.Params = params
	for _, p := range m.Parameters {
		if _, read := f.Files[p.Name]; p.Type == TypeFile && params[p.Name] != "" && !read {
			errs = append(errs, fmt.Errorf("%s: the file %s was not read", p.Name, params[p.Name]))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, m.Check(f))
	}
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("fault %s: %w", f.ID, err)
		}
	}
	return f, errors.Join(errs...)
}

// complete fills in and checks a model's parameters; the errors are in the order of the parameters.
func (m Model) complete(given map[string]string) (map[string]string, []error) {
	var errs []error
	out := make(map[string]string, len(m.Parameters))
	var names []string
	for _, p := range m.Parameters {
		names = append(names, p.Name)
		text, ok := given[p.Name]
		switch {
		case !ok && p.Required:
			errs = append(errs, fmt.Errorf("%s is missing: %s", p.Name, p.Summary))
			continue
		case !ok && p.Default == "":
			continue
		case !ok:
			text = p.Default
		}
		if err := p.Check(text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
		}
		out[p.Name] = text
	}
	var strangers []string
	for name := range given {
		if !slices.Contains(names, name) {
			strangers = append(strangers, name)
		}
	}
	slices.Sort(strangers)
	for _, name := range strangers {
		there := "it has none"
		if len(names) > 0 {
			there = "there is " + strings.Join(names, ", ")
		}
		errs = append(errs, fmt.Errorf("%w parameter %q of model %s (%s)", ErrUnknown, name, m.Name, there))
	}
	return out, errs
}
