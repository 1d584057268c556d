package defect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

var (
	// ErrOrder: an order says something that there is not; the sentence names what there is.
	ErrOrder = errors.New("there is no")
	// ErrTaken: the component has a defect of that kind already, under another id.
	ErrTaken = errors.New("taken")
	// ErrFull: there are too many defects.
	ErrFull = errors.New("too many defects at once")
)

// Bounds of an order.
const (
	MaxLease   = 10 * time.Second
	MaxOrder   = 4 << 10 // bytes
	maxName    = 64      // bytes of an id, a place or a parameter's text
	maxDefects = 64
)

// Order asks for a defect, or for one that is there to stay.
type Order struct {
	Part   string         `json:"part"` // "us-east/edge-1"; "us-east": each component there that can have it
	Kind   string         `json:"kind"`
	Params map[string]any `json:"params,omitempty"` // those left out have their defaults
	Lease  int64          `json:"lease_ms"`
}

// ParseOrder reads an order strictly: one JSON object, known members, nothing behind it. Whether there is such a part, kind
// and parameter is for Put to say.
func ParseOrder(body []byte) (Order, error) {
	var o Order
	if len(body) > MaxOrder {
		return o, fmt.Errorf("the order has more than %d bytes", MaxOrder)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return o, fmt.Errorf("the order cannot be read: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return o, errors.New("the order cannot be read: there is more than one value")
	}
	if o.Lease < 1 || o.Lease > MaxLease.Milliseconds() {
		return o, fmt.Errorf("a lease of %d ms is outside 1 to %d", o.Lease, MaxLease.Milliseconds())
	}
	return o, nil
}

// validID says whether a defect may have that id.
func validID(id string) bool {
	if id == "" || len(id) > maxName {
		return false
	}
	for _, c := range []byte(id) {
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
