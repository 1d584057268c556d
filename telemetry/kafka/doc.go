// Package kafka carries events: a client for one topic (produce with acks from all replicas, fetch by partition and
// offset) on segmentio/kafka-go, and an embedded broker that speaks Kafka's protocol for those who have none.
//
// # One topic for all runs
//
// Events of every run go to one topic, "tminus.events", and each message names its run in a header. A topic per run
// would read less of other runs' data, but on a shared cluster topics are made by an administrator with an access list
// and a retention, and a tool that makes one per CI run leaves thousands behind. The reader starts at the run's start
// time, so it does not read what older runs left, and skips the messages of runs beside it without decoding them.
//
// # Messages
//
// A message's value is NDJSON: one or more whole events of one source, at most MaxMessage bytes. Its key is the source,
// which also chooses the partition: the order within a source holds. Several events a message make both ends some ten
// times cheaper than one each. Header "run" holds the run id. ClickHouse's Kafka engine, kcat and jq read it as it is.
//
// # The embedded broker is bounded
//
// Told by the ingester what is stored, it deletes it; when more than HoldBytes are not, it refuses to take more, with
// THROTTLING_QUOTA_EXCEEDED, and the spools of the producers grow instead. A real Kafka is left to its own retention.
//
// Plain connections only: TLS and SASL are not there yet.
package kafka
