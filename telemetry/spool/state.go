package spool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	stateSuffix = ".state"
	// stateSize keeps the record within one page, so that a process killed while writing it leaves the old or the new
	// one, and needs no new disk block when the disk is full.
	stateSize = 2048
	maxSource = 100
)

// position is a place in a source's events: Lines whole events come before it.
type position struct {
	Segment int    `json:"segment"`
	Offset  int64  `json:"offset"`
	Lines   uint64 `json:"lines"`
}

// state is the record in the .state file.
type state struct {
	Run     string   `json:"run"`
	Source  string   `json:"source"`
	Written position `json:"written"` // appended at least up to here; a killed process may have got further
	Acked   position `json:"acked"`
	Dropped uint64   `json:"dropped"`
	Closed  bool     `json:"closed"` // ended in order: nothing was left in memory
}

func (s *state) encode() ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	b := fmt.Appendf(nil, "%08x ", crc32.ChecksumIEEE(body))
	b = append(b, body...)
	if len(b) >= stateSize {
		return nil, fmt.Errorf("the names of run and source are too long")
	}
	b = append(b, bytes.Repeat([]byte{' '}, stateSize-len(b))...)
	b[stateSize-1] = '\n'
	return b, nil
}

var (
	errState = errors.New("not a spool's state")
	// errUnborn: nothing is noted yet, and so nothing was emitted.
	errUnborn = errors.New("the spool is being made")
)

func decodeState(b []byte) (s state, err error) {
	if len(b) != stateSize {
		return s, errState
	}
	var sum uint32
	if _, err := fmt.Sscanf(string(b[:8]), "%08x", &sum); err != nil {
		return s, errState
	}
	body := bytes.TrimRight(b[9:], " \n")
	if crc32.ChecksumIEEE(body) != sum {
		return s, errState
	}
	if err := json.Unmarshal(body, &s); err != nil || s.Acked.Offset < 0 || s.Written.Offset < 0 || s.Acked.Segment < 0 || s.Written.Segment < 0 {
		return s, errState
	}
	return s, nil
}

func readState(f *os.File) (s state, err error) {
	b := make([]byte, stateSize)
	for range 5 { // a reader beside the writer may see half of each record
		n, rerr := f.ReadAt(b, 0)
		if rerr != nil && rerr != io.EOF {
			return s, rerr
		}
		if n == 0 {
			return s, errUnborn
		}
		if s, err = decodeState(b[:n]); err == nil {
			return s, nil
		}
	}
	return s, fmt.Errorf("%s: %w", f.Name(), err)
}

// base is the path of a source's files without their suffix.
func base(dir, source string) string { return filepath.Join(dir, url.PathEscape(source)) }

func segmentPath(base string, n int) string { return fmt.Sprintf("%s.%06d.ndjson", base, n) }

// openState is replaced by a test that takes the lock first.
var openState = func(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, flags, 0o644)
}

// tryLock takes the lock of a state file; false where a living process has it.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// stateFiles lists the state files of a folder; none where the folder is missing.
func stateFiles(dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("telemetry spool: %w", err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), stateSuffix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// scan goes on from a position to the end of the last whole event.
func scan(base string, from position) (to position, err error) {
	to = from
	buf := make([]byte, 256<<10)
	for {
		f, err := os.Open(segmentPath(base, to.Segment))
		if errors.Is(err, fs.ErrNotExist) {
			return to, nil // everything up to here is acknowledged and gone, or nothing was written yet
		}
		if err != nil {
			return to, err
		}
		offset := to.Offset
		for {
			n, err := f.ReadAt(buf, offset)
			if last := bytes.LastIndexByte(buf[:n], '\n'); last >= 0 {
				to.Lines += uint64(bytes.Count(buf[:last+1], []byte{'\n'}))
				to.Offset = offset + int64(last) + 1
			}
			offset += int64(n)
			if err == io.EOF {
				break
			}
			if err != nil {
				f.Close()
				return to, err
			}
		}
		f.Close()
		if _, err := os.Stat(segmentPath(base, to.Segment+1)); err != nil {
			return to, nil
		}
		to.Segment, to.Offset = to.Segment+1, 0
	}
}
