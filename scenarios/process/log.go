package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

const (
	tailBytes = 16 << 10 // kept in memory for quoting, whatever the file holds
	tailLines = 12       // lines quoted in an error
	tailWidth = 400      // bytes of each quoted line
)

// boundedLog writes a child's output to a file up to a limit and keeps the last of it in memory. Its Write never fails:
// a full disk must not stop the child by filling its pipe.
type boundedLog struct {
	mu      sync.Mutex
	out     io.Writer
	closer  io.Closer
	left    int64
	dropped int64
	failed  error
	tail    []byte
}

func openLog(path string, limit int64) (*boundedLog, error) {
	if path == "" {
		return &boundedLog{out: io.Discard, left: limit}, nil
	}
	// Append: a region that comes back writes on below its last incarnation's words.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &boundedLog{out: f, closer: f, left: limit}, nil
}

func (l *boundedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if extra := len(l.tail) - tailBytes; extra > 0 {
		l.tail = append(l.tail[:0], l.tail[extra:]...)
	}
	take := min(int64(len(p)), l.left)
	if l.failed != nil {
		take = 0
	}
	if take > 0 {
		n, err := l.out.Write(p[:take])
		l.left -= int64(n)
		take, l.failed = int64(n), err
	}
	l.dropped += int64(len(p)) - take
	return len(p), nil
}

// lines returns the last lines written, oldest first.
func (l *boundedLog) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimRight(string(bytes.ToValidUTF8(l.tail, []byte("?"))), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	for i, line := range lines {
		if len(line) > tailWidth {
			lines[i] = strings.ToValidUTF8(line[:tailWidth], "") + " …"
		}
	}
	return lines
}

// close ends the file; where output was left out it says how much, and keeps the last of it.
func (l *boundedLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closer == nil {
		return
	}
	if l.dropped > 0 && l.failed == nil {
		keep := l.tail[max(0, len(l.tail)-int(min(l.dropped, tailBytes))):]
		fmt.Fprintf(l.out, "\n… %d bytes left out …\n%s", l.dropped-int64(len(keep)), keep)
	}
	l.closer.Close()
	l.closer = nil
}
