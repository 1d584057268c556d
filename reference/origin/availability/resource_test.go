package availability_test

import (
	"testing"

	"github.com/tminus-live/tminus/reference/origin/availability"
)

func TestParse(t *testing.T) {
	for path, want := range map[string]availability.Resource{
		"/final/manifest.mpd":     {Event: "final", Kind: availability.MPD},
		"/final/master.m3u8":      {Event: "final", Kind: availability.Master},
		"/final/v720/media.m3u8":  {Event: "final", Rendition: "v720", Kind: availability.Media},
		"/final/v720/init.mp4":    {Event: "final", Rendition: "v720", Kind: availability.Init},
		"/final/a-en/0.m4s":       {Event: "final", Rendition: "a-en", Kind: availability.Segment},
		"/fi.nal/v_1/1000000.m4s": {Event: "fi.nal", Rendition: "v_1", Kind: availability.Segment, Number: 1000000},
	} {
		got, err := availability.Parse(path)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", path, got, err, want)
		}
		if got.Path() != path {
			t.Errorf("%s comes back as %s", path, got.Path())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, path := range []string{
		"", "/", "final/manifest.mpd", "//manifest.mpd", "/final", "/final/", "/final/other.mpd", "/final/v720/", "/final/v720/01.m4s",
		"/final/v720/-1.m4s", "/final/v720/+1.m4s", "/final/v720/1e3.m4s", "/final/v720/.m4s", "/final/v720/18446744073709551616.m4s",
		"/final/v720/1.m4s/", "/final/../init.mp4", "/./v720/init.mp4", "/fin al/manifest.mpd", "/fin%61l/manifest.mpd", "/final/v720/x/1.m4s",
		"/final/v720/99999999999.m4s", "/final\x00/manifest.mpd",
	} {
		if r, err := availability.Parse(path); err == nil {
			t.Errorf("%q is taken as %+v", path, r)
		}
	}
}

// What is taken has one spelling only, or a cache could be filled with copies.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"/final/manifest.mpd", "/final/master.m3u8", "/final/v720/media.m3u8", "/final/v720/init.mp4", "/final/v720/1234.m4s", "/final/v720/007.m4s", "/a/b/c/d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, err := availability.Parse(path)
		if err != nil {
			return
		}
		if r.Path() != path {
			t.Fatalf("%q comes back as %q", path, r.Path())
		}
		// Deciding about it must not panic, whatever it is.
		availability.Decide(at(2022), stream, availability.DefaultPolicy, availability.Request{Resource: r, Arrived: at(2022)}, availability.Held{})
	})
}
