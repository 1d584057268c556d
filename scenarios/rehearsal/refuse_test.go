package rehearsal

import (
	"errors"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/scenarios/spec"
)

// A broker or a store that somebody else runs is used, and not broken.
func TestWhatOthersRunIsNotBroken(t *testing.T) {
	cfg := Config{Scenario: &spec.Scenario{Faults: []spec.Fault{{ID: "kafka-1", Where: "kafka"}, {ID: "clickhouse-1", Where: "clickhouse"}, {ID: "region-1", Where: "us-east"}}}}
	if err := elsewhere(cfg); err != nil {
		t.Errorf("the run's own: %v", err)
	}
	cfg.Kafka = "broker.example.test:9092"
	err := elsewhere(cfg)
	if !errors.Is(err, chaos.ErrRefused) || !strings.Contains(err.Error(), "fault kafka-1") || !strings.Contains(err.Error(), cfg.Kafka) || strings.Contains(err.Error(), "clickhouse-1") {
		t.Errorf("%v", err)
	}
	cfg.ClickHouse = "http://store.example.test:8123"
	if err := elsewhere(cfg); !errors.Is(err, chaos.ErrRefused) || !strings.Contains(err.Error(), cfg.ClickHouse) {
		t.Errorf("%v", err)
	}
}
