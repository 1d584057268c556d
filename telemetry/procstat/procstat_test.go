package procstat

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
)

func TestReadOneself(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no /proc")
	}
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; { // some CPU to be seen
	}
	s, err := Read(os.Getpid())
	if err != nil || s.RSS < 1<<20 || s.Peak < s.RSS || s.Threads < 2 || s.CPU < 20*time.Millisecond || s.CPU > time.Hour {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestNobodyThere(t *testing.T) {
	if _, err := Read(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

const stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 7 0 100 1000 200 18446744073709551615 1 1 0"

func TestParse(t *testing.T) {
	s, err := parse([]byte(stat), []byte("Name:\ta) b (c)\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t7\n"))
	if want := (Sample{RSS: 1 << 20, Peak: 2 << 20, CPU: 2 * time.Second, Threads: 7}); err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	e := s.Event("store", time.Unix(1, 0))
	if e.Kind != event.ProcessStats || e.Component != "store" || e.Nums["rss_bytes"] != 1<<20 || e.Nums["cpu_s"] != 2 || e.Nums["threads"] != 7 || e.Nums["peak_bytes"] != 2<<20 {
		t.Errorf("%+v", e)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string][2]string{
		"nothing":     {"", ""},
		"half a line": {"42 (a) S 1 2", ""},
		"letters":     {strings.Replace(stat, "150", "x", 1), ""},
		"odd memory":  {stat, "VmRSS: lots kB\n"},
	} {
		if s, err := parse([]byte(in[0]), []byte(in[1])); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(stat), []byte("VmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"))
	f.Fuzz(func(t *testing.T, stat, status []byte) {
		if s, err := parse(stat, status); err == nil && s.CPU < 0 {
			t.Fatal(s)
		}
	})
}
