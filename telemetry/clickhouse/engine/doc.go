// Package engine runs the ClickHouse engine inside this process (libchdb.so, loaded with purego) and serves enough of
// ClickHouse's HTTP interface for clickhouse-go, so that one client code path talks to the embedded engine and to a
// real server.
//
// Use it from the main of a child process and from nowhere else: the library is 566 MB, takes over the process's memory
// allocator and binds one data folder per process, for good. A kill -9 of that process loses no acknowledged insert;
// the engine is therefore never shut down, the process just ends.
//
// The process gives way to others (Config.Nice): it has a spool to catch up from, they have only this moment.
//
// The interface served: POST or GET /, the statement in the body or in ?query= (an INSERT with its data in the body),
// ?database=, ?default_format=, param_NAME=…, settings as further parameters; GET /ping. See
// https://clickhouse.com/docs/interfaces/http. Not served: compression, sessions, users, external tables.
package engine
