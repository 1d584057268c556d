package netns

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	answerWait = 10 * time.Second // for a process that may have to be started first
	endWait    = 3 * time.Second
	maxWords   = 4 << 10 // bytes kept of what it says on standard error
)

// wires is this side of the process that holds packets up. It is one of its own because a wire must be on time however busy this
// one is: a goroutine that comes back from a system call waits until another one lets it run.
type wires struct {
	cmd     *exec.Cmd
	orders  *os.File
	answers *os.File
	lines   *bufio.Reader
	words   words
	ended   chan struct{} // closed when the process has ended
	err     error         // how; read after ended
}

// startWires starts the process in the hub's namespace. It ends with this one: its standard input does, and the kernel kills
// it when the thread that forked it ends.
func startWires(hub *space) (*wires, error) {
	w := &wires{ended: make(chan struct{})}
	in, orders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	answers, out, err := os.Pipe()
	if err != nil {
		orders.Close()
		return nil, err
	}
	defer out.Close()
	w.orders, w.answers, w.lines = orders, answers, bufio.NewReaderSize(answers, maxOrder)
	w.cmd = exec.Command("/proc/self/exe", childArg)
	w.cmd.Args[0] = os.Args[0]
	w.cmd.Dir = "/"
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = in, out, &w.words
	w.cmd.WaitDelay = time.Second
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // Ctrl-C is for this process to handle
	if err := hub.do(w.cmd.Start); err != nil {
		orders.Close()
		answers.Close()
		return nil, err
	}
	go func() {
		defer close(w.ended)
		w.err = w.cmd.Wait()
	}()
	return w, nil
}

// ask has the process do something. Its callers take turns.
func (w *wires) ask(o order) (answer, error) {
	line, err := json.Marshal(o)
	if err != nil {
		return answer{}, err
	}
	deadline := time.Now().Add(answerWait)
	if err := errors.Join(w.orders.SetDeadline(deadline), w.answers.SetDeadline(deadline)); err != nil {
		return answer{}, err
	}
	_, err = w.orders.Write(append(line, '\n'))
	var reply []byte
	if err == nil {
		reply, err = w.lines.ReadSlice('\n')
	}
	var a answer
	if err == nil {
		err = json.Unmarshal(reply, &a)
	}
	if err != nil {
		w.kill() // it is out of step, if it is there at all
		return answer{}, fmt.Errorf("the process that holds packets up does not answer (%w)%s; a program that uses this package calls Serve if IsChild", err, w.words.quoted())
	}
	if a.Error != "" {
		return answer{}, errors.New(a.Error)
	}
	return a, nil
}

func (w *wires) kill() {
	w.cmd.Process.Kill()
	<-w.ended
}

// close ends the process and all wires.
func (w *wires) close() error {
	w.orders.Close()
	defer w.answers.Close()
	timer := time.NewTimer(endWait)
	defer timer.Stop()
	select {
	case <-w.ended:
		return nil // what it ended with was said when it did
	case <-timer.C:
		w.kill()
		return fmt.Errorf("the process that holds packets up did not end within %s", endWait)
	}
}

// words is the beginning of what a process says.
type words struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p[:min(len(p), maxWords-w.buf.Len())])
	return len(p), nil
}

func (w *words) quoted() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text := strings.TrimSpace(w.buf.String()); text != "" {
		return ": " + text
	}
	return ""
}

var _ io.Writer = (*words)(nil)
