package orders

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/tminus-live/tminus/reference/defect"
)

// Path is where orders are taken.
const Path = "/v1/defects"

// Header signs an order. It is the operator's header too.
const Header = "Tminus-Operator"

// Sign is Header's value.
func Sign(key []byte, method, path string, body []byte) string {
	return hex.EncodeToString(sum(key, method, path, body))
}

func sum(key []byte, method, path string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(method + " " + path + "\n"))
	mac.Write(body)
	return mac.Sum(nil)
}

// Config is what a Handler needs. Log may be nil.
type Config struct {
	Set *defect.Set
	Key []byte // the run's
	Now func() time.Time
	Log *slog.Logger
}

// Handler takes orders at Path and below it.
func Handler(cfg Config) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &desk{cfg}
}

type desk struct{ cfg Config }

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	id, one := strings.CutPrefix(r.URL.Path, Path+"/")
	switch {
	case !one && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		answer(w, http.StatusOK, struct {
			Defects []defect.Defect `json:"defects"`
		}{d.cfg.Set.At(d.cfg.Now())})
		return
	case !one:
		w.Header().Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, "the list of defects can be read only")
		return
	case r.Method != http.MethodPut && r.Method != http.MethodDelete:
		w.Header().Set("Allow", "PUT, DELETE")
		fail(w, http.StatusMethodNotAllowed, "a defect is ordered with PUT and ended with DELETE")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, defect.MaxOrder))
	if err != nil {
		status := http.StatusBadRequest
		if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
			status = http.StatusRequestEntityTooLarge
		}
		fail(w, status, "the order is too long or broke off")
		return
	}
	signed, err := hex.DecodeString(r.Header.Get(Header))
	if err != nil || !hmac.Equal(signed, sum(d.cfg.Key, r.Method, r.URL.Path, body)) {
		fail(w, http.StatusForbidden, "the header "+Header+" must sign the order with the run's key")
		return
	}
	if r.Method == http.MethodDelete {
		if d.cfg.Set.Delete(d.cfg.Now(), id) {
			d.cfg.Log.Info("defect ended", "id", id, "by", "order")
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	order, err := defect.ParseOrder(body)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	done, renewed, err := d.cfg.Set.Put(d.cfg.Now(), id, order)
	switch {
	case errors.Is(err, defect.ErrTaken) || errors.Is(err, defect.ErrFull):
		fail(w, http.StatusConflict, err.Error())
		return
	case err != nil:
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	status := http.StatusOK
	if !renewed {
		status = http.StatusCreated
		d.cfg.Log.Info("defect in force", "id", id, "part", done.Part, "kind", done.Kind)
	}
	answer(w, status, done)
}

func fail(w http.ResponseWriter, status int, sentence string) {
	answer(w, status, struct {
		Error string `json:"error"`
	}{sentence})
}

func answer(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // times and numbers within bounds always marshal
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be rendered"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n')) //nolint:errcheck // the client is gone
}
