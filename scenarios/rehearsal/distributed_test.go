package rehearsal

import (
	"strings"
	"testing"
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
