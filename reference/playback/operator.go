package playback

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/tminus-live/tminus/reference/playback/admission"
	"github.com/tminus-live/tminus/telemetry/event"
)

// OperatorHeader signs an order: the hexadecimal HMAC-SHA256 of its body, with the run's key.
const OperatorHeader = "Tminus-Operator"

// SignOrder is OperatorHeader's value for an order.
func SignOrder(key, body []byte) string {
	h := hmac.New(sha256.New, key)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// Pull is what an operator does to a lever. In JSON: true, false or "auto".
type Pull admission.Mode

// UnmarshalJSON takes true, false and "auto".
func (p *Pull) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true":
		*p = Pull(admission.On)
	case "false":
		*p = Pull(admission.Off)
	case `"auto"`:
		*p = Pull(admission.Auto)
	default:
		return errors.New(`pull is true, false or "auto"`)
	}
	return nil
}

// MarshalJSON is UnmarshalJSON's inverse.
func (p Pull) MarshalJSON() ([]byte, error) {
	return []byte([...]string{`"auto"`, "true", "false"}[p]), nil
}

// Order is what an operator may change. What is nil or empty stays as it is.
type Order struct {
	Lever         string   `json:"lever,omitempty"` // with Pull
	Pull          *Pull    `json:"pull,omitempty"`
	Capacity      *float64 `json:"capacity,omitempty"` // play starts a second; 0: no bound
	GuidedBackoff *bool    `json:"guidedBackoff,omitempty"`
	Evacuate      *bool    `json:"evacuate,omitempty"`
}

// Operate carries out an order, all of it or nothing, and returns the state after it.
func (s *Service) Operate(o Order) (admission.State, error) {
	now := s.cfg.Now()
	if (o.Lever == "") != (o.Pull == nil) {
		return admission.State{}, errors.New("a lever comes with a pull")
	}
	var lever admission.Lever
	if o.Lever != "" {
		var err error
		if lever, err = admission.ParseLever(o.Lever); err != nil {
			return admission.State{}, err
		}
	}
	s.mu.Lock()
	if o.Capacity != nil {
		if err := s.control.SetCapacity(now, *o.Capacity); err != nil {
			s.mu.Unlock()
			return admission.State{}, err
		}
	}
	if o.Pull != nil {
		s.control.Pull(now, lever, admission.Mode(*o.Pull))
	}
	if o.GuidedBackoff != nil {
		s.control.Guide(*o.GuidedBackoff)
	}
	if o.Evacuate != nil {
		s.control.Evacuate(*o.Evacuate)
	}
	state := s.control.State(now)
	s.mu.Unlock()
	if detail, err := json.Marshal(o); err == nil && o != (Order{}) {
		s.cfg.Sink.Emit(event.Event{At: now, Kind: event.Operator, Status: "done", Region: s.cfg.Region, Component: "playback/" + s.cfg.Region, Detail: string(detail)})
	}
	s.tellChanges()
	return state, nil
}

// State is where admission stands.
func (s *Service) State() admission.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.control.State(s.cfg.Now())
}

func (s *Service) serveOperator(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.writeJSON(w, s.State())
		return
	case http.MethodPost:
	default:
		w.Header().Set("Allow", "GET, HEAD, POST, OPTIONS")
		s.write(w, appendError(nil, "the operator's interface takes GET and POST"), http.StatusMethodNotAllowed, 0)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxRequest))
	if err != nil {
		s.write(w, appendError(nil, "the order is too long or broke off"), http.StatusBadRequest, 0)
		return
	}
	sum, err := hex.DecodeString(r.Header.Get(OperatorHeader))
	mac := hmac.New(sha256.New, s.cfg.Key)
	mac.Write(body)
	if err != nil || !hmac.Equal(sum, mac.Sum(nil)) {
		s.write(w, appendError(nil, "the header "+OperatorHeader+" must sign the order with the run's key"), http.StatusForbidden, 0)
		return
	}
	var o Order
	if err := unmarshalStrict(body, &o); err != nil {
		s.write(w, appendError(nil, fmt.Sprintf("the order cannot be read: %v", err)), http.StatusBadRequest, 0)
		return
	}
	state, err := s.Operate(o)
	if err != nil {
		s.write(w, appendError(nil, err.Error()), http.StatusBadRequest, 0)
		return
	}
	s.writeJSON(w, state)
}

func (s *Service) serveLoad(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		s.write(w, appendError(nil, "load can be read only"), http.StatusMethodNotAllowed, 0)
		return
	}
	s.mu.Lock()
	report := s.control.Report(s.cfg.Now())
	s.mu.Unlock()
	s.writeJSON(w, report)
}

// serveLicence answers with a JSON Web Key set as Clear Key has it (W3C Encrypted Media Extensions, 9.1.4). The stream is not
// encrypted, so the set is empty.
func (s *Service) serveLicence(w http.ResponseWriter, session string) {
	if _, err := s.sessions.Parse(session, s.cfg.Wall(s.cfg.Now())); err != nil {
		s.fail(w, err)
		return
	}
	s.stats.licences.Add(1)
	s.write(w, []byte(`{"keys":[],"type":"temporary"}`), http.StatusOK, 0)
}

func (s *Service) writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.cfg.Log.Error("cannot render", "error", err)
		s.write(w, appendError(nil, "the state cannot be rendered"), http.StatusInternalServerError, 0)
		return
	}
	s.write(w, append(body, '\n'), http.StatusOK, 0)
}
