package kafka

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/compress/snappy"
)

const (
	// DefaultTopic holds the events of every run.
	DefaultTopic = "tminus.events"
	// DefaultPartitions is how many partitions a topic made by EnsureTopic gets.
	DefaultPartitions = 4
	// MaxMessage bounds a message's value, in bytes. Publish sends batches of up to MaxBatch bytes, which is under the
	// 1 MiB that brokers take by default (message.max.bytes).
	MaxMessage = 256 << 10
	MaxBatch   = 768 << 10

	headerRun = "run"

	dialTimeout    = 3 * time.Second
	requestTimeout = 10 * time.Second
	fetchWait      = 250 * time.Millisecond
	fetchBytes     = 1 << 20 // compressed: some 5 MB of events
	leaderWait     = 50 * time.Millisecond
)

// ErrUnreachable is wrapped by the errors of Check and EnsureTopic when no broker answers.
var ErrUnreachable = errors.New("cannot reach Kafka")

// ErrHeldBack is wrapped by Publish's error when the broker takes nothing for now, and says so (Kafka's
// THROTTLING_QUOTA_EXCEEDED): nothing was written, and it is worth asking again in a moment. The error has a method
// HeldBack() bool that says the same.
var ErrHeldBack error = kgo.ThrottlingQuotaExceeded

type heldBack struct{ error }

func (heldBack) HeldBack() bool  { return true }
func (e heldBack) Unwrap() error { return e.error }

// ErrOffsetOutOfRange is wrapped by Fetch's error when the partition does not hold the offset: retention took it.
var ErrOffsetOutOfRange error = kgo.OffsetOutOfRange

// Messages are compressed with Snappy at its fastest: play starts shrink to a quarter, and what that costs is saved again
// where fewer bytes are copied, checked and written. LZ4 and Zstandard take two and four times its CPU for as much and
// two thirds of its size.
func init() { compress.SnappyCodec.Compression = snappy.FasterCompression }

// Config of a client.
type Config struct {
	Address    string // "host:9092,host2:9092"
	Topic      string // "" = DefaultTopic
	Partitions int    // of a topic that EnsureTopic makes; 0 = DefaultPartitions
	// Retention of a topic that EnsureTopic makes; 0 leaves it to the broker (7 days by default).
	Retention time.Duration
}

// Client talks to the brokers about one topic. Safe for concurrent use.
type Client struct {
	cfg        Config
	brokers    []string
	client     *kgo.Client
	transport  *kgo.Transport
	partitions atomic.Int32 // of the topic; 0 = not asked yet
}

// New makes a client; it does not talk to the brokers yet, so that a process can start while they are away.
func New(cfg Config) (*Client, error) {
	if cfg.Topic == "" {
		cfg.Topic = DefaultTopic
	}
	if cfg.Partitions == 0 {
		cfg.Partitions = DefaultPartitions
	}
	brokers, err := addresses(cfg.Address)
	if err != nil {
		return nil, err
	}
	transport := &kgo.Transport{
		Dial:        (&net.Dialer{Timeout: dialTimeout}).DialContext,
		DialTimeout: dialTimeout,
		IdleTimeout: 30 * time.Second,
		MetadataTTL: 3 * time.Second,
		ClientID:    "tminus",
	}
	return &Client{
		cfg:       cfg,
		brokers:   brokers,
		transport: transport,

		client: &kgo.Client{Addr: kgo.TCP(brokers...), Timeout: requestTimeout, Transport: transport},
	}, nil
}

// CheckAddress says what is wrong with an address that New is to be given, or nil; it connects to nobody.
func CheckAddress(address string) error {
	_, err := addresses(address)
	return err
}

func addresses(list string) (brokers []string, err error) {
	for b := range strings.SplitSeq(list, ",") {
		b = strings.TrimSpace(b)
		host, port, err := net.SplitHostPort(b)
		if n, perr := strconv.Atoi(port); err != nil || host == "" || perr != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("the address of Kafka must be host:port, or several with commas, not %q", list)
		}
		brokers = append(brokers, b)
	}
	return brokers, nil
}

// Address is where the brokers are, as given.
func (c *Client) Address() string { return c.cfg.Address }

// Topic is the topic's name.
func (c *Client) Topic() string { return c.cfg.Topic }

// Close ends idle connections; the client can still be used.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Check says within a few seconds whether a broker answers.
func (c *Client) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout+time.Second)
	defer cancel()
	if _, err := c.client.ApiVersions(ctx, &kgo.ApiVersionsRequest{Addr: c.client.Addr}); err != nil {
		return c.unreachable(err)
	}
	return nil
}

func (c *Client) unreachable(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("no answer in time")
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.cfg.Address, err)
}

// EnsureTopic checks that a broker answers, makes the topic if it is not there, and returns when all its partitions
// can be written. A topic that exists is used as it is.
func (c *Client) EnsureTopic(ctx context.Context) error {
	if err := c.Check(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if n, err := c.countPartitions(ctx); err == nil && n > 0 {
		return nil
	}
	topic := kgo.TopicConfig{Topic: c.cfg.Topic, NumPartitions: c.cfg.Partitions, ReplicationFactor: -1} // -1: the broker's default
	if c.cfg.Retention > 0 {
		topic.ConfigEntries = []kgo.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: strconv.FormatInt(c.cfg.Retention.Milliseconds(), 10)}}
	}
	res, err := c.client.CreateTopics(ctx, &kgo.CreateTopicsRequest{Topics: []kgo.TopicConfig{topic}})
	if err == nil {
		err = res.Errors[c.cfg.Topic]
	}
	if err != nil && !errors.Is(err, kgo.TopicAlreadyExists) {
		return fmt.Errorf("making the topic %s in Kafka at %s: %w", c.cfg.Topic, c.cfg.Address, err)
	}
	for {
		n, err := c.countPartitions(ctx)
		if err == nil && n > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the topic %s of Kafka at %s has partitions that nobody leads: %w", c.cfg.Topic, c.cfg.Address, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Partitions is how many partitions the topic has. It is asked once: a source must keep its partition.
func (c *Client) Partitions(ctx context.Context) (int, error) {
	if n := c.partitions.Load(); n > 0 {
		return int(n), nil
	}
	return c.countPartitions(ctx)
}

func (c *Client) countPartitions(ctx context.Context) (int, error) {
	res, err := c.client.Metadata(ctx, &kgo.MetadataRequest{Topics: []string{c.cfg.Topic}})
	if err != nil {
		return 0, c.unreachable(err)
	}
	for _, t := range res.Topics {
		if t.Name != c.cfg.Topic {
			continue
		}
		if t.Error != nil {
			return 0, fmt.Errorf("the topic %s of Kafka at %s: %w", c.cfg.Topic, c.cfg.Address, t.Error)
		}
		for _, p := range t.Partitions {
			if p.Error != nil {
				return 0, fmt.Errorf("partition %d of the topic %s of Kafka at %s: %w", p.ID, c.cfg.Topic, c.cfg.Address, p.Error)
			}
		}
		if n := len(t.Partitions); n > 0 {
			c.partitions.Store(int32(n))
			return n, nil
		}
	}
	return 0, fmt.Errorf("there is no topic %s in Kafka at %s", c.cfg.Topic, c.cfg.Address)
}

// Publish sends values, in order, as messages of one source, and returns when all in-sync replicas have them. After an
// error any of them may be there: sending them again may deliver them twice. The caller keeps the values as they are
// until Publish returns, and within MaxMessage each and MaxBatch together.
func (c *Client) Publish(ctx context.Context, run, source string, values [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	n, err := c.Partitions(ctx)
	if err != nil {
		return err
	}
	h := fnv.New32a()
	io.WriteString(h, source)
	headers := []kgo.Header{{Key: headerRun, Value: []byte(run)}}
	key := []byte(source)
	records := make([]kgo.Record, len(values))
	for i, v := range values {
		records[i] = kgo.Record{Key: kgo.NewBytes(key), Value: kgo.NewBytes(v), Headers: headers}
	}
	partition := int(h.Sum32() % uint32(n))
	for {
		res, err := c.client.Produce(ctx, &kgo.ProduceRequest{
			Topic:        c.cfg.Topic,
			Partition:    partition,
			RequiredAcks: kgo.RequireAll,
			Records:      kgo.NewRecordReader(records...),
			Compression:  kgo.Snappy,
		})
		if err == nil {
			err = res.Error
		}
		if err == nil {
			return nil
		}
		err = fmt.Errorf("publishing %d messages of %s to Kafka at %s: %w", len(values), source, c.cfg.Address, err)
		if errors.Is(err, ErrHeldBack) {
			return heldBack{err}
		}
		if !errors.Is(err, kgo.NotLeaderForPartition) && !errors.Is(err, kgo.LeaderNotAvailable) && !errors.Is(err, kgo.UnknownTopicOrPartition) {
			return err
		}
		// Nothing was written: a leader is being chosen, or is new and does not know yet. Records are read once.
		for i, v := range values {
			records[i].Key, records[i].Value = kgo.NewBytes(key), kgo.NewBytes(v)
		}
		select {
		case <-time.After(leaderWait):
		case <-ctx.Done():
			return err
		}
	}
}

// Message is one message read.
type Message struct {
	Partition int
	Offset    int64
	Run       string // header "run"
	Source    string // the key
	Value     []byte // nil unless the run was asked for
}

// Fetch reads messages of a partition from offset on; it waits a quarter of a second for the first. Values are only
// given for messages of run. Next is the offset to go on from.
func (c *Client) Fetch(ctx context.Context, run string, partition int, offset int64) (messages []Message, next int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.client.Fetch(ctx, &kgo.FetchRequest{
		Topic: c.cfg.Topic, Partition: partition, Offset: offset, MinBytes: 1, MaxBytes: fetchBytes, MaxWait: fetchWait,
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, offset, fmt.Errorf("reading partition %d of the topic %s of Kafka at %s: %w", partition, c.cfg.Topic, c.cfg.Address, err)
	}
	next = offset
	for {
		r, err := res.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return messages, next, nil
		}
		if err != nil {
			return nil, offset, fmt.Errorf("reading partition %d of the topic %s of Kafka at %s: %w", partition, c.cfg.Topic, c.cfg.Address, err)
		}
		m, err := readMessage(r, run, partition)
		if err != nil {
			return nil, offset, fmt.Errorf("message %d of partition %d of the topic %s: %w", r.Offset, partition, c.cfg.Topic, err)
		}
		if m.Offset < offset {
			continue // a batch is delivered whole, also from before the offset
		}
		messages = append(messages, m)
		next = m.Offset + 1
	}
}

func readMessage(r *kgo.Record, run string, partition int) (m Message, err error) {
	m = Message{Partition: partition, Offset: r.Offset}
	if i := slices.IndexFunc(r.Headers, func(h kgo.Header) bool { return h.Key == headerRun }); i >= 0 {
		m.Run = string(r.Headers[i].Value)
	}
	if r.Key != nil {
		defer r.Key.Close()
	}
	if r.Value != nil {
		defer r.Value.Close()
	}
	if m.Run != run {
		return m, nil
	}
	key, err := kgo.ReadAll(r.Key)
	if err != nil {
		return m, err
	}
	m.Source = string(key)
	m.Value, err = kgo.ReadAll(r.Value)
	return m, err
}

// OffsetAt is the offset of the first message of a partition at or after t, or the partition's end where there is none.
// The zero time means the partition's beginning.
func (c *Client) OffsetAt(ctx context.Context, partition int, t time.Time) (int64, error) {
	if t.IsZero() {
		offset, _, err := c.listOffset(ctx, kgo.FirstOffsetOf(partition), partition)
		return offset, err
	}
	// The end is asked first: what arrives between the two questions must not be skipped.
	end, _, err := c.listOffset(ctx, kgo.LastOffsetOf(partition), partition)
	if err != nil {
		return 0, err
	}
	offset, found, err := c.listOffset(ctx, kgo.TimeOffsetOf(partition, t), partition)
	if err != nil || found {
		return offset, err
	}
	return end, nil
}

// listOffset asks for one offset; found is false where no message is as late as the time asked for.
func (c *Client) listOffset(ctx context.Context, ask kgo.OffsetRequest, partition int) (offset int64, found bool, err error) {
	res, err := c.client.ListOffsets(ctx, &kgo.ListOffsetsRequest{Topics: map[string][]kgo.OffsetRequest{c.cfg.Topic: {ask}}})
	if err != nil {
		return 0, false, fmt.Errorf("offsets of the topic %s of Kafka at %s: %w", c.cfg.Topic, c.cfg.Address, err)
	}
	for _, p := range res.Topics[c.cfg.Topic] {
		if p.Partition != partition {
			continue
		}
		if p.Error != nil {
			return 0, false, fmt.Errorf("offsets of partition %d of the topic %s of Kafka at %s: %w", partition, c.cfg.Topic, c.cfg.Address, p.Error)
		}
		switch ask.Timestamp {
		case kgo.FirstOffset:
			return p.FirstOffset, true, nil
		case kgo.LastOffset:
			return p.LastOffset, true, nil
		}
		for o := range p.Offsets {
			if o >= 0 {
				return o, true, nil
			}
		}
		return 0, false, nil
	}
	return 0, false, fmt.Errorf("there is no partition %d of the topic %s in Kafka at %s", partition, c.cfg.Topic, c.cfg.Address)
}
