package orders_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/defect"
	"github.com/tminus-live/tminus/reference/defect/orders"
)

var (
	key   = []byte("0123456789abcdef")
	begin = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
)

func desk() (h http.Handler, set *defect.Set, now *time.Time) {
	now = new(time.Time)
	*now = begin
	set = defect.NewSet(defect.Component{Name: "us-east/edge-1", Kind: defect.Edge})
	return orders.Handler(orders.Config{Set: set, Key: key, Now: func() time.Time { return *now }}), set, now
}

func send(h http.Handler, method, path, body, signature string) (int, string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if signature != "" {
		r.Header.Set(orders.Header, signature)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func signed(h http.Handler, method, path, body string) (int, string) {
	return send(h, method, path, body, orders.Sign(key, method, path, []byte(body)))
}

const (
	wipe = `{"part":"us-east/edge-1","kind":"cache-wipe","lease_ms":2000}`
	one  = orders.Path + "/wipe-1"
)

func TestADefectIsOrderedRenewedListedAndEnded(t *testing.T) {
	h, set, now := desk()
	if code, body := signed(h, "PUT", one, wipe); code != 201 || !strings.Contains(body, `"ends":"2026-11-21T20:00:02Z"`) {
		t.Errorf("ordered: %d %s", code, body)
	}
	*now = begin.Add(time.Second)
	if code, body := signed(h, "PUT", one, wipe); code != 200 || !strings.Contains(body, `"ends":"2026-11-21T20:00:03Z"`) || !strings.Contains(body, `"since":"2026-11-21T20:00:00Z"`) {
		t.Errorf("renewed: %d %s", code, body)
	}
	var list struct{ Defects []defect.Defect }
	code, body := send(h, "GET", orders.Path, "", "")
	if err := json.Unmarshal([]byte(body), &list); code != 200 || err != nil || len(list.Defects) != 1 || list.Defects[0].ID != "wipe-1" {
		t.Errorf("listed: %d %v %s", code, err, body)
	}
	if code, body := signed(h, "PUT", orders.Path+"/wipe-2", wipe); code != 409 || !strings.Contains(body, "wipe-1") {
		t.Errorf("twice: %d %s", code, body)
	}
	for range 2 {
		if code, body := signed(h, "DELETE", one, ""); code != 204 || len(set.At(*now)) != 0 {
			t.Errorf("ended: %d %s", code, body)
		}
	}
	if code, _ := signed(h, "PUT", one, wipe); code != 201 {
		t.Errorf("ordered again: %d", code)
	}
	*now = now.Add(2 * time.Second)
	if _, body := send(h, "GET", orders.Path, "", ""); body != `{"defects":[]}`+"\n" {
		t.Errorf("after its lease: %s", body)
	}
}

func TestOnlyTheRunMayOrder(t *testing.T) {
	h, set, now := desk()
	good := orders.Sign(key, "PUT", one, []byte(wipe))
	for what, c := range map[string][4]string{
		"no signature": {"PUT", one, wipe, ""}, "no hex": {"PUT", one, wipe, "xyz"}, "another key": {"PUT", one, wipe, orders.Sign([]byte("another key, as long"), "PUT", one, []byte(wipe))},
		"another body": {"PUT", one, wipe + " ", good}, "another path": {"PUT", one + "2", wipe, good}, "another method": {"DELETE", one, wipe, good},
	} {
		if code, body := send(h, c[0], c[1], c[2], c[3]); code != 403 || !strings.Contains(body, "sign") {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	if len(set.At(*now)) != 0 {
		t.Error("something is in force")
	}
}

func TestOrdersAreChecked(t *testing.T) {
	h, _, _ := desk()
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"PUT", one, `{`, 400}, {"PUT", one, `{"part":"us-east/edge-9","kind":"cache-wipe","lease_ms":2000}`, 400}, {"PUT", orders.Path + "/a/b", wipe, 400}, {"PUT", orders.Path + "/", wipe, 400},
		{"PUT", one, strings.Repeat(" ", defect.MaxOrder+1), 413}, {"POST", one, wipe, 405}, {"PUT", orders.Path, wipe, 405}, {"DELETE", orders.Path, "", 405},
	} {
		if code, body := signed(h, c.method, c.path, c.body); code != c.want || !strings.Contains(body, `"error":"`) {
			t.Errorf("%s %s %.40s: %d %s, want %d", c.method, c.path, c.body, code, body, c.want)
		}
	}
}

func FuzzHandler(f *testing.F) {
	f.Add("PUT", one, []byte(wipe))
	f.Add("DELETE", one, []byte{})
	f.Add("GET", orders.Path, []byte{})
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		h, set, now := desk()
		r := httptest.NewRequest("GET", "/", strings.NewReader(string(body)))
		r.Method, r.URL.Path = method, path
		r.Header.Set(orders.Header, orders.Sign(key, method, path, body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		out, _ := io.ReadAll(w.Result().Body)
		if (w.Code == 201) != (len(set.At(*now)) == 1) || len(out) > 0 && !json.Valid(out) {
			t.Fatalf("%d %s", w.Code, out)
		}
	})
}
