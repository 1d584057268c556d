package k6

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/kafka"
	"github.com/tminus-live/tminus/telemetry/spool"
)

const (
	// drainFor bounds handing in the last events at the end, and interruptedFor when somebody has ended the test early.
	drainFor       = 30 * time.Second
	interruptedFor = 800 * time.Millisecond
	sourceMost     = 60 // bytes of a host's name in a source's

	// spoolBytes bounds the events that wait on disk for Kafka. It leaves room in the volume of deploy/testrun.yaml, which a pod
	// must not outgrow: raise both together.
	spoolBytes = 3 << 30
)

// eventPath is this process's way to Kafka: one source of a run that has many.
type eventPath struct {
	run, kafka string
	emitter    *spool.Emitter
	client     *kafka.Client
	stop       context.CancelFunc
	done       chan error
	dir        string

	interrupted string // why a call of this process ended early; "": none did. Guarded by Module.mu
}

// events is where a call's events go: to Kafka where a call or the environment names one, nowhere else. The first call
// decides for the process.
func (m *Module) events(ctx context.Context, run, address string, env func(string) string, log *slog.Logger) (event.Sink, error) {
	if address == "" {
		address = env("TMINUS_KAFKA")
	}
	if run == "" {
		run = env("TMINUS_RUN")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if address == "" {
		if run != "" {
			return nil, fmt.Errorf("run: %q has nowhere to go without kafka: (or TMINUS_KAFKA), host:port", clip(run))
		}
		return event.Discard, nil
	}
	if run == "" {
		return nil, errors.New("kafka: needs run: (or TMINUS_RUN), the id that all pods of a run share")
	}
	if p := m.path; p != nil {
		if p.run != run || p.kafka != address {
			return nil, fmt.Errorf("this process writes run %s to Kafka at %s already: a second run or Kafka needs a process of its own", p.run, p.kafka)
		}
		return p.emitter, nil
	}
	p, err := openEvents(ctx, run, address, log)
	if err != nil {
		return nil, err
	}
	m.path = p
	return p.emitter, nil
}

func openEvents(ctx context.Context, run, address string, log *slog.Logger) (_ *eventPath, err error) {
	client, err := kafka.New(kafka.Config{Address: address})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			client.Close()
		}
	}()
	if err := client.EnsureTopic(ctx); err != nil {
		return nil, err
	}
	source, err := sourceName()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tminus-k6-")
	if err != nil {
		return nil, fmt.Errorf("no folder for events on their way to Kafka: %w", err)
	}
	emitter, err := spool.Open(spool.Config{Dir: dir, Run: run, Source: source, Publisher: client, SpoolBytes: spoolBytes, DrainFor: drainFor, Logger: log})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// Events outlive the VU that emits them: the end of the process ends the way.
	background, stop := context.WithCancel(context.Background())
	p := &eventPath{run: run, kafka: address, emitter: emitter, client: client, stop: stop, done: make(chan error, 1), dir: dir}
	go func() { p.done <- emitter.Run(background) }()
	return p, nil
}

// sourceName is unique to this process: the host's name, which in Kubernetes is the pod's, and a draw.
func sourceName() (string, error) {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown"
	}
	if len(host) > sourceMost {
		host = host[:sourceMost]
	}
	var salt [4]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return "", err
	}
	return fmt.Sprintf("k6/%s/%s#1", host, hex.EncodeToString(salt[:])), nil
}

// interrupt notes that a call ended before its load was through, for the verdict.
func (m *Module) interrupt(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.path; p != nil && p.interrupted == "" {
		p.interrupted = why
	}
}

// closeEvents says that this source has nothing more to say, hands in what is left and returns how much could not be. It may be
// called again.
func (m *Module) closeEvents() error {
	m.mu.Lock()
	p := m.path
	m.path = nil
	m.mu.Unlock()
	if p == nil {
		return nil
	}
	wait, status := drainFor+5*time.Second, "ok"
	if p.interrupted != "" {
		wait, status = interruptedFor, "failed"
	}
	p.emitter.Emit(event.Event{Kind: event.SourceEnd, Component: "k6", Status: status, Detail: p.interrupted,
		Nums: map[string]float64{"dropped": float64(p.emitter.Counts().Dropped)}})
	p.stop()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var err error
	select {
	case err = <-p.done:
		p.client.Close()
	case <-timer.C:
		err = fmt.Errorf("it took longer than %v", wait)
	}
	c := p.emitter.Counts()
	if err == nil && c.Acked == c.Emitted && c.Dropped == 0 {
		return os.RemoveAll(p.dir)
	}
	return errors.Join(fmt.Errorf("tminus: run %s: %d events of %s did not reach Kafka at %s (they are in %s), %d were dropped", p.run, c.Emitted-c.Acked, p.emitter.Source(), p.kafka, p.dir, c.Dropped), err)
}
