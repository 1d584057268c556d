package watchdog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	journalVersion = 1
	journalSuffix  = ".journal"

	maxOpen    = 10_000   // entries open at a time
	maxJournal = 16 << 20 // bytes of a journal
	maxLine    = 64 << 10 // bytes of one of its lines: four texts, escaped
	compactAt  = 1 << 20  // bytes from which a journal that has nothing open is cut back
)

var (
	errFull = errors.New("the journal is full")
	errTorn = errors.New("the journal makes no sense")
)

// header is a journal's first line: whose it is.
type header struct {
	Version int    `json:"tminus_journal"`
	Run     string `json:"run,omitempty"`
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"`
	Boot    string `json:"boot"`          // pids, namespaces and interfaces do not outlive a boot; files do
	Space   string `json:"pid_namespace"` // pids of another pid namespace say nothing here
}

// line is any other line of a journal: an entry that is protected from now on, or one that is no more.
type line struct {
	Protect Token  `json:"protect,omitempty"`
	Entry   *Entry `json:"entry,omitempty"`
	Release Token  `json:"release,omitempty"`
}

// open is an entry that has not been released.
type open struct {
	token Token
	entry Entry
}

// parse reads a journal: whose it is and what is open, oldest first. What a crash left of a last line counts for nothing:
// nobody was told that it was written. An error comes with the entries that were read before it.
func parse(r io.Reader) (header, []open, error) {
	var h header
	var entries []open
	lines := bufio.NewReaderSize(io.LimitReader(r, maxJournal+1), maxLine)
	read := 0
	for first := true; ; first = false {
		text, err := lines.ReadSlice('\n')
		read += len(text)
		switch {
		case read > maxJournal:
			return h, entries, fmt.Errorf("%w: it is larger than %d bytes", errTorn, maxJournal)
		case errors.Is(err, io.EOF):
			if first {
				return h, nil, fmt.Errorf("%w: it has no first line", errTorn)
			}
			return h, entries, nil
		case err != nil:
			return h, entries, fmt.Errorf("%w: %w", errTorn, err)
		}
		if first {
			if err := json.Unmarshal(text, &h); err != nil || h.Version != journalVersion || h.PID < 1 || h.Start == 0 {
				return header{}, nil, fmt.Errorf("%w: its first line is %.80q", errTorn, bytes.TrimSpace(text))
			}
			continue
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return h, entries, fmt.Errorf("%w: %w", errTorn, err)
		}
		switch {
		case l.Protect != 0 && l.Entry != nil && l.Release == 0:
			if err := l.Entry.Validate(); err != nil {
				return h, entries, fmt.Errorf("%w: %w", errTorn, err)
			}
			if len(entries) == maxOpen {
				return h, entries, fmt.Errorf("%w: more than %d entries are open", errTorn, maxOpen)
			}
			entries = append(entries, open{l.Protect, *l.Entry})
		case l.Release != 0 && l.Protect == 0 && l.Entry == nil:
			entries = slices.DeleteFunc(entries, func(o open) bool { return o.token == l.Release })
		default:
			return h, entries, fmt.Errorf("%w: a line is %.80q", errTorn, bytes.TrimSpace(text))
		}
	}
}

// journal is one that is being written.
type journal struct {
	path string

	mu      sync.Mutex
	file    *os.File
	head    int64 // bytes of the first line
	size    int64
	last    Token
	open    []open
	written error // a write that failed: what is on disk is not known any more
}

// createJournal makes a journal, at the first of dirs that will do.
func createJournal(dirs []string, h header) (path string, file *os.File, err error) {
	text, err := json.Marshal(h)
	if err != nil {
		return "", nil, err
	}
	var errs []error
	for _, dir := range dirs {
		if file, err = createIn(dir, h, append(text, '\n')); err == nil {
			return file.Name(), file, nil
		}
		errs = append(errs, err)
	}
	return "", nil, fmt.Errorf("there is no place for a journal: %w", errors.Join(errs...))
}

func createIn(dir string, h header, text []byte) (file *os.File, err error) {
	// Another run's end removes an empty folder: it may go between making it and using it.
	for range 10 {
		if err = makePrivate(dir); err != nil {
			return nil, err
		}
		// The name says whose it is even before the first line does.
		file, err = os.CreateTemp(dir, fmt.Sprintf("%d-%d-*%s", h.PID, h.Start, journalSuffix))
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if _, err = file.Write(text); err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		file.Close()
		_ = removeJournal(file.Name())
		return nil, err
	}
	return file, nil
}

// openJournal opens a journal that has only its first line, to write to it.
func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return &journal{path: path, file: file, head: info.Size(), size: info.Size()}, nil
}

// write appends a line and returns when the disk has it.
func (j *journal) write(text []byte) error {
	if j.written != nil {
		return j.written
	}
	if j.size+int64(len(text)) > maxJournal {
		return fmt.Errorf("%w: %d bytes", errFull, j.size)
	}
	if _, err := j.file.WriteAt(text, j.size); err != nil {
		j.written = fmt.Errorf("write the journal: %w", err)
		return j.written
	}
	if err := j.file.Sync(); err != nil {
		j.written = fmt.Errorf("write the journal to disk: %w", err)
		return j.written
	}
	j.size += int64(len(text))
	return nil
}

func (j *journal) protect(e Entry) (Token, error) {
	if err := e.Validate(); err != nil {
		return 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.open) >= maxOpen {
		return 0, fmt.Errorf("%w: %d entries are open", errFull, len(j.open))
	}
	if len(j.open) == 0 && j.size > compactAt {
		if err := j.file.Truncate(j.head); err != nil {
			return 0, fmt.Errorf("cut the journal back: %w", err)
		}
		j.size = j.head
	}
	text, err := json.Marshal(line{Protect: j.last + 1, Entry: &e})
	if err != nil {
		return 0, err
	}
	if err := j.write(append(text, '\n')); err != nil {
		return 0, err
	}
	j.last++
	j.open = append(j.open, open{j.last, e})
	return j.last, nil
}

func (j *journal) release(t Token) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.IndexFunc(j.open, func(o open) bool { return o.token == t })
	if i < 0 {
		return nil
	}
	text, err := json.Marshal(line{Release: t})
	if err != nil {
		return err
	}
	if err := j.write(append(text, '\n')); err != nil {
		return err
	}
	j.open = slices.Delete(j.open, i, i+1)
	return nil
}

func (j *journal) entries() []open {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.open)
}

// remove takes the journal away, and its folder if nobody else's is in it.
func (j *journal) remove() error {
	j.file.Close()
	return removeJournal(j.path)
}

func removeJournal(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the journal: %w", err)
	}
	_ = unix.Rmdir(filepath.Dir(path)) // refused while there is another journal in it
	return nil
}

// owner reads whose journal it is from its name: pid and start.
func owner(name string) (pid int, start uint64, ok bool) {
	name, ok = strings.CutSuffix(filepath.Base(name), journalSuffix)
	if !ok {
		return 0, 0, false
	}
	parts := strings.SplitN(name, "-", 3)
	if len(parts) != 3 {
		return 0, 0, false
	}
	pid, err := strconv.Atoi(parts[0])
	start, err2 := strconv.ParseUint(parts[1], 10, 64)
	return pid, start, err == nil && err2 == nil && pid > 0
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open the journal's folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("write the journal's folder to disk: %w", err)
	}
	return nil
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

func pidNamespace() string {
	s, _ := os.Readlink("/proc/self/ns/pid")
	return s
}
