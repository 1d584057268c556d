package progress

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tminus-live/tminus/dashboards/report"
)

var demo = flag.Duration("demo", 0, "draw a rehearsal of this length on standard output, to look at")

func TestDemo(t *testing.T) {
	if *demo == 0 {
		t.Skip("no -demo")
	}
	p := ForFile(os.Stdout, os.Getenv)
	ctx, cancel := context.WithTimeout(context.Background(), *demo)
	defer cancel()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	start := time.Now()
	said := false
	err := p.Run(ctx, func() State {
		sec := 10*time.Since(start).Seconds() - 15 // ten times faster than life
		if sec < -5 {
			return State{Scenario: "first-light", Run: "demo", Phase: "prepare", Doing: "starting region us-west (2 of 2)"}
		}
		if sec > 35 && !said {
			said = true
			go fmt.Fprintln(p.Log(), "level=WARN msg=\"a log line\" at=T+35")
		}
		return onAir(sec)
	}, ticker.C)
	if err != nil {
		t.Fatal(err)
	}
	r, err := report.Read(filepath.Join("..", "report", "testdata", "go.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Summary(r, "runs/demo/report.html"); err != nil {
		t.Fatal(err)
	}
}
