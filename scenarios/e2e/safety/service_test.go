package safety

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const envService = "SAFETY_SERVICE" // set: this process is a service to be broken

// attributes are those of a process that ends with this one.
func (u user) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if u != self {
		a.Credential = &syscall.Credential{Uid: u.uid, Gid: u.gid}
	}
	return a
}

// serve is a small live stream over HTTP, and an echo of datagrams at the same port.
func serve() int {
	ln, packets, err := listen()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go echo(packets)
	http.HandleFunc("GET /live/{name}", func(w http.ResponseWriter, r *http.Request) {
		if rung, ok := strings.CutSuffix(r.PathValue("name"), ".m3u8"); ok {
			newest := time.Now().Unix()
			fmt.Fprintf(w, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:%d\n", newest-5)
			for n := newest - 5; n <= newest; n++ {
				fmt.Fprintf(w, "#EXTINF:1.0,\n%s-%d.m4s\n", rung, n)
			}
			return
		}
		w.Write(make([]byte, 20_000))
	})
	http.HandleFunc("POST /busy", func(http.ResponseWriter, *http.Request) { go burn(30 * time.Second) })
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "well\n") })
	fmt.Println(ln.Addr())
	fmt.Fprintln(os.Stderr, http.Serve(ln, nil))
	return 1
}

// listen takes one port for both protocols.
func listen() (ln net.Listener, packets net.PacketConn, err error) {
	for range 10 {
		if ln, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			return nil, nil, err
		}
		if packets, err = net.ListenPacket("udp4", ln.Addr().String()); err == nil {
			return ln, packets, nil
		}
		ln.Close()
	}
	return nil, nil, err
}

// burn takes a third of a processor.
func burn(long time.Duration) {
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for pause := time.Now().Add(5 * time.Millisecond); time.Now().Before(pause); {
		}
	}
}

func echo(packets net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := packets.ReadFrom(buf)
		if err != nil {
			return
		}
		packets.WriteTo(buf[:n], from)
	}
}

// service is one that runs.
type service struct {
	at  string
	pid int
}

// started starts a service in a process of its own, until the test ends.
func started(t *testing.T, as user) service { return startedIn(t, as, 0) }

// startedIn starts it in new namespaces (clone(2)).
func startedIn(t *testing.T, as user, namespaces uintptr) service {
	t.Helper()
	cmd := exec.Command(copied(t, as))
	cmd.SysProcAttr = as.attributes()
	cmd.SysProcAttr.Cloneflags = namespaces
	cmd.Env = append(os.Environ(), envService+"=yes")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the service says nothing: %v", err)
	}
	return service{strings.TrimSpace(line), cmd.Process.Pid}
}

// answers says why the service is not as it should be: over HTTP, and to datagrams.
func (s service) answers() error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + s.at + "/healthz")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	c, err := net.Dial("udp4", s.at)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	var buf [1]byte
	if _, err := c.Write(buf[:]); err != nil {
		return err
	}
	_, err = c.Read(buf[:])
	return err
}

// used asks for segments, and sends datagrams, at an address until ctx ends, whatever comes of it: what is broken is in use.
func used(ctx context.Context, at string) (ended func()) {
	var wg sync.WaitGroup
	transport := &http.Transport{MaxIdleConns: 2}
	client := http.Client{Timeout: 300 * time.Millisecond, Transport: transport}
	tick := func(do func()) {
		wg.Go(func() {
			for ctx.Err() == nil {
				do()
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	tick(func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/live/720p-%d.m4s", at, time.Now().Unix()), nil)
		if err != nil {
			return
		}
		if res, err := client.Do(req); err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	})
	tick(func() {
		if c, err := net.Dial("udp4", at); err == nil {
			c.Write(make([]byte, 1000))
			c.Close()
		}
	})
	return func() {
		wg.Wait()
		transport.CloseIdleConnections()
	}
}

// free is an address that nobody has.
func free(t *testing.T) string {
	t.Helper()
	ln, packets, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	packets.Close()
	return ln.Addr().String()
}
