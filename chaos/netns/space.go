package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/watchdog"
)

// leaveWait bounds the wait for a function that runs in a namespace that is to go.
const leaveWait = 5 * time.Second

var errLeft = errors.New("the namespace is closed")

// space is one network namespace: held by a file descriptor and by one thread that lives in it. Both end with this process.
type space struct {
	fd      int // of the namespace
	netlink *rtnetlink
	named   string // file that gives it a name; "": it has none

	calls chan func()
	stop  chan struct{}
	gone  chan struct{} // closed when the thread runs nothing any more
}

// newSpace makes an empty namespace, with its loopback up.
func newSpace() (*space, error) {
	s := &space{fd: -1, calls: make(chan func()), stop: make(chan struct{}), gone: make(chan struct{})}
	made := make(chan error)
	onOwnThread(func() { s.live(made) })
	if err := <-made; err != nil {
		<-s.gone
		return nil, err
	}
	return s, nil
}

// onOwnThread runs f on a thread that ends with it. It is never the process's first thread: that one cannot end, and its
// namespace is what the rest of the system takes the process's to be.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return // locked still: the runtime ends the thread
		}
		placed := make(chan struct{})
		go func() {
			runtime.LockOSThread() // another one: the first is held until here
			close(placed)
			f()
		}()
		<-placed
		runtime.UnlockOSThread()
	}()
}

// live enters a namespace of its own and runs what it is given there.
func (s *space) live(made chan<- error) {
	defer close(s.gone)
	if err := s.enter(); err != nil {
		if s.fd >= 0 {
			unix.Close(s.fd)
		}
		made <- err
		return
	}
	made <- nil
	for {
		select {
		case f := <-s.calls:
			f()
		case <-s.stop:
			return
		}
	}
}

const ownSpace = "/proc/thread-self/ns/net"

func (s *space) enter() (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return explain("make a network namespace", err)
	}
	if s.fd, err = unix.Open(ownSpace, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("hold the network namespace: %w", err)
	}
	if s.netlink, err = openNetlink(); err != nil {
		return err
	}
	lo, err := s.netlink.find("lo")
	if err == nil {
		err = s.netlink.up(lo.index)
	}
	if err == nil {
		err = quiet()
	}
	if err != nil {
		s.netlink.close()
	}
	return err
}

// do runs f on the namespace's thread: sockets it opens and processes it forks are in the namespace. One at a time.
func (s *space) do(f func() error) error {
	answer := make(chan error, 1)
	select {
	case s.calls <- func() { answer <- f() }:
	case <-s.gone:
		return errLeft
	}
	select {
	case err := <-answer:
		return err
	case <-s.gone: // f ended its goroutine, or the last thing the thread did was to answer
		select {
		case err := <-answer:
			return err
		default:
			return errLeft
		}
	}
}

// publish gives the namespace a name, as ip-netns(8) does, so that people can look into it. A name outlives this process.
func (s *space) publish(name string) error {
	if err := os.MkdirAll(watchdog.NamespaceDir, 0o755); err != nil {
		return fmt.Errorf("make room for names of namespaces: %w", err)
	}
	path := filepath.Join(watchdog.NamespaceDir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("name a namespace: %w", err)
	}
	f.Close()
	s.named = path
	return s.do(func() error {
		if err := unix.Mount(ownSpace, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("name namespace %s: %w", name, err)
		}
		return nil
	})
}

// close gives up the name, the thread and the descriptor. The kernel removes the namespace, and all there is in it, once
// no process is in it.
func (s *space) close() error {
	var errs []error
	if s.named != "" {
		if err := unix.Unmount(s.named, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("take the name %s off: %w", filepath.Base(s.named), err))
		}
		if err := os.Remove(s.named); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("take a namespace's name off: %w", err))
		}
	}
	close(s.stop)
	wait := time.NewTimer(leaveWait)
	defer wait.Stop()
	select {
	case <-s.gone:
	case <-wait.C:
		errs = append(errs, fmt.Errorf("a function still runs in the namespace after %s", leaveWait))
	}
	return errors.Join(append(errs, s.netlink.close(), unix.Close(s.fd))...)
}

// setting is a file below /proc/sys/net, which shows each thread its own namespace's.
type setting struct{ name, value string }

func (s setting) write() error {
	err := os.WriteFile("/proc/sys/net/"+s.name, []byte(s.value), 0)
	if err != nil {
		return fmt.Errorf("set net/%s: %w", s.name, err)
	}
	return nil
}

// quiet keeps the calling thread's namespace to IPv4, whose every packet has been sent by somebody.
func quiet() error {
	for _, which := range []string{"all", "default"} {
		err := setting{"ipv6/conf/" + which + "/disable_ipv6", "1"}.write()
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 is quiet
			return err
		}
		// New namespaces begin with the machine's, which may be strict: here packets come back from a wire.
		if err := (setting{"ipv4/conf/" + which + "/rp_filter", "0"}).write(); err != nil {
			return err
		}
	}
	return nil
}

// plain turns off what makes several packets one, or leaves their checksums to hardware that is not there: on this interface
// a packet is a packet of at most the MTU, and one with a flipped bit is found out by whoever receives it. The
// interface is in the calling thread's namespace.
func plain(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	for _, command := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO, unix.ETHTOOL_STXCSUM} {
		value := struct{ command, data uint32 }{command, 0} // struct ethtool_value
		request := struct {                                 // struct ifreq
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:unix.IFNAMSIZ-1], name)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("turn off offloads of %s: %w", name, errno)
		}
	}
	return nil
}
