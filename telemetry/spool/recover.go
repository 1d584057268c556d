package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Account is what is known of one source, living or dead.
type Account struct {
	Run    string
	Source string
	Counts
	Live   bool // its process holds the spool
	Closed bool // it ended in order; a source neither live nor closed was killed, and what was in its memory is unknown
}

// Backlog is how many emitted events Kafka has not acknowledged.
func (a Account) Backlog() uint64 { return a.Emitted - a.Acked }

// Ledger lists the sources that have a spool in dir, by name. It may be called at any time, by any process.
func Ledger(dir string) ([]Account, error) {
	paths, err := stateFiles(dir)
	if err != nil {
		return nil, err
	}
	accounts := make([]Account, 0, len(paths))
	var bad []error
	for _, path := range paths {
		a, err := account(path)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		accounts = append(accounts, a)
	}
	slices.SortFunc(accounts, func(a, b Account) int { return strings.Compare(a.Source, b.Source) })
	return accounts, errors.Join(bad...)
}

func account(path string) (a Account, err error) {
	f, err := openState(path, os.O_RDWR)
	if err != nil {
		return a, fmt.Errorf("telemetry spool: %w", err)
	}
	defer f.Close() // and with it the lock
	free, err := tryLock(f)
	if err != nil {
		return a, fmt.Errorf("telemetry spool: %w", err)
	}
	s, err := readState(f)
	if err != nil {
		return a, fmt.Errorf("telemetry spool: %w", err)
	}
	if free { // a killed process may have written more than it noted
		if s.Written, err = scan(strings.TrimSuffix(path, stateSuffix), s.Written); err != nil {
			return a, fmt.Errorf("telemetry spool: %w", err)
		}
	}
	return Account{
		Run: s.Run, Source: s.Source, Live: !free, Closed: s.Closed,
		Counts: Counts{Emitted: s.Written.Lines, Acked: s.Acked.Lines, Dropped: s.Dropped},
	}, nil
}

// Total adds up the accounts of a run.
func Total(accounts []Account, run string) (c Counts) {
	for _, a := range accounts {
		if a.Run == run {
			c.Emitted += a.Emitted
			c.Acked += a.Acked
			c.Dropped += a.Dropped
		}
	}
	return c
}

// Recover ships what dead processes left unacknowledged in dir, and returns how many events it shipped; spools of
// living processes are left to them. A torn last event, which a killed process was writing, is not an emitted event.
// When a source cannot be shipped the others are still tried.
func Recover(ctx context.Context, dir string, p Publisher) (shipped uint64, err error) {
	paths, err := stateFiles(dir)
	if err != nil {
		return 0, err
	}
	var bad []error
	for _, path := range paths {
		n, err := recoverOne(ctx, path, p)
		shipped += n
		if err != nil {
			bad = append(bad, err)
		}
	}
	return shipped, errors.Join(bad...)
}

func recoverOne(ctx context.Context, path string, p Publisher) (shipped uint64, err error) {
	f, err := openState(path, os.O_RDWR)
	if err != nil {
		return 0, fmt.Errorf("telemetry spool: %w", err)
	}
	defer f.Close()
	free, err := tryLock(f)
	if err != nil {
		return 0, fmt.Errorf("telemetry spool: %w", err)
	}
	if !free {
		return 0, nil
	}
	s, err := readState(f)
	if err != nil {
		return 0, fmt.Errorf("telemetry spool: %w", err)
	}
	base := strings.TrimSuffix(path, stateSuffix)
	if s.Written, err = scan(base, s.Written); err != nil {
		return 0, fmt.Errorf("telemetry spool: %w", err)
	}
	save := func() error {
		b, err := s.encode()
		if err == nil {
			_, err = f.WriteAt(b, 0)
		}
		if err != nil {
			return fmt.Errorf("telemetry spool: %w", err)
		}
		return nil
	}
	r := reader{base: base}
	defer r.close()
	for s.Acked.Lines < s.Written.Lines {
		next, err := r.send(ctx, p, s.Run, s.Source, s.Acked, s.Written)
		if err != nil {
			return shipped, fmt.Errorf("%d events of %s are still in its telemetry spool: %w", s.Written.Lines-s.Acked.Lines, s.Source, err)
		}
		shipped += next.Lines - s.Acked.Lines
		s.Acked = next
		if err := save(); err != nil {
			return shipped, err
		}
	}
	if err := save(); err != nil {
		return shipped, err
	}
	for n := 0; n <= s.Written.Segment; n++ {
		if err := os.Remove(segmentPath(base, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return shipped, fmt.Errorf("telemetry spool: %w", err)
		}
	}
	return shipped, nil
}
