package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/kafka"
	"github.com/tminus-live/tminus/telemetry/kafka/kafkatest"
)

func embedded(t testing.TB, dir, addr string) (*kafka.Embedded, func()) {
	t.Helper()
	e, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: dir, Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Run(ctx)
	}()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return e, stop
}

func client(t testing.TB, address string) *kafka.Client {
	t.Helper()
	c, err := kafka.New(kafka.Config{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func readAll(t testing.TB, c *kafka.Client, run string, since time.Time) (values map[string][]string) {
	t.Helper()
	n, err := c.Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	values = make(map[string][]string)
	for p := range n {
		offset, err := c.OffsetAt(t.Context(), p, since)
		if err != nil {
			t.Fatal(err)
		}
		for {
			messages, next, err := c.Fetch(t.Context(), run, p, offset)
			if err != nil {
				t.Fatal(err)
			}
			if next == offset {
				break
			}
			for _, m := range messages {
				if m.Run == run {
					values[m.Source] = append(values[m.Source], string(m.Value))
				} else if m.Value != nil {
					t.Errorf("the value of run %q was given to %q", m.Run, run)
				}
			}
			offset = next
		}
	}
	return values
}

func publish(t testing.TB, c *kafka.Client, run, source string, values ...string) {
	t.Helper()
	var b [][]byte
	for _, v := range values {
		b = append(b, []byte(v))
	}
	if err := c.Publish(t.Context(), run, source, b); err != nil {
		t.Fatal(err)
	}
}

func TestPublishAndFetch(t *testing.T) { testPublishAndFetch(t, embeddedAddr(t)) }

func TestPublishAndFetchThroughApacheKafka(t *testing.T) { testPublishAndFetch(t, kafkatest.Start(t)) }

func embeddedAddr(t testing.TB) string {
	e, _ := embedded(t, t.TempDir(), "127.0.0.1:0")
	return e.Addr()
}

func testPublishAndFetch(t *testing.T, address string) {
	c := client(t, address)
	if err := c.EnsureTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client(t, address).EnsureTopic(t.Context()); err != nil { // it is there
		t.Fatal(err)
	}
	before := time.Now().Add(-time.Minute)
	want := make(map[string]string)
	for i := range 10 {
		source := fmt.Sprint("source", i)
		publish(t, c, "one", source, "a", "b")
		publish(t, c, "two", source, "x")
		publish(t, c, "one", source, "c")
		want[source] = "a b c"
	}
	for _, since := range []time.Time{{}, before} {
		got := readAll(t, c, "one", since)
		for s, w := range want {
			if g := strings.Join(got[s], " "); g != w {
				t.Errorf("%s: %q, want %q", s, g, w)
			}
		}
	}
	if got := readAll(t, c, "one", time.Now().Add(time.Hour)); len(got) != 0 {
		t.Errorf("from the future: %v", got)
	}
}

// Clients come through what stands in front of the broker, and stay there: when it goes, they are cut off.
func TestBehindSomethingElse(t *testing.T) {
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	var behind string
	e, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: t.TempDir(), Addr: "127.0.0.1:0", Public: func(listening string) (string, error) {
		behind = listening
		return front.Addr().String(), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var open sync.WaitGroup
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	var mu sync.Mutex
	var conns []net.Conn
	open.Go(func() {
		for {
			in, err := front.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", behind)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			conns = append(conns, in, out)
			mu.Unlock()
			open.Go(func() { io.Copy(out, in); out.Close() })
			open.Go(func() { io.Copy(in, out); in.Close() })
		}
	})
	if e.Addr() != front.Addr().String() {
		t.Fatalf("clients are told to come to %s, want %s", e.Addr(), front.Addr())
	}
	c := client(t, e.Addr())
	if err := c.EnsureTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "run", "source", "a")
	front.Close()
	mu.Lock()
	for _, c := range conns {
		c.Close()
	}
	mu.Unlock()
	open.Wait()
	short, done := context.WithTimeout(t.Context(), 2*time.Second)
	defer done()
	if err := c.Publish(short, "run", "source", [][]byte{[]byte("b")}); err == nil {
		t.Error("published past what stands in front")
	}
}

func TestAcknowledgedSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	e, stop := embedded(t, dir, "127.0.0.1:0")
	publish(t, client(t, e.Addr()), "r", "s", "a", "b")
	stop()
	e, _ = embedded(t, dir, "127.0.0.1:0")
	if got := readAll(t, client(t, e.Addr()), "r", time.Time{}); strings.Join(got["s"], "") != "ab" {
		t.Error(got)
	}
}

func TestUnreachable(t *testing.T) {
	c := client(t, "127.0.0.1:1")
	for _, err := range []error{c.Check(t.Context()), c.EnsureTopic(t.Context())} {
		if !errors.Is(err, kafka.ErrUnreachable) || !strings.HasPrefix(err.Error(), "cannot reach Kafka at 127.0.0.1:1: ") {
			t.Error(err)
		}
	}
	if err := c.Publish(t.Context(), "r", "s", [][]byte{[]byte("a")}); err == nil {
		t.Error("published to nobody")
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := time.Now()
	err = client(t, l.Addr().String()).Check(t.Context())
	if want := "cannot reach Kafka at " + l.Addr().String() + ": no answer in time"; err == nil || err.Error() != want || time.Since(before) > 8*time.Second {
		t.Errorf("after %s: %v", time.Since(before), err)
	}
}

func TestAddressInUse(t *testing.T) {
	e, _ := embedded(t, t.TempDir(), "127.0.0.1:0")
	_, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: t.TempDir(), Addr: e.Addr()})
	if err == nil || !strings.HasPrefix(err.Error(), "the embedded Kafka cannot listen on 127.0.0.1:") {
		t.Error(err)
	}
}

func TestBadAddress(t *testing.T) {
	for _, address := range []string{"", "host", ":9092", "host:0", "host:http", "a:1,,b:2", "kafka://a:1"} {
		if _, err := kafka.New(kafka.Config{Address: address}); err == nil {
			t.Errorf("%q was taken", address)
		}
	}
}

// A broker that may hold only so much refuses, says so, and takes more once it is told what is stored; its files do not
// grow, and after a kill -9 (a copy of its folder as it stands) offsets go on from where they were.
func TestHoldsProducersBack(t *testing.T) {
	const hold = 200_000
	dir := t.TempDir()
	e, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: dir, Addr: "127.0.0.1:0", Partitions: 1, HoldBytes: hold})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() { cancel(); <-done }()
	c := client(t, e.Addr())
	random := rand.New(rand.NewPCG(1, 1))
	value := make([]byte, 50_000) // does not compress
	for i := range value {
		value[i] = byte(random.Uint32())
	}
	published := int64(0)
	for range 30 {
		refused := false
		for range 10 {
			err := c.Publish(t.Context(), "r", "s", [][]byte{value})
			var says interface{ HeldBack() bool }
			if refused = errors.Is(err, kafka.ErrHeldBack) && errors.As(err, &says) && says.HeldBack(); refused {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			published++
		}
		if !refused || e.Held() < hold || e.Held() > hold+60_000 {
			t.Fatalf("after %d messages: refused %v, %d bytes held", published, refused, e.Held())
		}
		e.Stored(0, published-1)
		for deadline := time.Now().Add(10 * time.Second); e.Held() > 60_000; { // the last message stays
			if time.Now().After(deadline) {
				t.Fatalf("%d bytes held", e.Held())
			}
			time.Sleep(time.Millisecond)
		}
	}
	size := int64(0)
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	filepath.WalkDir(killed, func(_ string, d fs.DirEntry, _ error) error {
		if info, err := d.Info(); err == nil && !d.IsDir() {
			size += info.Size()
		}
		return nil
	})
	if size > 6<<20 {
		t.Errorf("%d messages of 50 kB, all stored, take %d bytes of disk", published, size)
	}
	again, _ := embedded(t, killed, "127.0.0.1:0")
	c = client(t, again.Addr())
	publish(t, c, "r", "s", "next")
	messages, next, err := c.Fetch(t.Context(), "r", 0, published)
	if err != nil || len(messages) != 1 || messages[0].Offset != published || next != published+1 {
		t.Errorf("%d messages, next %d, %v; want one at %d", len(messages), next, err, published)
	}
}
