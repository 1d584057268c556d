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
// until the fault ends. An Injector.
type Memory struct {
	target Target
	room   int64
	guard  watchdog.Guard

	mu    sync.Mutex
	group group
}

// NewMemory makes a Memory that leaves a target with room to take so many bytes more. Those that want more wait.
func NewMemory(t Target, room int64, g watchdog.Guard) (*Memory, error) {
	if room < MinRoom {
		return nil, fmt.Errorf("%d bytes are less than the %d that can be left to %s", room, MinRoom, t.Name)
	}
	return &Memory{target: t, room: room, guard: g}, nil
}

// MemoryAble says what is lacking to limit memory here, with an error that wraps evidence.ErrUnsupported; nil: nothing.
func MemoryAble(g watchdog.Guard) error {
	if err := try(g, "memory", func(s site) []setting { return limit(s, 1<<30) }); err != nil {
		return noMemory(err)
	}
	return nil
}

func noMemory(err error) error {
	return fmt.Errorf("%w: limiting memory takes a control group with the controller memory, and %w", evidence.ErrUnsupported, err)
}

// limit are the settings of a group that may take so many bytes.
func limit(s site, room int64) []setting {
	// The kernel counts in pages.
	page := int64(os.Getpagesize())
	bytes := strconv.FormatInt(room/page*page, 10)
	if s.version == 2 {
		return []setting{{"memory.high", bytes}} // over it, processes are slowed down to a standstill
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
	if err := m.group.make(m.guard, s, "memory", m.target.Run, limit(s, m.room)); err != nil {
		return err
	}
	return m.group.move("memory", m.target)
}

// Restore lifts the limit.
func (m *Memory) Restore(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.group.remove(ctx, m.guard)
}
