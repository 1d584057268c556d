package k6

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/grafana/sobek"
	"github.com/sirupsen/logrus"
	"go.k6.io/k6/errext"
	"go.k6.io/k6/js/common"
	"go.k6.io/k6/js/modules"
	"go.k6.io/k6/lib"
	"go.k6.io/k6/metrics"
)

// Name is what a script imports.
const Name = "k6/x/tminus"

func init() { modules.Register(Name, New()) }

// Module is the extension: one in a k6 process, shared by its VUs.
type Module struct {
	record *record
	exit   sync.Once // subscribes to k6's end

	mu   sync.Mutex
	path *eventPath // to Kafka; nil: none was asked for yet
}

var _ modules.Module = (*Module)(nil)

// New makes a module that has seen nothing yet.
func New() *Module { return &Module{record: newRecord()} }

// exitEvent is k6's internal/event.Exit, "the process is about to exit"; internal as it is, an extension can name it only by
// its number. TestEventsReachKafka holds that it is the right one.
const exitEvent = 6

// NewModuleInstance registers the metrics, and once a process the way out at its end.
func (m *Module) NewModuleInstance(vu modules.VU) modules.Instance {
	init := vu.InitEnv()
	i := &instance{module: m, vu: vu, env: envOf(init)}
	var err error
	if i.metrics, err = registerMetrics(init.Registry); err != nil {
		common.Throw(vu.Runtime(), err)
	}
	m.exit.Do(func() {
		if vu.Events().Global == nil {
			return
		}
		log := init.Logger
		_, ends := vu.Events().Global.Subscribe(exitEvent)
		go func() {
			for e := range ends {
				if err := m.closeEvents(); err != nil {
					log.Error(err)
				}
				e.Done()
			}
		}()
	})
	return i
}

// envOf looks a word up where a script's __ENV has it (k6 run -e), then in the process's environment.
func envOf(init *common.InitEnvironment) func(string) string {
	flags, lookup := init.RuntimeOptions.Env, init.LookupEnv
	return func(key string) string {
		if v, ok := flags[key]; ok {
			return v
		}
		if lookup != nil {
			v, _ := lookup(key)
			return v
		}
		return ""
	}
}

// instance is the module as one VU has it.
type instance struct {
	module  *Module
	vu      modules.VU
	env     func(string) string
	metrics *metricSet
}

// Exports are the functions of a script.
func (i *instance) Exports() modules.Exports {
	named := map[string]any{"playStarts": i.playStarts, "players": i.players, "fault": i.fault, "qoe": i.qoe}
	return modules.Exports{Default: named, Named: named}
}

// run does one call of a script. What is wrong with the call itself (its options, a target that may not be loaded, a Kafka
// that does not answer) ends the whole test with k6's exit status 108: a run that did not send its load must not pass.
func (i *instance) run(name string, f func(ctx context.Context, state *lib.State) (map[string]any, error)) sobek.Value {
	rt := i.vu.Runtime()
	state := i.vu.State()
	if state == nil {
		common.Throw(rt, fmt.Errorf("tminus.%s is called in a VU's function, not while the script is read", name))
	}
	got, err := f(i.vu.Context(), state)
	if err != nil {
		err = fmt.Errorf("tminus.%s: %w", name, err)
		state.Logger.Error(err)
		rt.Interrupt(&errext.InterruptError{Reason: err.Error()})
		return sobek.Undefined()
	}
	return rt.ToValue(got)
}

// qoe returns what viewers felt so far, in this process.
func (i *instance) qoe() map[string]any { return i.module.record.qoe() }

// metricSet is the metrics that a script's thresholds can name.
type metricSet struct {
	starts, dropped, rebuffers                       *metrics.Metric // counters
	startTime, sendLag, startup, latency             *metrics.Metric // trends, ms
	rebufferRatio, bitrate                           *metrics.Metric // trends
	startFailures, playbackFailures, faultsConfirmed *metrics.Metric // rates
}

func registerMetrics(r *metrics.Registry) (*metricSet, error) {
	var errs []error
	reg := func(name string, t metrics.MetricType, v ...metrics.ValueType) *metrics.Metric {
		m, err := r.NewMetric(name, t, v...)
		errs = append(errs, err)
		return m
	}
	s := &metricSet{
		starts:           reg("tminus_play_starts", metrics.Counter),
		startTime:        reg("tminus_play_start_time", metrics.Trend, metrics.Time),
		sendLag:          reg("tminus_send_lag", metrics.Trend, metrics.Time),
		startFailures:    reg("tminus_video_start_failures", metrics.Rate),
		dropped:          reg("tminus_dropped", metrics.Counter),
		startup:          reg("tminus_startup_time", metrics.Trend, metrics.Time),
		rebufferRatio:    reg("tminus_rebuffer_ratio", metrics.Trend),
		rebuffers:        reg("tminus_rebuffers", metrics.Counter),
		latency:          reg("tminus_live_latency", metrics.Trend, metrics.Time),
		bitrate:          reg("tminus_bitrate", metrics.Trend),
		playbackFailures: reg("tminus_playback_failures", metrics.Rate),
		faultsConfirmed:  reg("tminus_faults_confirmed", metrics.Rate),
	}
	return s, errors.Join(errs...)
}

// logger is k6's log as the engines beneath know it.
func logger(l logrus.FieldLogger) *slog.Logger { return slog.New(&logHandler{log: l}) }

// logHandler hands what engines log to k6, from warnings on; the rest is for --verbose.
type logHandler struct {
	log logrus.FieldLogger
}

func (h *logHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	log := h.log
	r.Attrs(func(a slog.Attr) bool {
		log = log.WithField(a.Key, a.Value.Any())
		return true
	})
	switch {
	case r.Level >= slog.LevelError:
		log.Error(r.Message)
	case r.Level >= slog.LevelWarn:
		log.Warn(r.Message)
	default:
		log.Debug(r.Message)
	}
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	log := h.log
	for _, a := range attrs {
		log = log.WithField(a.Key, a.Value.Any())
	}
	return &logHandler{log}
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }
