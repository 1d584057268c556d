package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// vethPeer is VETH_INFO_PEER of linux/veth.h: the other end, described as a link of its own.
const vethPeer = 1

const (
	replyTimeout = 5 * time.Second
	replyBuffer  = 64 << 10 // bytes; the kernel sends at most 32 KiB at once
	maxReplies   = 1 << 20  // messages of one dump
)

// rtnetlink speaks rtnetlink(7) with the namespace that it was opened in, whichever thread calls it.
type rtnetlink struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

func openNetlink() (*rtnetlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(int64(replyTimeout))
	if err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &rtnetlink{fd: fd, buf: make([]byte, replyBuffer)}, nil
}

func (r *rtnetlink) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return nil
	}
	err := unix.Close(r.fd)
	r.fd = -1
	return err
}

// ask sends one request and returns the bodies of its replies once the kernel has acknowledged it.
func (r *rtnetlink) ask(kind, flags uint16, parts ...[]byte) ([][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return nil, os.ErrClosed
	}
	r.seq++
	if err := unix.Sendto(r.fd, request(kind, flags, r.seq, parts...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("send to netlink", err)
	}
	var bodies [][]byte
	deadline := time.Now().Add(replyTimeout) // a socket's own bound is for one message, and starts anew with each
	for time.Now().Before(deadline) {
		n, from, err := unix.Recvfrom(r.fd, r.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, os.NewSyscallError("receive from netlink", err)
		case n > len(r.buf):
			return nil, fmt.Errorf("a netlink message of %d bytes, at most %d are possible", n, len(r.buf))
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // any process may send to any netlink socket; only the kernel has pid 0
		}
		more, done, err := replies(r.buf[:n], r.seq)
		for _, body := range more {
			bodies = append(bodies, append([]byte(nil), body...))
		}
		switch {
		case done, err != nil:
			return bodies, err
		case len(bodies) > maxReplies:
			return nil, fmt.Errorf("netlink answers with more than %d messages", maxReplies)
		}
	}
	return nil, fmt.Errorf("netlink did not answer within %s", replyTimeout)
}

// request is one message with its header: parts are the family's own header and then attributes.
func request(kind, flags uint16, seq uint32, parts ...[]byte) []byte {
	b := pack(unix.NlMsghdr{Type: kind, Flags: flags | unix.NLM_F_REQUEST | unix.NLM_F_ACK, Seq: seq})
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

// replies takes one datagram of the kernel's apart: the bodies of the messages that answer request seq, whether it is
// answered in full, and the error that the kernel reports.
func replies(b []byte, seq uint32) (bodies [][]byte, done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		number := binary.NativeEndian.Uint32(b[8:])
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return bodies, false, fmt.Errorf("a netlink message says that it has %d bytes, %d are there", size, len(b))
		}
		body := b[unix.NLMSG_HDRLEN:size]
		b = b[min(aligned(size), len(b)):]
		if number != seq {
			continue // of a request that was given up
		}
		switch kind {
		case unix.NLMSG_ERROR, unix.NLMSG_DONE:
			if len(body) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(body)); code < 0 {
					return bodies, true, unix.Errno(-code)
				}
			}
			return bodies, true, nil
		default:
			bodies = append(bodies, body)
		}
	}
	return bodies, false, nil
}

// attributes walks over the attributes in b, and stops at the first that makes no sense.
func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:size])
		b = b[min(aligned(size), len(b)):]
	}
}

func aligned(size int) int { return (size + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// pack encodes a fixed-size structure in the machine's byte order, as netlink wants it.
func pack(v any) []byte {
	b, err := binary.Append(nil, binary.NativeEndian, v)
	if err != nil {
		panic(err) // only what has no fixed size, which is a mistake in this file
	}
	return b
}

func attribute(kind uint16, parts ...[]byte) []byte {
	b := make([]byte, unix.SizeofRtAttr)
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.NativeEndian.PutUint16(b, uint16(len(b)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	return append(b, make([]byte, aligned(len(b))-len(b))...)
}

func text(kind uint16, s string) []byte          { return attribute(kind, []byte(s), []byte{0}) }
func number(kind uint16, v int) []byte           { return attribute(kind, pack(uint32(v))) }
func address(kind uint16, a netip.Addr) []byte   { return attribute(kind, a.AsSlice()) }
func nested(kind uint16, parts ...[]byte) []byte { return attribute(kind|unix.NLA_F_NESTED, parts...) }

// end is one end of a veth pair: its name, and the namespace it is to be in.
type end struct {
	name  string
	space int // file descriptor; 0: the socket's own
}

func (e end) attributes() []byte {
	b := append(text(unix.IFLA_IFNAME, e.name), number(unix.IFLA_MTU, mtu)...)
	if e.space != 0 {
		b = append(b, number(unix.IFLA_NET_NS_FD, e.space)...)
	}
	return b
}

// addVeth makes a pair of interfaces that are one cable's two ends: what goes into one comes out of the other.
func (r *rtnetlink) addVeth(here, there end) error {
	info := nested(unix.IFLA_LINKINFO,
		text(unix.IFLA_INFO_KIND, "veth"),
		nested(unix.IFLA_INFO_DATA, nested(vethPeer, pack(unix.IfInfomsg{}), there.attributes())),
	)
	_, err := r.ask(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, pack(unix.IfInfomsg{}), here.attributes(), info)
	if err != nil {
		return explain("make interface "+here.name, err)
	}
	return nil
}

// up brings an interface up; attributes are set with it.
func (r *rtnetlink) up(index int, attributes ...[]byte) error {
	msg := pack(unix.IfInfomsg{Index: int32(index), Flags: unix.IFF_UP, Change: unix.IFF_UP})
	_, err := r.ask(unix.RTM_NEWLINK, 0, append([][]byte{msg}, attributes...)...)
	if err != nil {
		return fmt.Errorf("bring interface %d up: %w", index, err)
	}
	return nil
}

// remove deletes an interface; one that is not there is no error.
func (r *rtnetlink) remove(name string) error {
	_, err := r.ask(unix.RTM_DELLINK, 0, pack(unix.IfInfomsg{}), text(unix.IFLA_IFNAME, name))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}

// interfaceState is what the kernel says of an interface.
type interfaceState struct {
	index                int
	received, sent       uint64 // packets
	receivedBy, sentBy   uint64 // bytes
	droppedIn, droppedTo uint64 // packets that came in, or were to go out, and had no room
}

func (r *rtnetlink) find(name string) (interfaceState, error) {
	bodies, err := r.ask(unix.RTM_GETLINK, 0, pack(unix.IfInfomsg{}), text(unix.IFLA_IFNAME, name))
	if err == nil && len(bodies) != 1 {
		err = fmt.Errorf("%d answers", len(bodies))
	}
	var s interfaceState
	if err == nil {
		s, err = readInterface(bodies[0])
	}
	if err != nil {
		return interfaceState{}, fmt.Errorf("find interface %s: %w", name, err)
	}
	return s, nil
}

// readInterface reads the answer to RTM_GETLINK; see struct rtnl_link_stats64 of linux/if_link.h.
func readInterface(b []byte) (interfaceState, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return interfaceState{}, fmt.Errorf("an interface in %d bytes", len(b))
	}
	s := interfaceState{index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	attributes(b[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
		if kind == unix.IFLA_STATS64 && len(value) >= 8*8 {
			field := func(i int) uint64 { return binary.NativeEndian.Uint64(value[8*i:]) }
			s.received, s.sent, s.receivedBy, s.sentBy, s.droppedIn, s.droppedTo = field(0), field(1), field(2), field(3), field(6), field(7)
		}
	})
	if s.index <= 0 {
		return interfaceState{}, fmt.Errorf("an interface with index %d", s.index)
	}
	return s, nil
}

// addAddress gives an interface an address that has no network of its own.
func (r *rtnetlink) addAddress(index int, a netip.Addr) error {
	_, err := r.ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		pack(unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: 32, Index: uint32(index)}),
		address(unix.IFA_LOCAL, a), address(unix.IFA_ADDRESS, a))
	if err != nil {
		return fmt.Errorf("give address %s to interface %d: %w", a, index, err)
	}
	return nil
}

// route is a way to a prefix.
type route struct {
	to    netip.Prefix
	via   netip.Addr // next hop; not valid: to is on the interface itself
	on    int        // interface
	from  netip.Addr // that packets of unbound sockets bear; not valid: the interface's
	local bool       // to is this namespace's own, every address of it (AnyIP)
}

// addRoute adds a route; one to the same prefix that is already there is unix.EEXIST.
func (r *rtnetlink) addRoute(w route) error {
	msg := unix.RtMsg{
		Family: unix.AF_INET, Dst_len: uint8(w.to.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST,
	}
	parts := [][]byte{nil, number(unix.RTA_OIF, w.on), address(unix.RTA_DST, w.to.Addr())}
	switch {
	case w.local:
		msg.Table, msg.Scope, msg.Type = unix.RT_TABLE_LOCAL, unix.RT_SCOPE_HOST, unix.RTN_LOCAL
	case w.via.IsValid():
		msg.Scope, msg.Flags = unix.RT_SCOPE_UNIVERSE, unix.RTNH_F_ONLINK
		parts = append(parts, address(unix.RTA_GATEWAY, w.via))
	}
	if w.from.IsValid() {
		parts = append(parts, address(unix.RTA_PREFSRC, w.from))
	}
	parts[0] = pack(msg)
	if _, err := r.ask(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...); err != nil {
		return fmt.Errorf("add a route to %s: %w", w.to, err)
	}
	return nil
}

// routes lists the IPv4 prefixes that the namespace has a route to, its own addresses among them, bar the default.
func (r *rtnetlink) routes() ([]netip.Prefix, error) {
	bodies, err := r.ask(unix.RTM_GETROUTE, unix.NLM_F_DUMP, pack(unix.RtMsg{Family: unix.AF_INET}))
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var all []netip.Prefix
	for _, b := range bodies {
		if p, ok := readRoute(b); ok && p.Bits() > 0 {
			all = append(all, p)
		}
	}
	return all, nil
}

// readRoute reads where a route of RTM_GETROUTE leads; false: not to IPv4 addresses.
func readRoute(b []byte) (netip.Prefix, bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET || b[1] > 32 {
		return netip.Prefix{}, false
	}
	to := netip.IPv4Unspecified() // a default route has no destination
	attributes(b[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		if kind == unix.RTA_DST && len(value) == 4 {
			to = netip.AddrFrom4([4]byte(value))
		}
	})
	return netip.PrefixFrom(to, int(b[1])), true
}
