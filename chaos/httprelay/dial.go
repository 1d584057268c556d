package httprelay

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dialFrom connects to an IPv4 address with a socket that in made. The socket belongs to where it was made, whoever uses it: what
// takes time, since the other side may not answer, is done outside.
func dialFrom(ctx context.Context, in func(open func() error) error, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	failed := func(call string, err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp4", Addr: net.TCPAddrFromAddrPort(to), Err: os.NewSyscallError(call, err)}
	}
	if !to.Addr().Is4() {
		return failed("socket", unix.EAFNOSUPPORT)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	fd := -1
	err = in(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return failed("socket", err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		unix.Close(fd)
		return failed("connect", err)
	}
	f := os.NewFile(uintptr(fd), addr)
	defer f.Close()
	if err := connected(ctx, f); err != nil {
		return failed("connect", err)
	}
	conn, err := net.FileConn(f) // with a descriptor of its own
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAlive(false)
	}
	return conn, nil
}

// connected waits until a connection that has been begun is there, or has failed.
func connected(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })()
	var result error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if err == nil { // not failed is not there yet
			_, err = unix.Getpeername(int(fd))
		}
		result = err
		return err != unix.ENOTCONN
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return result
}
