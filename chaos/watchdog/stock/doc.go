// Package stock takes stock of a machine before an experiment and compares after it, for tests that claim that nothing is
// left. It does so by a shell script that knows nothing of this program: nothing-left.sh asks ip, tc, /proc and /sys for
// queueing disciplines, filters, interfaces, addresses, routes, namespaces, mounts, settings, sockets, control groups,
// processes and who of them is stopped, kernel programs and files.
package stock
