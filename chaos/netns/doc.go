// Package netns is a network of a run's own, on one machine: a network namespace for each region, one (the hub) that
// routes between them, and a cable from it to the machine itself. Use it, where there is root, to break packets as they are on
// a real path: 1,500 bytes each, so that "1 % loss" is 1 % of packets for TCP too, and per region, per direction, per flow. The
// relays in user space do what they can of it without root.
//
//	us-east  198.18.1.0/24 ─┐
//	us-west  198.18.2.0/24 ─┼─ hub ─ the machine, 198.18.0.1
//
// Addresses are of 198.18.0.0/15, which is set aside for testing networks (RFC 2544, appendix C.2.2): a network takes one of its
// 32 blocks of 4,096 that nobody on the machine has a route to, so that networks live side by side. Every address of a
// region's /24 is the region's own, as all of 127.0.0.0/8 is the machine's. Only the hub forwards: nothing in a
// network reaches, or is reached by, more than the machine itself.
//
// # What a Link does
//
// A Link is a region's cable, for one flow over it. What can be done to a packet without holding it up (losing, duplicating,
// corrupting, cutting) the package kernel does. What needs time (delay, jitter, a rate and its queue) a wire does: a
// TUN interface (Linux' Documentation/networking/tuntap.rst), to which the kernel redirects the flow's packets, and a thread
// that writes each back when link.Link says. A packet that comes back is routed on as if nothing had happened; on the way to a
// region it would meet the redirection a second time, which knows it by a mark.
//
// The wires' threads are in a process of their own, this very binary started once more when a first wire is laid: 20 ms are 20 ms
// then even while the conductor has no core to spare. A program that uses this package therefore begins its main with
//
//	if netns.IsChild() {
//		os.Exit(netns.Serve())
//	}
//
// Segmentation and checksums are left to software on every cable (tso, gso, gro and tx-checksum off, ethtool(8)): with the
// former packets would be of 64 kB, with the latter a corrupt one would pass for good.
//
// # What is left behind
//
// Nothing, by construction: namespaces are held by this process alone (a descriptor and a thread each) and by the
// processes in them, TUN interfaces and kernel programs by descriptors, and cables go with the namespace at either end; the
// process with the wires ends with this one. That is so after kill -9 too, whoever watches. The exception are names below
// /run/netns, which let people look inside (ip netns exec tminus-<run>-us-east ss -ti): they outlive their maker, so they are
// given only with a watchdog.Guard that would take them off. A region's process that goes on living keeps its namespace, cut
// off from everything; so may, unseen and for a minute or so, a connection's last retransmissions.
//
// # How a rehearsal runs its regions in one
//
//  1. Build it with the names of the regions, in the scenario's order, before anything listens; the run's watchdog is the
//     Guard. Close it last, when the regions' processes have ended.
//  2. Give each region's configuration Prefix(region) as its block of addresses. Whatever is computed from the block
//     follows: what it listens at, what it dials from, where viewers are sent, what faults may touch.
//  3. Fork each region's process inside Start(region, …): os/exec's Cmd.Start and nothing more, so whatever starts
//     processes takes the thread to fork on as a function, func(fork func() error) error. The thread that forks is the
//     network's and lives as long as it does, so PR_SET_PDEATHSIG and process groups work as elsewhere. Restart in the same
//     way: a region that comes back finds its network as it was.
//  4. Let what regions send to listen at Host() (telemetry's broker and store, a venue's sender and its feedback, a
//     conductor's own services): 127.0.0.1 is another one in every namespace. A broker must name that address in its metadata
//     too.
//  5. Leave viewers, probes and judges on the machine: they reach every region through the hub, over the region's cable, and
//     meet what is broken there. What goes from one region to another meets both regions' cables. Their own
//     traffic with 127.0.0.1 does not change.
//  6. For a fault, take Link(region, flow), Impair to inject, Clear to restore, both as often as wanted. A component is the flow
//     with its address and port; the way up is what it sends, the way down what is sent to it. Counts explain, and prove nothing:
//     the evidence is somebody else's.
//
// Wires share the machine's cores: Counts.Overrun says when they could not keep up, and a run that sees it should say so. A
// firewall on the machine must let the network's interface in; Build tries, and says if it does not.
// Linux only.
package netns
