package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tminus-live/tminus/telemetry/event"
)

// Origin is where in Kafka an event came from.
type Origin struct {
	Topic     string
	Partition int
	Offset    int64
}

// Rows collects events by column for one insert. The zero value is ready; not safe for concurrent use.
type Rows struct {
	run, source, kind, status, region, component, session, device, isp []string
	edge, rendition, fault, state, detail, topic                       []string
	seq, segment, bytes, offset                                        []uint64
	at, written, storedAt                                              []time.Time
	value, lag, buffer, latency, playing, rebuffer, bitrate            []float64
	attempts, partition                                                []uint32
	nums                                                               []map[string]float64
}

// Len is the number of rows.
func (r *Rows) Len() int { return len(r.seq) }

// Reset empties the rows and keeps their memory.
func (r *Rows) Reset() {
	for _, s := range []*[]string{&r.run, &r.source, &r.kind, &r.status, &r.region, &r.component, &r.session, &r.device, &r.isp,
		&r.edge, &r.rendition, &r.fault, &r.state, &r.detail, &r.topic} {
		*s = (*s)[:0]
	}
	for _, s := range []*[]uint64{&r.seq, &r.segment, &r.bytes, &r.offset} {
		*s = (*s)[:0]
	}
	for _, s := range []*[]time.Time{&r.at, &r.written, &r.storedAt} {
		*s = (*s)[:0]
	}
	for _, s := range []*[]float64{&r.value, &r.lag, &r.buffer, &r.latency, &r.playing, &r.rebuffer, &r.bitrate} {
		*s = (*s)[:0]
	}
	for _, s := range []*[]uint32{&r.attempts, &r.partition} {
		*s = (*s)[:0]
	}
	clear(r.nums)
	r.nums = r.nums[:0]
}

// epoch stands for "no time": the column's type has no null, and its smallest value is in 1900.
var epoch = time.Unix(0, 0).UTC()

func orEpoch(t time.Time) time.Time {
	if t.IsZero() {
		return epoch
	}
	return t
}

var noNums = map[string]float64{}

// Append adds one event.
func (r *Rows) Append(e *event.Event, from Origin) {
	r.run = append(r.run, e.Run)
	r.source = append(r.source, e.Source)
	r.seq = append(r.seq, e.Seq)
	r.at = append(r.at, orEpoch(e.At))
	r.written = append(r.written, orEpoch(e.Written))
	r.kind = append(r.kind, string(e.Kind))
	r.status = append(r.status, e.Status)
	r.region = append(r.region, e.Region)
	r.component = append(r.component, e.Component)
	r.session = append(r.session, e.Session)
	r.device = append(r.device, e.Device)
	r.isp = append(r.isp, e.ISP)
	r.edge = append(r.edge, e.Edge)
	r.rendition = append(r.rendition, e.Rendition)
	r.segment = append(r.segment, e.Segment)
	r.fault = append(r.fault, e.Fault)
	r.state = append(r.state, e.State)
	r.detail = append(r.detail, e.Detail)
	r.value = append(r.value, e.Value)
	r.lag = append(r.lag, e.LagMS)
	r.buffer = append(r.buffer, e.BufferMS)
	r.latency = append(r.latency, e.LatencyMS)
	r.playing = append(r.playing, e.PlayingMS)
	r.rebuffer = append(r.rebuffer, e.RebufferMS)
	r.bitrate = append(r.bitrate, e.BitrateKbps)
	r.bytes = append(r.bytes, e.Bytes)
	r.attempts = append(r.attempts, e.Attempts)
	nums := e.Nums
	if nums == nil {
		nums = noNums
	}
	r.nums = append(r.nums, nums)
	r.topic = append(r.topic, from.Topic)
	r.partition = append(r.partition, uint32(from.Partition))
	r.offset = append(r.offset, uint64(from.Offset))
}

// columns gives the slices in the order of the table's columns.
func (r *Rows) columns() []any {
	return []any{
		r.run, r.source, r.seq, r.at, r.written, r.storedAt, r.kind, r.status, r.region, r.component, r.session, r.device, r.isp,
		r.edge, r.rendition, r.segment, r.fault, r.state, r.detail, r.value, r.lag, r.buffer, r.latency, r.playing, r.rebuffer,
		r.bitrate, r.bytes, r.attempts, r.nums, r.topic, r.partition, r.offset,
	}
}

var (
	insertSQL   string
	insertTypes []ch.ColumnNameAndType
)

func init() {
	var names []string
	for _, c := range columns {
		names = append(names, "`"+c.name+"`")
		insertTypes = append(insertTypes, ch.ColumnNameAndType{Name: c.name, Type: c.typ})
	}
	insertSQL = "INSERT INTO events (" + strings.Join(names, ", ") + ")"
}

// Insert stores the rows, all or none of them, with storedAt as their stored_at. After an error it is not known which;
// the same rows with the same token can be sent again, and the server drops what it has already.
func (db *DB) Insert(ctx context.Context, r *Rows, token string, storedAt time.Time) error {
	if r.Len() == 0 {
		return nil
	}
	r.storedAt = r.storedAt[:0]
	for range r.Len() {
		r.storedAt = append(r.storedAt, storedAt)
	}
	ctx = ch.Context(ctx,
		ch.WithSettings(ch.Settings{"insert_deduplication_token": token}),
		ch.WithColumnNamesAndTypes(insertTypes))
	batch, err := db.conn.PrepareBatch(ctx, insertSQL)
	if err != nil {
		return fmt.Errorf("ClickHouse at %s does not take a batch: %w", db.address, err)
	}
	defer batch.Close()
	for i, values := range r.columns() {
		if err := batch.Column(i).Append(values); err != nil {
			return fmt.Errorf("column %s: %w", columns[i].name, err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("ClickHouse at %s did not store %d events: %w", db.address, r.Len(), err)
	}
	return nil
}
