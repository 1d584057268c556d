package starts

import (
	"net"
	"sync"
)

// pool keeps connections to one service. The one used last is taken first, so that what a falling rate leaves idle
// grows old at the bottom.
type pool struct {
	region string
	addr   string
	head   []byte // the request up to the value of Content-Length
	max    int

	mu     sync.Mutex
	idle   []net.Conn // guarded by mu
	closed bool       // guarded by mu
}

// take returns a kept connection, or nil.
func (p *pool) take() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	last := len(p.idle) - 1
	conn := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return conn
}

// give keeps a connection, or closes it when enough are kept.
func (p *pool) give(conn net.Conn) {
	p.mu.Lock()
	keep := !p.closed && len(p.idle) < p.max
	if keep {
		p.idle = append(p.idle, conn)
	}
	p.mu.Unlock()
	if !keep {
		conn.Close()
	}
}

// drain closes every kept connection.
func (p *pool) drain() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, conn := range idle {
		conn.Close()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drain()
}

// meter reads from a connection and bounds what it may send in one answer.
type meter struct {
	conn net.Conn
	read int
}

func (m *meter) reset(conn net.Conn) { m.conn, m.read = conn, 0 }

func (m *meter) Read(b []byte) (int, error) {
	if m.read >= maxAnswer {
		return 0, errTooLong
	}
	n, err := m.conn.Read(b)
	m.read += n
	return n, err
}
