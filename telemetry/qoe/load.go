package qoe

import (
	"context"
	"fmt"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
)

// LoadSecond is what the open-loop crowd did in one second of the event.
type LoadSecond struct {
	Scheduled float64 // play starts that the schedule had due
	Requests  float64 // sent, with every retry and return
	Shed      float64 // play starts that ended so
}

// LoadSeconds computes the seconds [0, n) from start, each of them present, of all processes that send the crowd.
func LoadSeconds(ctx context.Context, db *clickhouse.DB, run string, start time.Time, n int) ([]LoadSecond, error) {
	if n < 0 || n > MaxSeconds {
		return nil, fmt.Errorf("a timeline of %d seconds: at most %d", n, MaxSeconds)
	}
	wrap := func(err error) error { return fmt.Errorf("the load of run %s by second: %w", run, err) }
	seconds := make([]LoadSecond, n)
	rows, err := db.Query(ctx, `SELECT toInt64(floor((toUnixTimestamp64Micro(at) - {start:Int64}) / 1000000)) AS t, sum(nums['scheduled']), sum(nums['requests']), sum(nums['shed'])
		FROM events WHERE run = {run:String} AND kind = 'load_stats' GROUP BY t HAVING t >= 0 AND t < {n:Int64}`,
		clickhouse.Named("run", run), clickhouse.Named("start", fmt.Sprint(start.UnixMicro())), clickhouse.Named("n", fmt.Sprint(n)))
	if err != nil {
		return nil, wrap(err)
	}
	defer rows.Close()
	for rows.Next() {
		var t int64
		var s LoadSecond
		if err := rows.Scan(&t, &s.Scheduled, &s.Requests, &s.Shed); err != nil {
			return nil, wrap(err)
		}
		seconds[t] = s
	}
	if err := rows.Err(); err != nil {
		return nil, wrap(err)
	}
	return seconds, nil
}

// Sending is how well the machines that send the crowd kept its time.
type Sending struct {
	Sent uint64 // by the open-loop crowd
	Late uint64 // of them, those that went out more than 10 ms after their moment by the sender's own doing
}

// SendingOf sums over all processes that send the crowd.
func SendingOf(ctx context.Context, db *clickhouse.DB, run string) (s Sending, err error) {
	err = db.QueryRow(ctx, `SELECT toUInt64(sum(nums['sent'])), toUInt64(sum(nums['late'])) FROM events WHERE run = {run:String} AND kind = 'load_stats'`,
		clickhouse.Named("run", run)).Scan(&s.Sent, &s.Late)
	if err != nil {
		return s, fmt.Errorf("how the load of run %s was sent: %w", run, err)
	}
	return s, nil
}

// Returns is how viewers who had lost their picture came back.
type Returns struct {
	Viewers  uint64  // whose play start has ended
	OK       uint64  // that are watching again, by to
	Attempts float64 // requests for each
	BackS    float64 // seconds from from until 95 % of all who were cut off were watching again; -1: they were not
}

// ReturnsOf computes the returns that ended in [from, to), of so many viewers who were cut off: those who never come back, and of
// whom there is no event, are among them.
func ReturnsOf(ctx context.Context, db *clickhouse.DB, run string, from, to time.Time, cutOff uint64) (r Returns, err error) {
	var back float64
	err = db.QueryRow(ctx, `SELECT count(), countIf(status = 'ok'), if(count() = 0, 0, avg(attempts)),
			arrayElement(arraySort(groupArrayIf((toUnixTimestamp64Micro(at) - {from:Int64}) / 1000000, status = 'ok')), toUInt64(greatest(1, ceil(0.95 * {cut:UInt64}))))
		FROM events WHERE run = {run:String} AND kind = 'play_start' AND state = 'return'
			AND at >= fromUnixTimestamp64Micro({from:Int64}) AND at < fromUnixTimestamp64Micro({to:Int64})`,
		clickhouse.Named("run", run), clickhouse.Named("from", fmt.Sprint(from.UnixMicro())), clickhouse.Named("to", fmt.Sprint(to.UnixMicro())),
		clickhouse.Named("cut", fmt.Sprint(cutOff))).
		Scan(&r.Viewers, &r.OK, &r.Attempts, &back)
	if err != nil {
		return r, fmt.Errorf("the returns of run %s: %w", run, err)
	}
	if r.BackS = back; r.OK == 0 || float64(r.OK) < 0.95*float64(cutOff) {
		r.BackS = -1
	}
	return r, nil
}
