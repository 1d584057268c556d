// Package ingest moves a run's events from Kafka into ClickHouse, each of them once.
//
//   - Every row carries the partition and offset of its message, and a batch of whole messages goes in with one atomic
//     insert: what the store holds is the position to resume from. No offset is committed to Kafka.
//   - An insert whose answer was lost is sent again, the same rows under the same deduplication token, and the store
//     drops it if it has it.
//   - What arrived in Kafka twice — a producer's retry, a spool recovered after a kill — is told by source and sequence
//     number, counted as a duplicate and not stored.
package ingest
