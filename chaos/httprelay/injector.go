package httprelay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// Injector puts rules into a relay and takes them out again.
type Injector struct {
	Relay *Relay
	Owner string // the fault's ID: its rules alone are taken out
	Rules []Rule // a relay has 256 at most, those of all owners together

	note atomic.Pointer[string] // of the time before the rules were taken out
}

// Inject puts the rules into the relay, in place of those that the owner has there. They are in effect for requests that come
// after it returns. Its error says every rule that Rule.Validate refuses, or that they are too many: then none of them is put in.
func (i *Injector) Inject(context.Context) error {
	if i.Relay == nil {
		return errors.New("there is no relay in front of it")
	}
	return i.Relay.Add(i.Owner, i.Rules)
}

// Restore takes the rules out of the relay, and lets go of what they hold back. It does not fail.
func (i *Injector) Restore(context.Context) error {
	if i.Relay == nil {
		return nil
	}
	if text, any := i.tell(); any {
		i.note.Store(&text)
	}
	i.Relay.Remove(i.Owner)
	return nil
}

// Note says what the relay did, for the fault's record, after Restore too: how many of the requests that the rules are about
// were broken. It is empty before Inject.
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
	if i.Relay == nil {
		return "", false
	}
	var matched, applied, failed uint64
	why := ""
	for _, c := range i.Relay.Counts().Rules {
		if c.Owner != i.Owner {
			continue
		}
		any = true
		matched, applied, failed = matched+c.Matched, applied+c.Applied, failed+c.Failed
		if c.Failure != "" {
			why = c.Failure
		}
	}
	text = fmt.Sprintf("%d of %d matching requests broken", applied, matched)
	if failed > 0 {
		text += fmt.Sprintf(", %d could not be: %s", failed, why)
	}
	return text, any
}
