package rehearsal

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/telemetry/clickhouse"
)

// StoreFolder is the embedded store's data, below a run's folder.
const StoreFolder = "store"

// storeGrace bounds the orderly end of the embedded engine, which finishes what it is writing.
const storeGrace = 30 * time.Second

// spawnStore starts the embedded ClickHouse engine on a data folder, in a child process, and returns its address.
func spawnStore(ctx context.Context, dir, logPath string, log *slog.Logger) (*process.Process, string, error) {
	stdin, err := json.Marshal(StoreConfig{Dir: dir, Addr: "127.0.0.1:0"})
	if err != nil {
		return nil, "", err
	}
	p, err := process.Start(ctx, process.Spec{
		Name:    "store",
		Args:    []string{StoreCommand},
		Stdin:   stdin,
		LogPath: logPath,
		Logger:  log,

		StopGrace: storeGrace,
	})
	if err != nil {
		return nil, "", err
	}
	return p, p.Info()[StoreURL], nil
}

// OpenStore opens the store of a finished run, for questions of one's own. The function returned closes it.
func OpenStore(ctx context.Context, folder string, log *slog.Logger) (*clickhouse.DB, func() error, error) {
	p, url, err := spawnStore(ctx, filepath.Join(folder, StoreFolder), "", log)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the store of %s: %w", folder, err)
	}
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*storeGrace)
		defer cancel()
		return p.Stop(ctx)
	}
	db, err := clickhouse.Open(ctx, url)
	if err != nil {
		_ = stop() // the first error says more
		return nil, nil, err
	}
	return db, func() error {
		err := db.Close()
		if e := stop(); err == nil {
			err = e
		}
		return err
	}, nil
}
