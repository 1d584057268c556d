// Package k6 is the k6 extension k6/x/tminus: play starts, full players, faults and QoE from a k6 script. One call of a script
// drives thousands of viewers with the engines of simulator/wire beneath; a VU is the hand that starts them, never a viewer.
// What viewers feel becomes k6 metrics, so that thresholds work on it, and, where a Kafka is given, events under the run's
// id, so that many pods come to one verdict (tminus judge). README.md says how to use it.
//
// It is a Go module of its own: what k6 depends on does not enter tminus.
//
// If you are about to change it: module.go is what k6 sees; options.go reads what a script says, strictly; starts.go, players.go
// and fault.go are one call each; thin.go keeps percentiles right with few samples (read it before you touch a metric);
// record.go turns events into samples and totals; events.go is the way to Kafka; shard.go is a pod's share.
package k6
