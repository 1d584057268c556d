#!/bin/sh
# Says what an experiment has left on a machine. It knows nothing of the tool that ran it: it takes stock of the machine
# before, with ip, tc, /proc and /sys alone, and compares.
#
#   nothing-left.sh take > before
#   nothing-left.sh compare before [seconds]
#
# compare takes stock again until it agrees with before, for so many seconds at most (3), and prints what is left ("+") and
# what is missing ("-"); exit status 1 if anything is, 2 if stock could not be taken.
#
# NOTHING_LEFT_DIRS    folders whose files count ("/run /tmp /dev/shm /sys/fs/bpf")
# NOTHING_LEFT_IGNORE  lines that match this extended regular expression count for nothing: what others do meanwhile
set -u
export LC_ALL=C
dirs=${NOTHING_LEFT_DIRS-/run /tmp /dev/shm /sys/fs/bpf}
ignore=${NOTHING_LEFT_IGNORE-}

for tool in ip tc awk find sort comm; do
	command -v "$tool" >/dev/null || { echo "nothing-left.sh: there is no $tool" >&2; exit 2; }
done

# Each line begins with what it is about. Counters, indexes and ages are left out: they change by themselves.
stock() {
	tc qdisc show 2>/dev/null | sed 's/^/qdisc: /; s/ refcnt [0-9]*//'
	for device in $(ip -o link show | awk '{ sub(/@.*/, "", $2); sub(/:$/, "", $2); print $2 }'); do
		for hook in ingress egress; do
			tc filter show dev "$device" "$hook" 2>/dev/null | sed "s/^/filter: $device $hook /"
		done
	done
	ip -o link show | awk '{ sub(/@.*/, "", $2); sub(/:$/, "", $2); print "interface: " $2 " " $3 }'
	ip -o addr show | awk '{ print "address: " $2 " " $3 " " $4 }'
	ip route show table all | sed 's/^/route: /; s/ expires [0-9]*sec//'
	ip -6 route show table all | sed 's/^/route6: /; s/ expires [0-9]*sec//'
	ip rule show | sed 's/^/rule: /'
	! command -v nft >/dev/null || nft -s list ruleset 2>/dev/null | sed 's/^/nft: /'
	for path in /run/netns/* /var/run/netns/*; do
		[ ! -e "$path" ] || echo "namespace: ${path##*/}"
	done
	awk '{ print "mount: " $2 " " $3 }' /proc/self/mounts
	grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/* /proc/sys/net/ipv6/conf/*/forwarding 2>/dev/null | sed 's/^/setting: /'
	# Sockets that listen (0A), and datagram sockets that are bound (07); addresses in the kernel's hexadecimal.
	for family in tcp tcp6 udp udp6; do
		awk -v f="$family" 'FNR > 1 && ($4 == "0A" || $4 == "07") { print "socket: " f " " $2 }' "/proc/net/$family" 2>/dev/null
	done
	awk 'FNR > 1 && $8 != "" { print "socket: unix " $8 }' /proc/net/unix 2>/dev/null
	# Control groups. Those of containers, which bear an id of 32 digits or more, come and go.
	for root in $(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts); do
		find "$root" -type d 2>/dev/null | grep -vE '/[0-9a-f]{32,}$' | sed 's/^/group: /'
	done
	# Processes, those that are stopped (T), and the group each is in. Threads of the kernel (parent 2) come and go.
	cat /proc/[0-9]*/stat 2>/dev/null | awk -v self="$$" '{
		pid = $1
		name = $0; sub(/^[^(]*\(/, "", name); sub(/\)[^)]*$/, "", name)
		rest = $0; sub(/^.*\) /, "", rest); split(rest, f, " ")
		parent[pid] = f[2]; state[pid] = f[1]; called[pid] = name; began[pid] = f[20]
	} END {
		for (pid in parent) {
			p = pid + 0
			while (p != self && p > 2) p = parent[p] + 0
			if (p == self || parent[pid] == 2 || pid == 2) continue
			print "process: " pid " " began[pid] " " called[pid]
			if (state[pid] == "T") print "stopped: " pid " " called[pid]
			if (state[pid] == "Z") print "zombie: " pid " " called[pid]
			groups = "/proc/" pid "/cgroup"
			while ((getline line < groups) > 0) print "in group: " pid " " line
			close(groups)
		}
	}'
	# Kernel programs and links, by who holds them.
	grep -sE '^(link_id|prog_id):' /proc/[0-9]*/fdinfo/* | awk -F/ '{ print "bpf: process " $3 " " $5 }'
	for dir in $dirs; do
		find "$dir" 2>/dev/null | sed 's/^/file: /'
	done
}

take() {
	stock | if [ -n "$ignore" ]; then grep -vE "$ignore"; else cat; fi | sort -u
}

# What may end by itself, or be closed by somebody else, is not missing when it is gone.
comparable='^-(process|socket|in group|bpf|file|zombie|stopped): '

compare() {
	before=$1
	[ -s "$before" ] || { echo "nothing-left.sh: $before holds nothing to compare with" >&2; exit 2; }
	end=$(($(date +%s%N) / 1000000 + ${2:-3} * 1000))
	while :; do
		late=$(($(date +%s%N) / 1000000 >= end))
		difference=$(take | comm -3 "$before" - | sed 's/^\t/+/; t; s/^/-/' | grep -vE "$comparable")
		if [ -z "$difference" ]; then
			exit 0
		elif [ "$late" = 1 ]; then
			printf '%s\n' "$difference"
			exit 1
		fi
		sleep 0.05
	done
}

case ${1-} in
take) take ;;
compare) compare "${2-}" "${3-}" ;;
*)
	echo "usage: nothing-left.sh take | compare BEFORE [SECONDS]" >&2
	exit 2
	;;
esac
