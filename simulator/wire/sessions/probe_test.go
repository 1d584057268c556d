package sessions

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestProbe(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/live.m3u8":
			io.WriteString(w, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2,\n7.ts\n#EXTINF:2,\n8.ts\n")
		case "/listing":
			io.WriteString(w, "<html><a href=live.m3u8>live.m3u8</a></html>")
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	for url, want := range map[string]string{
		srv.URL + "/live.m3u8":     "",
		srv.URL + "/gone.m3u8":     "404",
		srv.URL + "/listing":       "is no manifest that can be played",
		"http://127.0.0.1:1/x.mpd": "connection refused",
		"http://192.0.2.1/x.mpd":   ErrNotLoopback.Error(),
	} {
		switch err := Probe(context.Background(), url, time.Now()); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", url, err, want)
		case want == ErrNotLoopback.Error() && !errors.Is(err, ErrNotLoopback):
			t.Errorf("%s: %v is not ErrNotLoopback", url, err)
		}
	}
}
