package steering

import (
	"encoding/json"
	"time"
)

// Manifest is a steering manifest: the same JSON for HLS (RFC 8216bis, 7.2) and DASH (ETSI TS 103 998, 5).
type Manifest struct {
	Version  int      `json:"VERSION"`
	TTL      int      `json:"TTL"` // seconds until the player asks again
	Reload   string   `json:"RELOAD-URI,omitempty"`
	Priority []string `json:"PATHWAY-PRIORITY"` // edge IDs: PATHWAY-ID in HLS, serviceLocation in DASH
}

// Render renders the steering manifest for an order of edges. ttl is rounded to seconds, one at least.
func Render(order []string, ttl time.Duration, reload string) []byte {
	m := Manifest{Version: 1, TTL: max(1, int(ttl.Round(time.Second)/time.Second)), Reload: reload, Priority: order}
	if m.Priority == nil {
		m.Priority = []string{}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return b
}
