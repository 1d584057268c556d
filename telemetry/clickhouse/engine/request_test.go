package engine

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzRequest: no URL or body makes readRequest panic, and what it lets through is within bounds.
func FuzzRequest(f *testing.F) {
	f.Add("query=INSERT+INTO+t+(a)+FORMAT+Native&database=d&insert_deduplication_token=x", []byte{1, 0})
	f.Add("default_format=Native&client_protocol_version=54460&param_x=1", []byte("SELECT {x:String}"))
	f.Add("", []byte("SELECT 1 FORMAT JSON;"))
	f.Fuzz(func(t *testing.T, query string, body []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.URL.RawQuery = query
		req, err := readRequest(httptest.NewRecorder(), r)
		if err != nil {
			return
		}
		if strings.TrimSpace(req.sql) == "" && !req.insert {
			t.Fatalf("no statement in %+v", req)
		}
		for _, s := range req.settings {
			if !settingName.MatchString(s.name) {
				t.Fatalf("setting %q", s.name)
			}
		}
		if req.database != "" && !databaseName.MatchString(req.database) {
			t.Fatalf("database %q", req.database)
		}
	})
}

func TestExceptionIsUnwrapped(t *testing.T) {
	for in, want := range map[string]struct {
		code int
		text string
	}{
		"Code: 60. DB::Exception: Table d.t does not exist. (UNKNOWN_TABLE)": {60, "Code: 60. DB::Exception: Table d.t does not exist. (UNKNOWN_TABLE)"},
		"Code: 241. DB::Exception: Code: 241. DB::Exception: memory\n":       {241, "Code: 241. DB::Exception: memory"},
		"something else": {0, "something else"},
		"Code: x":        {0, "Code: x"},
		"":               {0, ""},
	} {
		if e := exception(in); e.Code != want.code || e.Message != want.text {
			t.Errorf("%q: %+v", in, e)
		}
	}
}

func TestSettingsAreEscaped(t *testing.T) {
	if got := escape(`a'b\`); got != `a\'b\\` {
		t.Error(got)
	}
}
