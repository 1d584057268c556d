package kafka

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// EmbeddedConfig of an embedded broker.
type EmbeddedConfig struct {
	Dir        string        // data folder: what was acknowledged survives a kill -9
	Addr       string        // "127.0.0.1:0"
	Topic      string        // "" = DefaultTopic
	Partitions int           // 0 = DefaultPartitions
	Retention  time.Duration // 0 = a day
}

// Embedded is a broker inside this process.
type Embedded struct {
	cluster *kfake.Cluster
	addr    net.Addr
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
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return listener, nil }),
		kfake.ClusterID("tminus"),
		kfake.DataDir(cfg.Dir),
		kfake.SyncWrites(), // without it a batch is acknowledged before it is on disk
		kfake.SeedTopics(int32(cfg.Partitions), cfg.Topic),
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": strconv.FormatInt(cfg.Retention.Milliseconds(), 10)}),
	)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("the embedded Kafka cannot start on its data folder %s: %w", cfg.Dir, err)
	}
	return &Embedded{cluster: cluster, addr: listener.Addr()}, nil
}

// Addr is the address that is listened on, as Config.Address takes it.
func (e *Embedded) Addr() string { return e.addr.String() }

// Run serves until ctx ends.
func (e *Embedded) Run(ctx context.Context) error {
	<-ctx.Done()
	e.cluster.Close()
	return nil
}
