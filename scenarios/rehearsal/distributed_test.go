package rehearsal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/spec"
)

func TestDistributedSaysWhatIsMissing(t *testing.T) {
	for _, tc := range []struct {
		d    Distributed
		want []string
	}{
		{Distributed{Run: "saturday-1", Kafka: "kafka:9092", Pods: 4}, nil},
		{Distributed{}, []string{`run ""`, "no Kafka", "0 pods"}},
		{Distributed{Run: "../../etc", Kafka: "kafka:9092", Pods: 1}, []string{"letters, digits"}},
		{Distributed{Run: "a b", Kafka: "kafka:9092", Pods: 1, Wait: -1}, []string{"letters, digits", "a wait of"}},
	} {
		err := tc.d.Validate()
		if len(tc.want) == 0 && err != nil {
			t.Errorf("%+v: %v", tc.d, err)
		}
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", tc.d, err, want)
			}
		}
	}
}

func TestWhole(t *testing.T) {
	done := pod{source: "k6/a#1", emitted: 10, stored: 10, ended: true}
	late, dead := done, done
	late.stored, dead.ended = 9, false
	if !whole([]pod{done, done}) || whole([]pod{done, late}) || whole([]pod{dead, done}) {
		t.Error("a run is whole when every pod is done and all of its events are stored")
	}
}

// An operator's Ctrl-C, or the end of the wait, ends a question that the store does not answer.
func TestGatherEndsWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		hung := 0
		p := tally{
			ends: func(ask context.Context) (uint64, error) {
				if ctx.Err() == nil {
					hung++
					<-ask.Done()
				}
				return 1, ask.Err()
			},
			sources: func(context.Context) ([]pod, error) {
				return []pod{{source: "k6/a#1", emitted: 10, stored: 9}}, nil
			},
			stored: func() uint64 { return 9 },
		}
		began := time.Now()
		pods, problems, err := Distributed{Run: "r", Pods: 2, Log: slog.New(slog.DiscardHandler)}.gather(ctx, p, func(string) {})
		if err != nil || len(pods) != 1 || len(problems) != 2 {
			t.Errorf("%v, %q, %v; want the one pod, that another is missing and that this one is not done", pods, problems, err)
		}
		if took := time.Since(began); hung != 1 || took != 5*time.Second {
			t.Errorf("%d questions, over after %v; want the one that hung to end after 5s", hung, took)
		}
	})
}

func TestGatherSaysWhatFailsAndAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var told []string
		asked := 0
		p := tally{
			ends: func(context.Context) (uint64, error) {
				if asked++; asked <= 3 {
					return 0, errors.New("no route to the store")
				}
				return 1, nil
			},
			sources: func(context.Context) ([]pod, error) {
				return []pod{{source: "k6/a#1", emitted: 10, stored: 10, ended: true}}, nil
			},
			stored: func() uint64 { return 10 },
		}
		d := Distributed{Run: "r", Pods: 1, Log: slog.New(slog.NewTextHandler(&log, nil))}
		pods, problems, err := d.gather(t.Context(), p, func(s string) { told = append(told, s) })
		if err != nil || len(pods) != 1 || len(problems) != 0 {
			t.Errorf("%v, %q, %v", pods, problems, err)
		}
		if n := strings.Count(log.String(), "no route to the store"); n != 1 || len(told) != 1 || told[0] != "1 of 1 pods are done, 10 events are stored" {
			t.Errorf("logged %d times, want once; told %q, want that the pod is done, and nothing that nobody knew", n, told)
		}
	})
}

// A second judgement does not write over the first.
func TestAnEarlierReportIsSetAside(t *testing.T) {
	folder := t.TempDir()
	if aside, err := setAside(folder); aside != "" || err != nil {
		t.Errorf("nothing to set aside: %q, %v", aside, err)
	}
	for n := 1; n <= 2; n++ {
		for _, name := range []string{report.JSONFile, report.HTMLFile} {
			if err := os.WriteFile(filepath.Join(folder, name), []byte{byte(n)}, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		aside, err := setAside(folder)
		if want := filepath.Join(folder, fmt.Sprintf("earlier-%d", n)); err != nil || aside != want {
			t.Fatalf("%q, %v, want %s", aside, err, want)
		}
		for _, name := range []string{report.JSONFile, report.HTMLFile} {
			if b, err := os.ReadFile(filepath.Join(aside, name)); err != nil || len(b) != 1 || b[0] != byte(n) {
				t.Errorf("%s: %v, %v", name, b, err)
			}
			if _, err := os.Stat(filepath.Join(folder, name)); err == nil {
				t.Errorf("%s is still there", name)
			}
		}
	}
}

// A report must not tell of interruptions that no pod made, nor of a capacity that nobody set.
func TestJudgedTellsNoFiction(t *testing.T) {
	sc := &spec.Scenario{Name: "n", Playback: spec.Playback{Capacity: 500}, Objectives: []spec.Objective{{Metric: "startup_time"}}}
	sc.Audience = spec.Audience{Players: 3, Interruptions: []spec.Interruption{{At: time.Second, Viewers: 9}}, Forecast: &spec.Forecast{}}
	got := judged(sc)
	if got.Audience.Interruptions != nil || got.Audience.Forecast != nil || got.Playback != (spec.Playback{}) {
		t.Errorf("%+v", got)
	}
	if got.Name != "n" || got.Audience.Players != 3 || len(got.Objectives) != 1 {
		t.Errorf("%+v: objectives and crowd count", got)
	}
	if len(sc.Audience.Interruptions) != 1 || sc.Audience.Forecast == nil || sc.Playback.Capacity != 500 {
		t.Errorf("the caller's scenario was changed: %+v", sc)
	}
}
