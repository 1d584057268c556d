package netns

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/watchdog"
)

const (
	// MaxRegions is how many regions a network can have: each has a /24 of the network's block, whose first is the host's.
	MaxRegions = 1<<(24-blockBits) - 1

	mtu       = 1500 // bytes: what the Internet carries
	blockBits = 20
	hubName   = "hub" // of the hub's namespace, behind the run
	regionEnd = "eth0"
	hostEnd   = "host" // the hub's end of the cable to the host
	hubHost   = 2      // last octet of the hub, in the block's first /24
	hostHost  = 1      // of the host; and of a region's gateway address, in its own
)

// proofWait bounds the wait for a datagram over cables that nothing impairs.
const proofWait = 2 * time.Second

// pool is set aside for tests of how networks bear load (RFC 2544, appendix C.2.2): no address of it is anyone's.
var pool = netip.MustParsePrefix("198.18.0.0/15")

// block is the i-th network's share of the pool.
func block(i int) netip.Prefix {
	a := pool.Addr().As4()
	a[1] += byte(i >> (blockBits - 16))
	a[2] = byte(i << (24 - blockBits))
	return netip.PrefixFrom(netip.AddrFrom4(a), blockBits)
}

const blocks = 1 << (blockBits - 15)

// subnet is the i-th /24 of a block; 0 is the host's, i the i-th region's.
func subnet(b netip.Prefix, i int) netip.Prefix {
	a := b.Addr().As4()
	a[2] += byte(i)
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

func host(p netip.Prefix, n byte) netip.Addr {
	a := p.Addr().As4()
	a[3] = n
	return netip.AddrFrom4(a)
}

// Config is a network's shape.
type Config struct {
	Run     string   // the run's id: names are made of it, so no two networks at a time have the same
	Regions []string // names of the regions; the k-th, counted from 1, is the k-th /24 of the network
}

// namePattern keeps names fit for files and interfaces.
var namePattern = regexp.MustCompile(`^[a-z0-9A-Z][a-z0-9A-Z._-]{0,62}$`)

// Validate reports everything that is wrong at once.
func (c Config) Validate() error {
	var errs []error
	if !namePattern.MatchString(c.Run) {
		errs = append(errs, fmt.Errorf("run %q is not a name of letters, digits, dot, dash and underscore", c.Run))
	}
	if len(c.Regions) == 0 || len(c.Regions) > MaxRegions {
		errs = append(errs, fmt.Errorf("%d regions; 1 to %d are possible", len(c.Regions), MaxRegions))
	}
	for i, r := range c.Regions {
		switch {
		case !namePattern.MatchString(r):
			errs = append(errs, fmt.Errorf("region %q is not a name of letters, digits, dot, dash and underscore", r))
		case r == hubName:
			errs = append(errs, fmt.Errorf("a region cannot be called %s: that is what routes between them", hubName))
		case slices.Contains(c.Regions[:i], r):
			errs = append(errs, fmt.Errorf("region %s is there twice", r))
		}
	}
	return errors.Join(errs...)
}

// spaceName is what a namespace is called below watchdog.NamespaceDir: "tminus-<run>-<region>".
func (c Config) spaceName(region string) string { return watchdog.Prefix + c.Run + "-" + region }

// interfaceName is the host's end of the cable to the hub: what the kernel's 15 bytes have room for of a run's name.
func (c Config) interfaceName() string {
	h := fnv.New32a()
	h.Write([]byte(c.Run))
	return fmt.Sprintf("%s%08x", watchdog.Prefix, h.Sum32())
}

// Network is the network of one run.
type Network struct {
	config  Config
	block   netip.Prefix
	hub     *space
	regions []*region
	guard   watchdog.Guard
	tokens  []watchdog.Token // in the order in which they were given
	cabled  bool             // the cable to the host may be there

	mu        sync.Mutex
	closed    bool
	wires     *wires        // nil: nothing was ever held up
	watched   chan struct{} // closed when nobody waits for the wires' process any more; nil as wires
	failed    error         // the wires' process has ended
	stretches uint64        // number of the last
}

// region is one region's namespace and its cable to the hub.
type region struct {
	name  string
	k     int // counted from 1
	space *space

	hubEnd   int // index of the hub's end of the cable, in the hub
	ownEnd   int // index of the region's end, in the region
	sections [2]section
}

// Build makes a network. With a guard, every namespace has a name below /run/netns, and what would outlive this process
// is journalled before it is made; without one (nil), there are no names, and everything dies with this process.
// When it returns an error nothing is left.
func Build(cfg Config, guard watchdog.Guard) (*Network, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	n := &Network{config: cfg, guard: guard}
	if err := n.build(); err != nil {
		if closeErr := n.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
		return nil, fmt.Errorf("build the network of run %s: %w", cfg.Run, err)
	}
	return n, nil
}

func (n *Network) build() (err error) {
	if n.hub, err = n.newSpace(hubName); err != nil {
		return err
	}
	if err := n.hub.do(func() error { return setting{"ipv4/ip_forward", "1"}.write() }); err != nil {
		return err
	}
	if err := n.connectHost(); err != nil {
		return err
	}
	for i, name := range n.config.Regions {
		r := &region{name: name, k: i + 1}
		if r.space, err = n.newSpace(name); err != nil {
			return err
		}
		n.regions = append(n.regions, r)
		if err := n.connect(r); err != nil {
			return fmt.Errorf("connect region %s: %w", name, err)
		}
	}
	for _, r := range n.regions {
		if err := n.prove(r); err != nil {
			return fmt.Errorf("region %s and the machine do not reach each other, so something, a firewall perhaps, is in the way at interface %s: %w",
				r.name, n.config.interfaceName(), err)
		}
	}
	return nil
}

// prove sends a datagram from the machine to a region and back.
func (n *Network) prove(r *region) error {
	listen := func(at netip.Addr) (*net.UDPConn, error) {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
		if err != nil {
			return nil, err
		}
		return c, c.SetDeadline(time.Now().Add(proofWait))
	}
	here, err := listen(n.Host())
	if err != nil {
		return err
	}
	defer here.Close()
	var there *net.UDPConn
	if err := r.space.do(func() (err error) {
		there, err = listen(host(subnet(n.block, r.k), hostHost))
		return err
	}); err != nil {
		return err
	}
	defer there.Close()
	var buf [1]byte
	if _, err := here.WriteTo(buf[:], there.LocalAddr()); err != nil {
		return err
	}
	_, from, err := there.ReadFrom(buf[:])
	if err != nil {
		return err
	}
	if _, err := there.WriteTo(buf[:], from); err != nil {
		return err
	}
	_, _, err = here.ReadFrom(buf[:])
	return err
}

func (n *Network) newSpace(name string) (*space, error) {
	s, err := newSpace()
	if err != nil || n.guard == nil {
		return s, err
	}
	name = n.config.spaceName(name)
	err = n.protect(watchdog.Entry{Kind: watchdog.Namespace, Name: name})
	if err == nil {
		err = s.publish(name)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// protect journals what is about to be made.
func (n *Network) protect(e watchdog.Entry) error {
	if n.guard == nil {
		return nil
	}
	token, err := n.guard.Protect(e)
	if err != nil {
		return fmt.Errorf("journal %s: %w", e, err)
	}
	n.tokens = append(n.tokens, token)
	return nil
}

// connectHost lays the cable between the host and the hub, and claims the network's block of addresses.
func (n *Network) connectHost() error {
	name := n.config.interfaceName()
	if err := n.protect(watchdog.Entry{Kind: watchdog.Interface, Name: name}); err != nil {
		return err
	}
	here, err := openNetlink()
	if err != nil {
		return err
	}
	defer here.close()
	if err := here.addVeth(end{name: name}, end{name: hostEnd, space: n.hub.fd}); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("run %s has a network already: %w", n.config.Run, err)
		}
		return err
	}
	n.cabled = true
	if err := errors.Join(plain(name), silence(name)); err != nil {
		return err
	}
	own, err := here.find(name)
	if err != nil {
		return err
	}
	if err := here.up(own.index, text(unix.IFLA_IFALIAS, watchdog.Prefix+n.config.Run)); err != nil {
		return err
	}
	if err := n.claim(here, own.index); err != nil {
		return err
	}
	first := subnet(n.block, 0)
	if err := here.addAddress(own.index, host(first, hostHost)); err != nil {
		return err
	}
	far, err := n.hubInterface(hostEnd)
	if err != nil {
		return err
	}
	return n.hub.netlink.addRoute(route{to: netip.PrefixFrom(host(first, hostHost), 32), on: far})
}

// claim finds a block of addresses that nobody has a route to, and adds the host's to it. The kernel takes a route to a
// prefix once only, so that of two networks that are built at the same time one goes on to the next block.
func (n *Network) claim(here *rtnetlink, index int) error {
	taken, err := here.routes()
	if err != nil {
		return err
	}
	for i := range blocks {
		b := block(i)
		if slices.ContainsFunc(taken, b.Overlaps) {
			continue
		}
		err := here.addRoute(route{to: b, via: host(b, hubHost), on: index})
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		n.block = b
		return err
	}
	return fmt.Errorf("all %d blocks of %s are in use on this machine", blocks, pool)
}

// hubInterface readies the hub's end of a cable, and returns its index.
func (n *Network) hubInterface(name string) (int, error) {
	if err := n.hub.do(func() error { return plain(name) }); err != nil {
		return 0, err
	}
	state, err := n.hub.netlink.find(name)
	if err != nil {
		return 0, err
	}
	if err := n.hub.netlink.up(state.index); err != nil {
		return 0, err
	}
	// The same on every cable: it is a next hop, and nobody's destination.
	return state.index, n.hub.netlink.addAddress(state.index, host(subnet(n.block, 0), hubHost))
}

// connect lays the cable between a region and the hub.
func (n *Network) connect(r *region) error {
	name := fmt.Sprintf("region%d", r.k)
	if err := n.hub.netlink.addVeth(end{name: name}, end{name: regionEnd, space: r.space.fd}); err != nil {
		return err
	}
	prefix := subnet(n.block, r.k)
	gateway := host(prefix, hostHost)
	far, err := n.hubInterface(name)
	if err != nil {
		return err
	}
	r.hubEnd = far

	if err := r.space.do(func() error { return plain(regionEnd) }); err != nil {
		return err
	}
	own, err := r.space.netlink.find(regionEnd)
	if err != nil {
		return err
	}
	lo, err := r.space.netlink.find("lo")
	if err != nil {
		return err
	}
	r.ownEnd = own.index
	if err := r.space.netlink.up(own.index); err != nil {
		return err
	}
	// The whole /24 is the region's: whatever listens in it takes any of its addresses, as on the loopback.
	if err := r.space.netlink.addAddress(own.index, gateway); err != nil {
		return err
	}
	if err := r.space.netlink.addRoute(route{to: prefix, on: lo.index, local: true}); err != nil {
		return err
	}
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if err := r.space.netlink.addRoute(route{to: everywhere, via: host(subnet(n.block, 0), hubHost), on: own.index, from: gateway}); err != nil {
		return err
	}
	return n.hub.netlink.addRoute(route{to: prefix, via: gateway, on: far})
}

// silence keeps an interface of the host's to IPv4.
func silence(name string) error {
	err := setting{path.Join("ipv6/conf", name, "disable_ipv6"), "1"}.write()
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

// Host is the address of the machine itself inside the network: what regions send to it, they send there.
func (n *Network) Host() netip.Addr { return host(subnet(n.block, 0), hostHost) }

// Block holds every address of the network, and nothing else.
func (n *Network) Block() netip.Prefix { return n.block }

// Prefix is a region's /24, every address of which is its own; the zero Prefix where there is no such region.
func (n *Network) Prefix(region string) netip.Prefix {
	if r, err := n.region(region); err == nil {
		return subnet(n.block, r.k)
	}
	return netip.Prefix{}
}

func (n *Network) region(name string) (*region, error) {
	for _, r := range n.regions {
		if r.name == name {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%w region %q of this network (there is %s)", evidence.ErrUnknown, name, strings.Join(n.config.Regions, ", "))
}

// Start runs f on a thread that lives in a region's namespace: processes that f forks live there, and sockets that f opens
// stay there, whoever uses them. The thread is one and the same for the network's life, so that a child's death signal
// (PR_SET_PDEATHSIG) does not fire before; f returns soon, since it keeps others waiting, and does not end its goroutine.
func (n *Network) Start(region string, f func() error) error {
	r, err := n.region(region)
	if err != nil {
		return err
	}
	return r.space.do(f)
}

// Close takes the network away: impairments, interfaces, names, namespaces. A process that still lives in a region keeps
// that region's namespace, cut off from everything, until it ends. Closing twice is fine.
func (n *Network) Close() error {
	err := n.takeDown()
	if n.watched != nil {
		<-n.watched
	}
	return err
}

func (n *Network) takeDown() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	var errs []error
	for _, r := range n.regions {
		for i := range r.sections {
			errs = append(errs, r.sections[i].close())
		}
	}
	if n.wires != nil {
		errs = append(errs, n.wires.close())
	}
	if n.cabled {
		// Without this the kernel would do it too, but some time after the hub has gone.
		errs = append(errs, removeHere(n.config.interfaceName()))
	}
	for _, r := range slices.Backward(n.regions) {
		errs = append(errs, r.space.close())
	}
	if n.hub != nil {
		errs = append(errs, n.hub.close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take the network of run %s away: %w", n.config.Run, err) // its journal stays: somebody else may do better
	}
	for _, t := range slices.Backward(n.tokens) {
		errs = append(errs, n.guard.Release(t))
	}
	return errors.Join(errs...)
}

func removeHere(name string) error {
	here, err := openNetlink()
	if err != nil {
		return err
	}
	defer here.close()
	return here.remove(name)
}
