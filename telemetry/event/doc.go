// Package event is the schema of one timeline: faults, segments, edges, play starts, viewer measures and operator
// actions share this shape, one clock and one run id, so that "which fault made these viewers rebuffer?" is one query.
//
// It is the only telemetry package the reference pipeline may import: a component takes a Sink and knows nothing of
// Kafka or ClickHouse.
package event
