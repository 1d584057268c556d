// Package clickhouse keeps the events of a run in ClickHouse: the schema, its migrations, a client that inserts events
// by the batch and runs queries. The same client talks to the embedded engine (package engine, in a child process) and
// to a real server, by address:
//
//	http://127.0.0.1:8123            ClickHouse's HTTP interface
//	https://user:pass@host:8443/db   the same over TLS
//	clickhouse://user:pass@host:9000/db?secure=true   the native protocol
//
// One table holds every run's events. Each row also says which Kafka partition and offset brought it: what the store
// holds is what the ingester resumes from, so that both move in one insert.
package clickhouse
