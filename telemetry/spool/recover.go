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
	Closed bool // it ended in order; otherwise it lives, or was killed, and what was in its memory is unknown
}

// Ledger lists the sources that have a spool in dir, by name, and counts what each has appended. It may be called at any
// time, by any process: it locks nothing.
func Ledger(dir string) ([]Account, error) { return accounts(dir, true) }

// Peek adds up what the processes of a run have noted of themselves, a few milliseconds ago while they live. It reads one
// record a source, so that it can be asked often: for pictures, not for judging. A killed process may have appended more.
func Peek(dir, run string) (Counts, error) {
	noted, err := accounts(dir, false)
	return Total(noted, run), err
}

func accounts(dir string, exact bool) ([]Account, error) {
	paths, err := stateFiles(dir)
	if err != nil {
		return nil, err
	}
	accounts := make([]Account, 0, len(paths))
	var bad []error
	for _, path := range paths {
		s, err := look(path, exact)
		if errors.Is(err, errUnborn) {
			continue
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("telemetry spool: %w", err))
			continue
		}
		accounts = append(accounts, Account{
			Run: s.Run, Source: s.Source, Closed: s.Closed,
			Counts: Counts{Emitted: s.Written.Lines, Acked: s.Acked.Lines, Dropped: s.Dropped},
		})
	}
	slices.SortFunc(accounts, func(a, b Account) int { return strings.Compare(a.Source, b.Source) })
	return accounts, errors.Join(bad...)
}

// look reads a source's record beside whoever may be writing it; exact counts also what was appended after it was noted.
func look(path string, exact bool) (s state, err error) {
	f, err := openState(path, os.O_RDONLY)
	if err != nil {
		return s, err
	}
	defer f.Close()
	if s, err = readState(f); err != nil || !exact {
		return s, err
	}
	end, err := scan(strings.TrimSuffix(path, stateSuffix), s.Written)
	if err != nil {
		return s, err
	}
	// A segment that went away meanwhile was noted before: the record knows of it by now.
	if s, err = readState(f); err != nil {
		return s, err
	}
	if end.Lines > s.Written.Lines {
		s.Written = end
	}
	return s, nil
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

// Recover ships what dead processes left unacknowledged in dir, and returns how many events it shipped; spools that are
// held for a second on end are their living processes', and are left to them. A torn last event, which a killed process
// was writing, is not an emitted event. When a source cannot be shipped the others are still tried; a Kafka that holds
// back is waited for until ctx ends.
func Recover(ctx context.Context, dir string, p Publisher) (shipped uint64, err error) {
	paths, err := stateFiles(dir)
	if err != nil {
		return 0, err
	}
	patience, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	var bad []error
	for {
		var held []string
		for _, path := range paths {
			n, err := recoverOne(ctx, path, p)
			shipped += n
			switch {
			case errors.Is(err, errHeld):
				held = append(held, path)
			case err != nil:
				bad = append(bad, err)
			}
		}
		if paths = held; len(paths) == 0 || !pause(patience, lockEvery) {
			return shipped, errors.Join(bad...)
		}
	}
}

var errHeld = errors.New("another process holds the spool")

func recoverOne(ctx context.Context, path string, p Publisher) (shipped uint64, err error) {
	f, err := openState(path, os.O_RDWR)
	if err != nil {
		return 0, fmt.Errorf("telemetry spool: %w", err)
	}
	defer f.Close() // and with it the lock
	free, err := tryLock(f)
	if err != nil {
		return 0, fmt.Errorf("telemetry spool: %w", err)
	}
	if !free {
		return 0, errHeld
	}
	s, err := readState(f)
	if errors.Is(err, errUnborn) {
		return 0, nil
	}
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
		if heldBack(err) && pause(ctx, retryFirst) {
			continue
		}
		if err != nil {
			return shipped, fmt.Errorf("%d events of %s are still in its telemetry spool: %w", s.Written.Lines-s.Acked.Lines, s.Source, err)
		}
		shipped += next.Lines - s.Acked.Lines
		done := s.Acked.Segment
		s.Acked = next
		if err := save(); err != nil {
			return shipped, err
		}
		for ; done < next.Segment; done++ { // a long backlog need not stay on the disk to its end
			if err := os.Remove(segmentPath(base, done)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return shipped, fmt.Errorf("telemetry spool: %w", err)
			}
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
