package catalogue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos/media"
)

const (
	// askEvery is how often a part's user asks, out of step with everybody else, and askWait how long they wait.
	askEvery = 170 * time.Millisecond
	askWait  = 500 * time.Millisecond
	// calming is how long a part may take until its user gets what they got before.
	calming = 1500 * time.Millisecond
	// tolerance is how far from its baseline a figure may be when the fault is over.
	tolerance = 0.05
	// enough requests that a figure says something: one of them is worth less than the tolerance.
	enough = 21
)

// ask is one request of a part's user. An error says what was wrong with what they got; errUnknown, that it cannot be told.
type ask func(ctx context.Context) error

var errUnknown = errors.New("cannot be told")

// figure is what a part is worth to a steady user of it: the share of requests that were answered well.
type figure struct {
	mu      sync.Mutex
	samples []asked
}

type asked struct {
	start, end time.Time
	err        error
}

// watch asks until ctx ends.
func (f *figure) watch(ctx context.Context, a ask) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		s := asked{start: time.Now()}
		each, cancel := context.WithTimeout(ctx, askWait)
		s.err = a(each)
		cancel()
		s.end = time.Now()
		if ctx.Err() == nil && !errors.Is(s.err, errUnknown) {
			f.mu.Lock()
			f.samples = append(f.samples, s)
			f.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// share is the figure between two moments, of how many requests, and what was wrong first.
func (f *figure) share(from, to time.Time) (share float64, n int, wrong error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	good := 0
	for _, s := range f.samples {
		if s.start.Before(from) || s.end.After(to) {
			continue
		}
		n++
		if s.err == nil {
			good++
		} else if wrong == nil {
			wrong = s.err
		}
	}
	if n > 0 {
		share = float64(good) / float64(n)
	}
	return share, n, wrong
}

// fetch asks for a URL over a connection of its own, so that nothing of before helps.
func fetch(ctx context.Context, method, url string, sent ...byte) (http.Header, []byte, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(sent))
	if err != nil {
		return nil, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return resp.Header, body, err
}

// copies are segments as they should be.
type copies struct {
	layout media.Layout

	mu   sync.Mutex
	held map[string][]byte
}

func (c *copies) get(ctx context.Context, base, path string) ([]byte, error) {
	c.mu.Lock()
	b, ok := c.held[base+path]
	c.mu.Unlock()
	if ok {
		return b, nil
	}
	_, b, err := fetch(ctx, http.MethodGet, base+path)
	if err != nil {
		return nil, fmt.Errorf("%w: the copy: %w", errUnknown, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = map[string][]byte{}
	}
	c.held[base+path] = b
	return b, nil
}

// newest is the path of the segment before the newest one of a rung: that one may be on its way still.
func (c *copies) newest(rung string) string {
	n, _ := c.layout.Newest(time.Now())
	path, _ := c.layout.Path(rung, n-1)
	return path
}

// segment asks for the newest segment of a rung, which is to be as the calm region has it.
func (s *system) segment(where, rung string) ask {
	at, copied := s.part(where), s.part(calm+"/packager")
	return func(ctx context.Context) error {
		path := s.copies.newest(rung)
		want, err := s.copies.get(ctx, copied.URL, path)
		if err != nil {
			return err
		}
		_, got, err := fetch(ctx, http.MethodGet, at.URL+path)
		if err == nil && !bytes.Equal(got, want) {
			err = errors.New("another segment than elsewhere")
		}
		return err
	}
}

// page asks for something that is always the same.
func page(url string) ask {
	var mu sync.Mutex
	var first []byte
	return func(ctx context.Context) error {
		_, got, err := fetch(ctx, http.MethodGet, url)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = got
		}
		if !bytes.Equal(got, first) {
			return errors.New("another answer than before")
		}
		return nil
	}
}

// asked is a viewer's request to a playback service.
func (s *system) asked(where, endpoint string) ask {
	at := s.part(where)
	a := at.Asks(endpoint, time.Now())
	return func(ctx context.Context) error {
		_, _, err := fetch(ctx, a.Method, at.URL+a.Path, a.Body...)
		return err
	}
}

// made asks whether a packager has the newest segment.
func (s *system) made(where string) ask {
	at := s.part(where)
	return func(ctx context.Context) error {
		_, _, err := fetch(ctx, http.MethodHead, at.URL+s.copies.newest("a-en"))
		return err
	}
}

// offered asks whether an origin has the newest segment of a region's own.
func (s *system) offered(where, region string) ask {
	at := s.part(where)
	return func(ctx context.Context) error {
		h, _, err := fetch(ctx, http.MethodHead, at.URL+s.copies.newest("a-en"))
		if err == nil && !slices.Contains(strings.Split(h.Get("Tminus-Candidates"), ","), region) {
			err = errors.New("the origin lacks it")
		}
		return err
	}
}

// time asks a component for the time.
func (s *system) time(where string) ask {
	at := s.part(where)
	return func(ctx context.Context) error {
		_, body, err := fetch(ctx, http.MethodGet, at.URL+"/time")
		if err != nil {
			return err
		}
		told, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(body)))
		if off := time.Since(told).Abs(); err == nil && off > askWait {
			err = fmt.Errorf("off by %s", off)
		}
		return err
	}
}

// cached asks whether an edge has kept what it served.
func (s *system) cached(where string) ask {
	url := s.part(where).URL + "/" + stream + "/v540/init.mp4"
	return func(ctx context.Context) error {
		h, _, err := fetch(ctx, http.MethodGet, url)
		if err == nil && h.Get("X-Cache") != "HIT" {
			err = errors.New("not from the cache")
		}
		return err
	}
}

// echo sends a datagram and wants it back, once and as it was.
func (s *system) echo(where string) ask {
	to := s.part(where).UDP[0].String()
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "udp4", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		sent := bytes.Repeat([]byte("tminus"), 40)
		if _, err := conn.Write(sent); err != nil {
			return err
		}
		buf := make([]byte, 2048)
		_ = conn.SetDeadline(deadline)
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if !bytes.Equal(buf[:n], sent) {
			return errors.New("not as it was")
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := conn.Read(buf); err == nil {
			return errors.New("twice")
		}
		return nil
	}
}

// resolved asks a resolver for the address of title.
func (s *system) resolved(where string) ask {
	to := s.part(where).DNS.Addr().String()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp4", to)
	}}
	return func(ctx context.Context) error {
		got, err := resolver.LookupNetIP(ctx, "ip4", title+".")
		if want := netip.AddrFrom4(titleAddr); err == nil && (len(got) != 1 || got[0] != want) {
			err = fmt.Errorf("%v rather than %v", got, want)
		}
		return err
	}
}

// broker asks a broker which requests it knows (ApiVersions, version 0).
func (s *system) broker(where string) ask {
	to := s.part(where).Addrs[0].String()
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		_ = conn.SetDeadline(deadline)
		const asked = 7
		if _, err := conn.Write([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, asked, 0xff, 0xff}); err != nil {
			return err
		}
		var head [8]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(head[4:]) != asked {
			return errors.New("an answer to something else")
		}
		return nil
	}
}

// together asks an edge for as much as a player that begins does: several things at once.
func (s *system) together(where string) ask {
	var each []ask
	for _, rung := range []string{"v360", "v540", "a-en", "a-es"} {
		each = append(each, page(s.part(where).URL+"/"+stream+"/"+rung+"/init.mp4"))
	}
	return func(ctx context.Context) error {
		errs := make([]error, len(each))
		var asking sync.WaitGroup
		for i, a := range each {
			asking.Go(func() { errs[i] = a(ctx) })
		}
		asking.Wait()
		return errors.Join(errs...)
	}
}
