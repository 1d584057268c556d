package processes

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/watchdog"
)

// MinRoom is the least room to grow that a target can be left with, in bytes: a process that is moved needs some at once.
const MinRoom = 1 << 20

// Memory leaves a target's processes, all together, with so much memory beyond what they have. Reaching it, they wait
// until the fault ends, or the kernel kills one. An Injector.
type Memory struct {
	target  Target
	room    int64
	restart func(context.Context) error // the kernel kills; nil: they wait
	guard   watchdog.Guard

	mu    sync.Mutex
	how   string
	group group
}

// NewMemory makes a Memory that leaves a target with room to take so many bytes more. Those that want more wait.
func NewMemory(t Target, room int64, g watchdog.Guard) (*Memory, error) {
	if room < MinRoom {
		return nil, fmt.Errorf("%d bytes are less than the %d that can be left to %s", room, MinRoom, t.Name)
	}
	return &Memory{target: t, room: room, guard: g}, nil
}

// NewMemoryKill makes a Memory at whose limit the kernel kills a process that wants more; restart starts the target again
// when nothing of it is left. Without one it is refused: nobody would put it back.
func NewMemoryKill(t Target, room int64, restart func(context.Context) error, g watchdog.Guard) (*Memory, error) {
	if restart == nil {
		return nil, fmt.Errorf("a shortage of memory that kills processes of %s %w: nobody says how to start it again", t.Name, evidence.ErrUnsupported)
	}
	m, err := NewMemory(t, room, g)
	if err == nil {
		m.restart = restart
	}
	return m, err
}

// MemoryAble says how memory would be limited here; the error, which wraps evidence.ErrUnsupported, says what is lacking.
func MemoryAble(g watchdog.Guard) (how string, err error) {
	s, err := try(g, "memory", func(s site) []setting { return limit(s, 1<<30, false) })
	if err != nil {
		return "", noMemory(err)
	}
	return byGroup(s), nil
}

func noMemory(err error) error {
	return fmt.Errorf("%w: limiting memory takes a control group with the controller memory, and %w", evidence.ErrUnsupported, err)
}

// limit are the settings of a group that may take so many bytes.
func limit(s site, room int64, kill bool) []setting {
	// The kernel counts in pages.
	page := int64(os.Getpagesize())
	bytes := strconv.FormatInt(room/page*page, 10)
	switch {
	case s.version == 2 && kill:
		return []setting{{"memory.max", bytes}}
	case s.version == 2:
		return []setting{{"memory.high", bytes}} // over it, processes are slowed down to a standstill
	case kill:
		return []setting{{"memory.limit_in_bytes", bytes}}
	}
	return []setting{{"memory.limit_in_bytes", bytes}, {"memory.oom_control", "1"}} // 1: wait, do not kill
}

// Inject returns when the limit is in force.
func (m *Memory) Inject(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	family, err := m.target.running()
	if err != nil {
		return err
	}
	s, err := siteOf("memory", family[0].PID)
	if err != nil {
		return noMemory(err)
	}
	if err := m.group.make(m.guard, s, "memory", m.target.Run, limit(s, m.room, m.restart != nil)); err != nil {
		return err
	}
	m.how = byGroup(s)
	return m.group.move("memory", m.target)
}

// How says in words how the limit is kept; "" before Inject.
func (m *Memory) How() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.how
}

// Restore lifts the limit, and has the target started again if the kernel has killed it.
func (m *Memory) Restore(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.group.remove(ctx, m.guard); err != nil || m.restart == nil || m.how == "" {
		return err
	}
	family, err := m.target.family()
	if err != nil || len(family) > 0 {
		return err
	}
	if err := m.restart(ctx); err != nil {
		return fmt.Errorf("start %s again: %w", m.target.Name, err)
	}
	return nil
}
