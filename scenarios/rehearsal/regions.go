package rehearsal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/scenarios/process"
)

// RegionCommand is the subcommand that a region's child process runs; it reads a RegionConfig from standard input.
const RegionCommand = "region"

// RegionConfig is what the child process of a region is told.
type RegionConfig struct {
	Pipeline pipeline.Config `json:"pipeline"`
	Events   EventsConfig    `json:"events"`

	// Again says that the region was there before: it is ready as soon as it answers. The first segment that it can serve is
	// the one it has begun to make, which is over up to a segment's length later.
	Again bool `json:"again,omitempty"`
}

// region is one region of the reference pipeline in a process of its own. It may be killed and started again; each
// incarnation is a telemetry source of its own.
type region struct {
	cfg    RegionConfig
	folder string                   // for logs
	fork   func(func() error) error // where its processes are to live; nil: anywhere
	log    *slog.Logger

	mu          sync.Mutex
	proc        *process.Process
	incarnation int
	ids         []process.ID
	wanted      bool // should be alive: an exit is a failure
	failed      chan error
}

func newRegion(cfg RegionConfig, folder string, log *slog.Logger) *region {
	return &region{cfg: cfg, folder: folder, log: log, failed: make(chan error, 1)}
}

// Name is the region's name: "us-east".
func (r *region) Name() string { return r.cfg.Pipeline.Here().Name }

// Prefix holds every address of the region and nothing else.
func (r *region) Prefix() netip.Prefix { return r.cfg.Pipeline.Here().Prefix() }

// Endpoints are the addresses that viewers use: every edge, then playback.
func (r *region) Endpoints() []netip.AddrPort {
	here := r.cfg.Pipeline.Here()
	var eps []netip.AddrPort
	for k := 1; k <= here.Edges; k++ {
		eps = append(eps, here.EdgeAddr(k))
	}
	return append(eps, here.PlaybackAddr())
}

// Start starts the region's process and returns when its edges serve the stream; started again, when they answer.
func (r *region) Start(ctx context.Context) error {
	r.mu.Lock()
	r.incarnation++
	cfg := r.cfg
	cfg.Events.Source = fmt.Sprintf("region/%s#%d", r.Name(), r.incarnation)
	if r.incarnation > 1 {
		cfg.Again, cfg.Pipeline.LeadIn = true, 0 // what it would have encoded while it was gone, nobody encoded
	}
	r.mu.Unlock()
	stdin, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	p, err := process.Start(ctx, process.Spec{
		Name:         "region/" + r.Name(),
		Args:         []string{RegionCommand},
		Stdin:        stdin,
		LogPath:      filepath.Join(r.folder, "region-"+r.Name()+".log"),
		ReadyTimeout: 30 * time.Second,
		StopGrace:    stopGrace,
		Fork:         r.fork,
		Logger:       r.log,
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proc, r.wanted = p, true
	r.ids = append(r.ids, p.ID())
	go func() {
		<-p.Exited()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.proc == p && r.wanted && p.Err() != nil {
			select {
			case r.failed <- p.Err():
			default:
			}
		}
	}()
	return nil
}

// Kill ends the region's process with SIGKILL and returns when it is gone.
func (r *region) Kill() error {
	r.mu.Lock()
	p := r.proc
	r.wanted = false
	r.mu.Unlock()
	if p == nil {
		return errors.New("region " + r.Name() + " was never started")
	}
	return p.Kill()
}

// Stop asks the region to end, so that it hands in its telemetry.
func (r *region) Stop(ctx context.Context) error {
	r.mu.Lock()
	p := r.proc
	r.wanted = false
	r.mu.Unlock()
	if p == nil || !p.Alive() {
		return nil
	}
	return p.Stop(ctx)
}

// PID is the process id of the region's incarnation that is alive; false when none is.
func (r *region) PID() (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc == nil || !r.proc.Alive() {
		return 0, false
	}
	return r.proc.PID(), true
}

// processes are those of the incarnation that is alive.
func (r *region) processes() ([]procfs.Process, error) {
	pid, ok := r.PID()
	if !ok {
		return nil, nil
	}
	p, err := procfs.Read(pid)
	if err != nil {
		return nil, err
	}
	return []procfs.Process{p}, nil
}

// Alive reports whether the region's process runs.
func (r *region) Alive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proc != nil && r.proc.Alive()
}

// Failed delivers the reason when the region's process ends without being told to.
func (r *region) Failed() <-chan error { return r.failed }

// IDs names every incarnation so far.
func (r *region) IDs() []process.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]process.ID(nil), r.ids...)
}

// startRegions starts all regions at once; when one fails the others are killed and the first error is returned.
func startRegions(ctx context.Context, regions []*region) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(regions))
	var wg sync.WaitGroup
	for i, r := range regions {
		wg.Go(func() {
			if errs[i] = r.Start(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	var first error
	for _, err := range errs {
		// The region that failed by itself says more than those that were called off because of it.
		if err != nil && (first == nil || errors.Is(first, context.Canceled)) {
			first = err
		}
	}
	if first == nil {
		return nil
	}
	for _, r := range regions {
		if r.Alive() {
			_ = r.Kill()
		}
	}
	return first
}
