package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/scenarios/rehearsal"
	"github.com/tminus-live/tminus/telemetry/clickhouse/engine"
	"github.com/tminus-live/tminus/telemetry/priority"
)

// What a child process cannot do it tells its parent, which says it to the person.

// regionNice is the scheduling priority of a region: after the crowd's clock, before the conductor and the store.
const regionNice = -5

// regionCommand is a region of the reference pipeline, as a child process.
func regionCommand() *cobra.Command {
	return child(rehearsal.RegionCommand, func(ctx context.Context, cfg rehearsal.RegionConfig, log *slog.Logger) (err error) {
		go keepTo(ctx, regionMemory)
		// What is rehearsed does not wait for what measures it, which shares this machine; without the privilege it does.
		if err := priority.Set(regionNice); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
		events, err := cfg.Events.Open(log)
		if err != nil {
			return err
		}
		// The last events are handed in after the last component has ended.
		defer func() {
			if e := events.Close(); err == nil {
				err = e
			}
		}()
		region, err := pipeline.Listen(cfg.Pipeline, events, log)
		if err != nil {
			return err
		}
		go func() {
			if !cfg.Again { // else it listens, and whoever connects is answered
				select {
				case <-region.Ready():
				case <-ctx.Done():
					return
				}
			}
			if err := process.Ready(nil); err != nil {
				log.Error("cannot tell the parent", "error", err)
			}
		}()
		return region.Run(ctx)
	})
}

// startsCommand is the open-loop crowd, as a child process.
func startsCommand() *cobra.Command { return child(rehearsal.StartsCommand, rehearsal.SendStarts) }

// storeCommand is the embedded ClickHouse engine, as a child process: it takes over the process it runs in.
func storeCommand() *cobra.Command {
	return child(rehearsal.StoreCommand, func(ctx context.Context, cfg rehearsal.StoreConfig, log *slog.Logger) error {
		srv, err := engine.Listen(engine.Config{Dir: cfg.Dir, Addr: cfg.Addr, Logger: log})
		if err != nil {
			return err
		}
		if err := process.Ready(map[string]string{rehearsal.StoreURL: srv.URL()}); err != nil {
			return err
		}
		return srv.Run(ctx)
	})
}

// watchdogCommand is what puts the machine back in order when the conductor dies. Unlike the others it outlives its parent.
func watchdogCommand() *cobra.Command {
	return &cobra.Command{
		Use:    watchdog.Command,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if status := watchdog.Serve(); status != 0 {
				return exit{status, nil} // it has nobody to tell: what is left is in its journal
			}
			return nil
		},
	}
}

// child is a hidden command that takes its configuration C from standard input and tells its parent what goes wrong.
func child[C any](name string, serve func(context.Context, C, *slog.Logger) error) *cobra.Command {
	return &cobra.Command{
		Use:    name,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			err := func() error {
				raw, err := process.Config()
				if err != nil {
					return err
				}
				var cfg C
				if err := json.Unmarshal(raw, &cfg); err != nil {
					return fmt.Errorf("the parent's configuration: %w", err)
				}
				return serve(cmd.Context(), cfg, log)
			}()
			if err != nil {
				_ = process.Fail(err) // once it is ready nobody listens any more: then it is in the log
			}
			return err
		},
	}
}
