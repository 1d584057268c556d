package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/chaos/kernel"
)

// The whole benchmark, too short to mean anything: every figure is there, and each packet met the fate that its seed has for it.
func TestLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes for some seconds")
	}
	r, err := loss(t.Context(), Options{Seconds: minSeconds, Rounds: minRounds})
	if able := kernel.Able(); able != nil {
		if !errors.Is(err, ErrInvalid) || len(r.Problems) != 3 || !strings.Contains(r.Problems[0], "needs CAP_BPF") {
			t.Fatalf("%v, %v, want what is lacking", err, r)
		}
		t.Skipf("NOT TESTED, loss in the kernel: %v", able)
	}
	if err != nil {
		t.Fatalf("%v: %q", err, r.Problems)
	}
	for _, f := range r.Figures {
		if f.Missing || f.Median <= 0 || f.Wrong+f.Dropped > 0 || len(f.Rounds) != minRounds {
			t.Errorf("%+v", *f)
		}
	}
	var out bytes.Buffer
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var top struct {
		NoFault float64 `json:"no_fault_per_core_s"`
		Kernel  float64 `json:"kernel_per_core_s"`
		Ratio   float64 `json:"ratio"`
		Loss    struct{ Packets, Share, Burst float64 }
	}
	if err := json.Unmarshal(out.Bytes(), &top); err != nil {
		t.Fatal(err)
	}
	if top.NoFault <= 0 || top.Kernel <= 0 || top.Ratio <= 0 || top.Loss.Packets < 1000 || top.Loss.Share < 0.02 || top.Loss.Share > 0.1 || top.Loss.Burst < 4 || top.Loss.Burst > 16 {
		t.Errorf("%+v", top)
	}
}

func TestRelay(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes for some seconds")
	}
	r, err := relayAlone(t.Context(), Options{Seconds: minSeconds, Rounds: minRounds})
	if err != nil {
		t.Fatalf("%v: %q", err, r.Problems)
	}
	for _, f := range r.Figures {
		if f.Missing || f.Median <= 0 || f.Wrong+f.Dropped > 0 || len(f.Rounds) != minRounds {
			t.Errorf("%+v", *f)
		}
	}
	var out bytes.Buffer
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var top struct {
		Relay float64 `json:"relay_per_core_s"`
		Hop   float64 `json:"hop_per_core_s"`
		Ratio float64 `json:"ratio"`
	}
	if err := json.Unmarshal(out.Bytes(), &top); err != nil || top.Relay <= 0 || top.Hop <= 0 || top.Ratio <= 0 {
		t.Errorf("%+v, %v", top, err)
	}
}

// A program that loses others than it should makes the figure worth nothing.
func TestAnotherSeedIsNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	if err := kernel.Able(); err != nil {
		t.Skipf("NOT TESTED, loss in the kernel: %v", err)
	}
	o := Options{Seconds: minSeconds}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	sinkCore, sourceCore, _, err := twoCores()
	if err != nil {
		t.Skip(err)
	}
	for what, lost := range map[string][2]*Loss{
		"another seed":        {{Share: 0.1, Burst: 3, Seed: 1}, {Share: 0.1, Burst: 3, Seed: 2}},
		"nothing at all":      {{Share: 0.1, Burst: 3, Seed: 1}, nil},
		"what should not be":  {nil, {Share: 0.1, Burst: 3, Seed: 1}},
		"as it should be":     {{Share: 0.1, Burst: 3, Seed: 1}, {Share: 0.1, Burst: 3, Seed: 1}},
		"nothing, rightly so": {nil, nil},
	} {
		m := measurement{figure: &Figure{}, server: Part{Role: packetSink, Core: sinkCore, Loss: lost[0]},
			client: Part{Role: packetSource, Core: sourceCore, Size: datagram, Loss: lost[1]}}
		got, err := m.once(context.Background(), o, firstPort+8200)
		if err != nil || got.Done == 0 || (got.Wrong == 0) != (what == "as it should be" || what == "nothing, rightly so") {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}
