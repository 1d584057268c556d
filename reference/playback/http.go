package playback

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// OperatorPath is where an operator looks at the service, and gives it orders.
const OperatorPath = "/v1/operator"

// Paths of the service.
const (
	playPath     = "/v1/play"
	sessionsPath = "/v1/sessions/"
	steeringPath = "/v1/steering/"
	licencesPath = "/v1/licences/"
	loadPath     = "/v1/load"
	dashName     = "manifest.mpd"
	hlsName      = "master.m3u8"
)

// Endpoint names what a path of the service is to viewers: play, manifest, steering or licence; empty for every other path.
func Endpoint(path string) string {
	switch {
	case path == playPath:
		return "play"
	case strings.HasPrefix(path, sessionsPath):
		return "manifest"
	case strings.HasPrefix(path, steeringPath):
		return "steering"
	case strings.HasPrefix(path, licencesPath):
		return "licence"
	}
	return ""
}

// Ask is what a viewer of a title, whose session has that id, asks at an endpoint: play, manifest, steering or licence.
func Ask(endpoint, title, session string) (method, path string, body []byte) {
	switch endpoint {
	case "manifest":
		return http.MethodGet, sessionsPath + session + "/" + hlsName, nil
	case "steering":
		return http.MethodGet, steeringPath + session, nil
	case "licence":
		return http.MethodPost, licencesPath + session, nil
	}
	body, _ = json.Marshal(map[string]string{"title": title, "viewer": "tminus-audit"}) // strings always marshal
	return http.MethodPost, playPath, body
}

// Handler speaks HTTP for the service, with CORS for any web page.
func (s *Service) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// enter takes a place among the requests handled at once; leave gives it back.
func (s *Service) enter() bool {
	n := s.inFlight.Add(1)
	s.Observe(time.Time{}, int(n), 0)
	return n <= int64(s.cfg.MaxConcurrent)
}

func (s *Service) leave() { s.inFlight.Add(-1) }

// Header values that every answer shares: a slice a header spares an allocation each.
var (
	anyOrigin = []string{"*"}
	jsonType  = []string{"application/json"}
	noStore   = []string{"no-store"}
)

func (s *Service) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Access-Control-Allow-Origin"] = anyOrigin
	h["Cache-Control"] = noStore
	path := r.URL.Path
	if path == "/healthz" {
		io.WriteString(w, "ok\n")
		return
	}
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "*")
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	switch path { // what runs the service is answered however busy it is
	case loadPath:
		s.serveLoad(w, r)
		return
	case OperatorPath:
		s.serveOperator(w, r)
		return
	}
	admitted := s.enter()
	defer s.leave()
	if path == playPath {
		s.servePlay(w, r, admitted)
		return
	}
	s.stats.requests.Add(1)
	switch {
	case !admitted:
		s.write(w, appendError(nil, "too many requests at once"), http.StatusServiceUnavailable, 1)
	case strings.HasPrefix(path, licencesPath):
		s.serveLicence(w, path[len(licencesPath):])
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		s.write(w, appendError(nil, "sessions and steering manifests can be read only"), http.StatusMethodNotAllowed, 0)
	case strings.HasPrefix(path, sessionsPath):
		s.serveManifest(w, path[len(sessionsPath):])
	case strings.HasPrefix(path, steeringPath):
		body, err := s.Steering(s.cfg.Now(), path[len(steeringPath):])
		if err != nil {
			s.fail(w, err)
			return
		}
		s.stats.steering.Add(1)
		s.write(w, body, http.StatusOK, 0)
	default:
		s.stats.bad.Add(1)
		s.write(w, appendError(nil, "there is nothing under this path"), http.StatusNotFound, 0)
	}
}

// buffers hold a request and its answer. Neither is larger than MaxRequest plus the answer's own bound.
var buffers = sync.Pool{New: func() any { return &buffer{} }}

type buffer struct {
	in  [MaxRequest + 1]byte
	out []byte
}

func (s *Service) servePlay(w http.ResponseWriter, r *http.Request, admitted bool) {
	if r.Method != http.MethodPost {
		s.stats.requests.Add(1)
		s.stats.bad.Add(1)
		w.Header().Set("Allow", "POST, OPTIONS")
		s.write(w, appendError(nil, "a play start is a POST"), http.StatusMethodNotAllowed, 0)
		return
	}
	if !admitted {
		body, status, after := s.Shed(nil, s.cfg.Now())
		s.write(w, body, status, after)
		return
	}
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	// One byte over the bound tells too long from just right.
	n, err := io.ReadFull(r.Body, b.in[:])
	switch {
	case err == nil:
		s.stats.requests.Add(1)
		s.stats.bad.Add(1)
		w.Header().Set("Connection", "close")
		s.write(w, appendError(nil, errTooLong.Error()), http.StatusRequestEntityTooLarge, 0)
		return
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		s.stats.requests.Add(1)
		s.stats.bad.Add(1)
		s.write(w, appendError(nil, "the request broke off"), http.StatusBadRequest, 0)
		return
	}
	var status, after int
	now := s.cfg.Now()
	b.out, status, after = s.AnswerAt(b.out[:0], now, s.cfg.Wall(now), b.in[:n])
	s.write(w, b.out, status, after)
}

func (s *Service) serveManifest(w http.ResponseWriter, rest string) {
	session, name, _ := strings.Cut(rest, "/")
	render, kind := s.DASH, "application/dash+xml"
	switch name {
	case dashName:
	case hlsName:
		render, kind = s.HLS, "application/vnd.apple.mpegurl"
	default:
		s.stats.bad.Add(1)
		s.write(w, appendError(nil, "a session has "+dashName+" and "+hlsName), http.StatusNotFound, 0)
		return
	}
	body, err := render(s.cfg.Now(), session)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.stats.manifests.Add(1)
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// fail answers for a session that is none, any more or ever.
func (s *Service) fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrSession):
		status = http.StatusNotFound
	case errors.Is(err, ErrExpired):
		status = http.StatusGone
	default:
		s.cfg.Log.Error("cannot render", "error", err)
	}
	s.stats.badSession.Add(1)
	s.write(w, appendError(nil, err.Error()), status, 0)
}

// write answers with JSON; after, when positive, is Retry-After in seconds.
func (s *Service) write(w http.ResponseWriter, body []byte, status, after int) {
	h := w.Header()
	h["Content-Type"] = jsonType
	if after > 0 {
		h.Set("Retry-After", strconv.Itoa(after))
	}
	w.WriteHeader(status)
	w.Write(body)
}

// appendQuoted appends a JSON string.
func appendQuoted(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return append(dst, b...)
}
