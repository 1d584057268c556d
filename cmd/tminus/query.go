package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/scenarios/rehearsal"
	"github.com/tminus-live/tminus/telemetry/clickhouse"
)

// queryLimit bounds one question.
const queryLimit = 5 * time.Minute

func queryCommand() *cobra.Command {
	var runs string
	cmd := &cobra.Command{
		Use:   "query [RUN] SQL",
		Short: "Ask a finished run's store a question in SQL",
		Long: `Ask the embedded store of a finished run (its folder; the newest in runs/ when none is given) a question in ClickHouse's
SQL and print the answer, tab-separated. The table is events: faults, segments, edges, play starts, viewers' measures and
operators' actions on one timeline.`,
		Example: `  tminus query "SELECT count() FROM events"
  tminus query "SELECT kind, status, count() FROM events GROUP BY ALL ORDER BY 3 DESC"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usage(errors.New("tminus query takes a run's folder (or none: the newest) and one question in quotes"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			sql, folder := args[len(args)-1], ""
			if len(args) == 2 {
				folder = runFolder(runs, args[0])
			} else if folder, err = newestRun(cmd, runs); err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(folder, rehearsal.StoreFolder)); err != nil {
				return fmt.Errorf("%s holds no store: the run wrote to a ClickHouse server of yours, or it is no run's folder", folder)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), queryLimit)
			defer cancel()
			db, stop, err := rehearsal.OpenStore(ctx, folder, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer func() {
				if e := stop(); err == nil {
					err = e
				}
			}()
			return printRows(ctx, cmd.OutOrStdout(), db, sql)
		},
	}
	cmd.Flags().StringVar(&runs, "runs", defaultRuns, "folder that holds the runs' folders")
	return cmd
}

func printRows(ctx context.Context, w io.Writer, db *clickhouse.DB, sql string) error {
	rows, err := db.Query(clickhouse.ReadOnly(ctx), sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	types := rows.ColumnTypes()
	values := make([]any, len(types))
	for rows.Next() {
		for i, t := range types {
			values[i] = reflect.New(t.ScanType()).Interface()
		}
		if err := rows.Scan(values...); err != nil {
			return err
		}
		cells := make([]string, len(values))
		for i, v := range values {
			cells[i] = fmt.Sprint(reflect.ValueOf(v).Elem().Interface())
		}
		if _, err := fmt.Fprintln(w, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return rows.Err()
}
