package clickhouse

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tminus-live/tminus/telemetry/event"
)

// Origin is where in Kafka an event came from.
type Origin struct {
	Topic     string
	Partition int
	Offset    int64
}

// Rows collects events by column for one insert. The zero value is ready; not safe for concurrent use. It copies what it
// keeps: an event's strings may share memory that changes afterwards.
type Rows struct {
	n    int
	cols [columnCount]cells

	native []byte // of one column at a time, while inserting
	source bytes.Reader
	reader *proto.Reader
}

// cells are the values of one column, as the Native format has them (https://clickhouse.com/docs/interfaces/formats/Native):
// what a column of the client reads as an answer, it sends as data. Built so, a row costs a tenth of a microsecond;
// handed over value by value it costs one.
//
// Most columns of a batch hold nothing but their type's default: those are counted and not kept.
type cells struct {
	data []byte // numbers in little-endian order, strings with their length before them
	none int    // how many values there are, all of them the default; the rest is empty then
	used bool   // some value is not the default

	// A LowCardinality column: the words that occur, and which of them each row has.
	words []string
	index map[string]uint32
	keys  []uint32
	last  uint32 // the row before's

	// A Map column: where each row's pairs end.
	ends  []uint64
	pairs uint64
	names []byte // data holds the values
}

func (c *cells) reset() {
	c.data, c.words, c.keys, c.ends, c.names = c.data[:0], c.words[:0], c.keys[:0], c.ends[:0], c.names[:0]
	clear(c.index)
	c.none, c.used, c.last, c.pairs = 0, false, 0, 0
}

// uint64 and its like add a value of so many bytes, all zero where it is the default.
func (c *cells) uint64(v uint64) {
	if c.plain(v == 0, 8) {
		c.data = binary.LittleEndian.AppendUint64(c.data, v)
	}
}

func (c *cells) uint32(v uint32) {
	if c.plain(v == 0, 4) {
		c.data = binary.LittleEndian.AppendUint32(c.data, v)
	}
}

// plain counts a default in a column that holds nothing else; otherwise it makes sure that those counted are in data, each
// so many zero bytes, and says true.
func (c *cells) plain(isDefault bool, size int) bool {
	if !c.used {
		if isDefault {
			c.none++
			return false
		}
		c.used = true
		c.data = append(c.data, make([]byte, c.none*size)...)
	}
	return true
}

func (c *cells) float(v float64) { c.uint64(math.Float64bits(v)) }

// time is microseconds since 1970. "No time" is 1970: the column's type has no null, and its smallest value is in 1900.
func (c *cells) time(t time.Time) {
	if t.IsZero() {
		c.uint64(0)
		return
	}
	c.uint64(uint64(t.UnixMicro()))
}

func (c *cells) string(s string) {
	if c.plain(s == "", 1) {
		c.data = appendString(c.data, s)
	}
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// word adds a value to a LowCardinality column.
func (c *cells) word(s string) {
	if !c.used {
		if s == "" {
			c.none++
			return
		}
		c.used = true
		c.words = append(c.words, "") // the dictionary begins with the default
		if c.index == nil {
			c.index = make(map[string]uint32)
		}
		c.index[""] = 0
		c.keys = append(c.keys, make([]uint32, c.none)...)
	}
	if c.words[c.last] != s {
		k, ok := c.index[s]
		if !ok {
			k = uint32(len(c.words))
			s = strings.Clone(s)
			c.words = append(c.words, s)
			c.index[s] = k
		}
		c.last = k
	}
	c.keys = append(c.keys, c.last)
}

func (c *cells) numbers(nums map[string]float64) {
	if !c.used {
		if len(nums) == 0 {
			c.none++
			return
		}
		c.used = true
		c.ends = append(c.ends, make([]uint64, c.none)...)
	}
	for k, v := range nums {
		c.names = appendString(c.names, k)
		c.data = binary.LittleEndian.AppendUint64(c.data, math.Float64bits(v))
	}
	c.pairs += uint64(len(nums))
	c.ends = append(c.ends, c.pairs)
}

// native appends the Native form of a column that is used to b.
func (c *cells) native(b []byte) []byte {
	switch {
	case len(c.words) > 0:
		// A dictionary of its own, and then the rows' places in it, in 1, 2 or 4 bytes each.
		const ownDictionary = 1<<9 | 1<<10
		width := 0
		switch {
		case len(c.words) > 1<<16:
			width = 2
		case len(c.words) > 1<<8:
			width = 1
		}
		b = binary.LittleEndian.AppendUint64(b, ownDictionary|uint64(width))
		b = binary.LittleEndian.AppendUint64(b, uint64(len(c.words)))
		for _, w := range c.words {
			b = appendString(b, w)
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(len(c.keys)))
		for _, k := range c.keys {
			switch width {
			case 0:
				b = append(b, byte(k))
			case 1:
				b = binary.LittleEndian.AppendUint16(b, uint16(k))
			default:
				b = binary.LittleEndian.AppendUint32(b, k)
			}
		}
		return b
	case len(c.ends) > 0:
		for _, e := range c.ends {
			b = binary.LittleEndian.AppendUint64(b, e)
		}
		b = append(b, c.names...)
	}
	return append(b, c.data...)
}

// Len is the number of rows.
func (r *Rows) Len() int { return r.n }

// Reset empties the rows and keeps their memory.
func (r *Rows) Reset() {
	for i := range r.cols {
		r.cols[i].reset()
	}
	r.n = 0
}

// Append adds one event.
func (r *Rows) Append(e *event.Event, from Origin) {
	c := &r.cols
	c[colRun].word(e.Run)
	c[colSource].word(e.Source)
	c[colSeq].uint64(e.Seq)
	c[colAt].time(e.At)
	c[colWritten].time(e.Written)
	c[colKind].word(string(e.Kind))
	c[colStatus].word(e.Status)
	c[colRegion].word(e.Region)
	c[colComponent].word(e.Component)
	c[colSession].string(e.Session)
	c[colDevice].word(e.Device)
	c[colISP].word(e.ISP)
	c[colHome].word(e.Home)
	c[colEdge].word(e.Edge)
	c[colRendition].word(e.Rendition)
	c[colSegment].uint64(e.Segment)
	c[colFault].word(e.Fault)
	c[colState].word(e.State)
	c[colDetail].string(e.Detail)
	c[colValue].float(e.Value)
	c[colLag].float(e.LagMS)
	c[colBuffer].float(e.BufferMS)
	c[colLatency].float(e.LatencyMS)
	c[colPlaying].float(e.PlayingMS)
	c[colRebuffer].float(e.RebufferMS)
	c[colBitrate].float(e.BitrateKbps)
	c[colBytes].uint64(e.Bytes)
	c[colAttempts].uint32(e.Attempts)
	c[colNums].numbers(e.Nums)
	c[colTopic].word(from.Topic)
	c[colPartition].uint32(uint32(from.Partition))
	c[colOffset].uint64(uint64(from.Offset))
	r.n++
}

// Insert stores the rows, all or none of them, with storedAt as their stored_at. After an error it is not known which;
// the same rows with the same token can be sent again, and the server drops what it has already. Columns in which
// every value is the default are not sent: the server knows them.
func (db *DB) Insert(ctx context.Context, r *Rows, token string, storedAt time.Time) error {
	if r.Len() == 0 {
		return nil
	}
	stored := &r.cols[colStoredAt]
	stored.reset()
	for range r.n {
		stored.time(storedAt)
	}
	var names []string
	var types []ch.ColumnNameAndType
	var sent []int
	for i, c := range columns {
		if r.cols[i].used {
			names = append(names, "`"+c.name+"`")
			types = append(types, ch.ColumnNameAndType{Name: c.name, Type: c.typ})
			sent = append(sent, i)
		}
	}
	ctx = ch.Context(ctx,
		// Gathered with others' by the server, an insert would no longer be one block.
		ch.WithSettings(ch.Settings{"insert_deduplication_token": token, "async_insert": 0}),
		ch.WithColumnNamesAndTypes(types))
	batch, err := db.inserts.PrepareBatch(ctx, "INSERT INTO events ("+strings.Join(names, ", ")+")")
	if err != nil {
		return fmt.Errorf("ClickHouse at %s does not take a batch: %w", db.address, err)
	}
	defer batch.Close()
	if r.reader == nil {
		r.reader = proto.NewReader(&r.source)
	}
	for i, to := range batch.Columns() {
		r.native = r.cols[sent[i]].native(r.native[:0])
		r.source.Reset(r.native)
		if err := to.Decode(r.reader, r.n); err != nil {
			return fmt.Errorf("column %s: %w", columns[sent[i]].name, err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("ClickHouse at %s did not store %d events: %w", db.address, r.Len(), err)
	}
	return nil
}
