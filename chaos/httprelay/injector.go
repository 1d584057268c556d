package httprelay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// Injector puts rules into relays and takes them out again.
type Injector struct {
	Relays []*Relay
	Owner  string // the fault's ID: its rules alone are taken out
	Rules  []Rule

	note atomic.Pointer[string] // of the time before the rules were taken out
}

// Inject puts the rules into every relay.
func (i *Injector) Inject(context.Context) error {
	if len(i.Relays) == 0 {
		return errors.New("there is no relay in front of it")
	}
	for _, r := range i.Relays {
		if err := r.Add(i.Owner, i.Rules); err != nil {
			return err
		}
	}
	return nil
}

// Restore takes the rules out of every relay.
func (i *Injector) Restore(context.Context) error {
	if text, any := i.tell(); any {
		i.note.Store(&text)
	}
	for _, r := range i.Relays {
		r.Remove(i.Owner)
	}
	return nil
}

// Note says what the relays did, for the fault's record; after Restore too.
func (i *Injector) Note() string {
	if text, any := i.tell(); any {
		return text
	}
	if text := i.note.Load(); text != nil {
		return *text
	}
	return ""
}

func (i *Injector) tell() (text string, any bool) {
	var matched, applied, failed uint64
	why := ""
	for _, r := range i.Relays {
		for _, c := range r.Counts().Rules {
			if c.Owner == i.Owner {
				any = true
				matched, applied, failed = matched+c.Matched, applied+c.Applied, failed+c.Failed
				if c.Failure != "" {
					why = c.Failure
				}
			}
		}
	}
	text = fmt.Sprintf("%d of %d matching requests broken", applied, matched)
	if failed > 0 {
		text += fmt.Sprintf(", %d could not be: %s", failed, why)
	}
	return text, any
}
