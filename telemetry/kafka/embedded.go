package kafka

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	kgo "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DefaultHold is a good EmbeddedConfig.HoldBytes: some seconds of the busiest event, compressed.
const DefaultHold = 32 << 20

// segmentBytes of the embedded broker: its files are deleted whole, and the last one of each partition stays.
const segmentBytes = 4 << 20

// EmbeddedConfig of an embedded broker.
type EmbeddedConfig struct {
	Dir        string                                 // data folder: what was acknowledged survives a kill -9 (not a crash of the machine)
	Addr       string                                 // "127.0.0.1:0"
	Public     func(listening string) (string, error) // makes the address that clients are told to come to, of something in front; nil: Addr
	Topic      string                                 // "" = DefaultTopic
	Partitions int                                    // 0 = DefaultPartitions
	Retention  time.Duration                          // 0 = a day

	// HoldBytes bounds what the broker takes before it is told, by Stored, that it is no longer needed: producers are
	// then held back (Publish returns ErrHeldBack), and their spools grow instead. 0: no bound.
	HoldBytes int64
}

// Embedded is a broker inside this process.
type Embedded struct {
	cfg     EmbeddedConfig
	cluster *kfake.Cluster
	addr    net.Addr

	held atomic.Int64 // bytes taken and not stored, about

	mu     sync.Mutex
	stored map[int32]int64 // partition → offset, not deleted yet
	wake   chan struct{}
}

// ListenEmbedded binds the address and starts a broker with the topic in it.
func ListenEmbedded(cfg EmbeddedConfig) (*Embedded, error) {
	if cfg.Topic == "" {
		cfg.Topic = DefaultTopic
	}
	if cfg.Partitions == 0 {
		cfg.Partitions = DefaultPartitions
	}
	if cfg.Retention == 0 {
		cfg.Retention = 24 * time.Hour
	}
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("the embedded Kafka cannot listen on %s: %w", cfg.Addr, err)
	}
	if cfg.Public != nil {
		public, err := cfg.Public(listener.Addr().String())
		if err == nil {
			listener, err = advertise(listener, public)
		}
		if err != nil {
			listener.Close()
			return nil, fmt.Errorf("what stands in front of the embedded Kafka: %w", err)
		}
	}
	// Without kfake.SyncWrites a batch is written to its file before it is acknowledged, and not synced: it survives the
	// process, as an event in the spool does, and costs no wait for the disk.
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return listener, nil }),
		kfake.ClusterID("tminus"),
		kfake.DataDir(cfg.Dir),
		kfake.SeedTopics(int32(cfg.Partitions), cfg.Topic),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.ms":  strconv.FormatInt(cfg.Retention.Milliseconds(), 10),
			"log.segment.bytes": strconv.Itoa(segmentBytes),
		}),
	)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("the embedded Kafka cannot start on its data folder %s: %w", cfg.Dir, err)
	}
	e := &Embedded{cfg: cfg, cluster: cluster, addr: listener.Addr(), stored: make(map[int32]int64), wake: make(chan struct{}, 1)}
	if cfg.HoldBytes > 0 {
		e.weigh()
		cluster.ControlKey(int16(kmsg.Produce), e.admit)
	}
	return e, nil
}

// advertised is a listener that is reached at another address than it listens on: a broker tells its clients where to
// come, and they come there from then on.
type advertised struct {
	net.Listener
	public net.Addr
}

func (a advertised) Addr() net.Addr { return a.public }

func advertise(l net.Listener, public string) (net.Listener, error) {
	addr, err := net.ResolveTCPAddr("tcp", public)
	if err != nil {
		return l, err
	}
	return advertised{l, addr}, nil
}

// Addr is the address that clients come to, as Config.Address takes it.
func (e *Embedded) Addr() string { return e.addr.String() }

// Held is how many bytes were taken and not yet said to be stored, about.
func (e *Embedded) Held() int64 { return e.held.Load() }

// Stored says that the messages of a partition, up to and with the one at offset, are stored elsewhere for good: the
// broker forgets those before it. The last one stays, so that offsets go on from there even after a kill -9. It
// returns at once.
func (e *Embedded) Stored(partition int, offset int64) {
	e.mu.Lock()
	e.stored[int32(partition)] = max(offset, e.stored[int32(partition)])
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Run serves until ctx ends.
func (e *Embedded) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			e.cluster.Close()
			return nil
		case <-e.wake:
			e.forget()
		}
	}
}

func (e *Embedded) forget() {
	e.mu.Lock()
	stored := e.stored
	e.stored = make(map[int32]int64)
	e.mu.Unlock()
	for partition, offset := range stored {
		// An offset that is before the start was deleted before; one past the end is another broker's.
		_ = e.cluster.DeleteRecords(e.cfg.Topic, partition, offset)
	}
	e.weigh()
}

// weigh counts what is held: admit adds as it comes, and knows of nothing else.
func (e *Embedded) weigh() {
	var n int64
	for _, p := range e.cluster.PartitionInfos(e.cfg.Topic) {
		n += p.NumBytes
	}
	e.held.Store(n)
}

// admit looks at each produce request before the broker does, and refuses it when the broker is full.
func (e *Embedded) admit(r kmsg.Request) (kmsg.Response, error, bool) {
	e.cluster.KeepControl()
	req := r.(*kmsg.ProduceRequest)
	if e.held.Load() < e.cfg.HoldBytes {
		for _, t := range req.Topics {
			for _, p := range t.Partitions {
				e.held.Add(int64(len(p.Records)))
			}
		}
		return nil, nil, false
	}
	res := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.Topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			partition := kmsg.NewProduceResponseTopicPartition()
			partition.Partition, partition.ErrorCode = p.Partition, int16(kgo.ThrottlingQuotaExceeded)
			topic.Partitions = append(topic.Partitions, partition)
		}
		res.Topics = append(res.Topics, topic)
	}
	return res, nil, true
}
