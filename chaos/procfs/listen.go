package procfs

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// What may be listened to.
const (
	TCP = "tcp" // connections
	UDP = "udp" // datagrams: who listens takes them from anybody
)

// maxTable bounds what is read of a table of sockets, in bytes.
const maxTable = 16 << 20

// listens is one line of a table of sockets.
type listens struct {
	at    netip.AddrPort
	inode string
}

// parseListening reads the sockets that listen from a table such as /proc/net/tcp or udp6 (proc_net(5)): addresses are
// 32-bit words in the machine's byte order, which is little-endian on every machine that this is built for.
func parseListening(network string, r io.Reader) (out []listens) {
	listen := "0A" // TCP_LISTEN
	if network == UDP {
		listen = "07" // TCP_CLOSE: no one peer
	}
	lines := bufio.NewScanner(io.LimitReader(r, maxTable))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != listen {
			continue
		}
		host, port, ok := strings.Cut(f[1], ":")
		if !ok || len(port) != 4 {
			continue
		}
		a, ok := parseAddress(host)
		p, err := strconv.ParseUint(port, 16, 16)
		if !ok || err != nil {
			continue
		}
		out = append(out, listens{netip.AddrPortFrom(a, uint16(p)), f[9]})
	}
	return out
}

// parseAddress reads one word, or four. IPv4 addresses that are written as IPv6 are IPv4.
func parseAddress(text string) (netip.Addr, bool) {
	words, err := hex.DecodeString(text)
	if err != nil || len(words) != 4 && len(words) != 16 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(words); i += 4 {
		slices.Reverse(words[i : i+4])
	}
	a, ok := netip.AddrFromSlice(words)
	return a.Unmap(), ok
}

// table reads the sockets that listen in a process's network namespace.
func table(network, pid string) (out []listens, err error) {
	for _, name := range []string{network, network + "6"} {
		f, err := os.Open("/proc/" + pid + "/net/" + name)
		if errors.Is(err, fs.ErrNotExist) && name != network {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		out = append(out, parseListening(network, f)...)
		f.Close()
	}
	return out, nil
}

// sockets lists the inodes of a process's sockets.
func sockets(pid int) (map[string]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	mine := map[string]bool{}
	for _, fd := range fds {
		to, err := os.Readlink(dir + "/" + fd.Name())
		if err != nil {
			continue // closed meanwhile
		}
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			mine[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return mine, nil
}

// Listening lists the addresses that a process listens at over TCP.
func Listening(pid int) ([]netip.AddrPort, error) {
	mine, err := sockets(pid)
	if err != nil {
		return nil, err
	}
	all, err := table(TCP, strconv.Itoa(pid))
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, l := range all {
		if mine[l.inode] {
			out = append(out, l.at)
		}
	}
	return out, nil
}

// Covers reports whether a socket that listens at one address takes what is sent to another: itself, or every address of
// the machine. One that listens at :: takes IPv4 too, as it does unless its owner says otherwise.
func Covers(listening, to netip.AddrPort) bool {
	every := listening.Addr() == netip.IPv4Unspecified() && to.Addr().Unmap().Is4() || listening.Addr() == netip.IPv6Unspecified()
	return listening.Port() == to.Port() && (every || listening.Addr() == to.Addr().Unmap())
}

// Network is UDP for whoever takes datagrams, otherwise TCP.
func Network(datagrams bool) string {
	if datagrams {
		return UDP
	}
	return TCP
}

// Taken reports whether anybody at all listens at an address, over TCP or UDP, in this process's network namespace: another user, too.
func Taken(network string, addr netip.AddrPort) (bool, error) {
	all, err := table(network, "self")
	return slices.ContainsFunc(all, func(l listens) bool { return Covers(l.at, addr) }), err
}

// At lists the processes that listen at an address, over TCP or UDP, in this process's network namespace, those that share the
// socket included: a server's master and its workers. Processes of other users are not seen without root.
func At(network string, addr netip.AddrPort) ([]Process, error) {
	all, err := table(network, "self")
	if err != nil {
		return nil, err
	}
	var inodes []string
	for _, l := range all {
		if Covers(l.at, addr) {
			inodes = append(inodes, l.inode)
		}
	}
	if len(inodes) == 0 {
		return nil, nil
	}
	processes, err := List()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(processes, func(p Process) bool {
		mine, err := sockets(p.PID)
		return err != nil || !slices.ContainsFunc(inodes, func(i string) bool { return mine[i] })
	}), nil
}
