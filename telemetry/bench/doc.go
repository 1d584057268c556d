// Package bench measures the event path: what an event costs whoever emits it, how many events a second get from the
// spool on disk through Kafka into the store, and what a stored event takes up. Its yardstick, measured in the same run
// against the same store, is the plainest way in: the same rows handed to clickhouse-go column by column, from memory.
//
// Use it through `go test -run '^$' -bench Path -benchtime 1x ./telemetry/bench`. If you are about to change it:
// the yardstick must stay code that someone who knows only clickhouse-go would write.
package bench
