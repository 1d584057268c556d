package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// DefaultDatabase is used where the address names none.
const DefaultDatabase = "tminus"

const (
	dialTimeout = 3 * time.Second
	readTimeout = time.Minute
	maxConns    = 8
)

// DB is a store of events. Safe for concurrent use.
type DB struct {
	conn    driver.Conn
	inserts driver.Conn // one connection: each keeps a buffer as large as its largest insert
	address string      // without the password
	name    string
}

// Named is a query parameter: {name:Type} in the SQL.
func Named(name, value string) driver.NamedValue { return ch.Named(name, value) }

var databaseName = regexp.MustCompile(`^[A-Za-z0-9_]{1,100}$`)

// ErrUnreachable is wrapped by Open's error when no ClickHouse answers at the address.
var ErrUnreachable = errors.New("cannot reach ClickHouse")

// parse returns the options of an address and the address to show.
func parse(address string) (*ch.Options, string, error) {
	if !strings.Contains(address, "://") {
		address = "clickhouse://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, "", errors.New("the address of ClickHouse must be like clickhouse://host:9000 or http://host:8123")
	}
	shown := u.Redacted()
	q := u.Query()
	switch u.Scheme {
	case "http", "clickhouse", "tcp":
	case "https":
		q.Set("secure", "true")
		u.RawQuery = q.Encode()
	default:
		return nil, "", fmt.Errorf("ClickHouse is not spoken to over %s: use clickhouse:// or http:// in %s", u.Scheme, shown)
	}
	if u.Port() == "" && (u.Scheme == "clickhouse" || u.Scheme == "tcp") {
		return nil, "", fmt.Errorf("the address of ClickHouse needs a port, such as clickhouse://host:9000 or http://host:8123: %s has none", shown)
	}
	opt, err := ch.ParseDSN(u.String())
	if err != nil {
		return nil, "", fmt.Errorf("the address of ClickHouse, %s: %w", shown, err)
	}
	if opt.Auth.Database == "" {
		opt.Auth.Database = DefaultDatabase
	}
	if !databaseName.MatchString(opt.Auth.Database) {
		return nil, "", fmt.Errorf("%q in %s is no name of a database: letters, digits and _", opt.Auth.Database, shown)
	}
	if opt.DialTimeout == 0 {
		opt.DialTimeout = dialTimeout
	}
	if opt.ReadTimeout == 0 {
		opt.ReadTimeout = readTimeout
	}
	if opt.MaxOpenConns == 0 {
		opt.MaxOpenConns, opt.MaxIdleConns = maxConns, maxConns
	}
	return opt, shown, nil
}

// CheckAddress says what is wrong with an address that Open is to be given, or nil; it connects to nobody.
func CheckAddress(address string) error {
	_, _, err := parse(address)
	return err
}

// Open connects to the ClickHouse at address, makes what is missing of the schema, and returns within a few seconds,
// with an error that wraps ErrUnreachable when nothing answers there.
func Open(ctx context.Context, address string) (*DB, error) {
	opt, shown, err := parse(address)
	if err != nil {
		return nil, err
	}
	conn, err := ch.Open(opt)
	if err != nil {
		return nil, fmt.Errorf("ClickHouse at %s: %w", shown, err)
	}
	one := *opt
	one.MaxOpenConns, one.MaxIdleConns = 1, 1
	inserts, err := ch.Open(&one)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ClickHouse at %s: %w", shown, err)
	}
	db := &DB{conn: conn, inserts: inserts, address: shown, name: opt.Auth.Database}
	if err := db.open(ctx, opt); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, opt *ch.Options) error {
	if err := db.ping(ctx, opt); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return db.migrate(ctx, opt)
}

func (db *DB) ping(ctx context.Context, opt *ch.Options) error {
	ctx, cancel := context.WithTimeout(ctx, opt.DialTimeout+2*time.Second)
	defer cancel()
	first := *opt
	first.Auth.Database = "default" // ours may not exist yet
	first.MaxOpenConns, first.MaxIdleConns = 1, 1
	conn, err := ch.Open(&first)
	if err != nil {
		return fmt.Errorf("ClickHouse at %s: %w", db.address, err)
	}
	defer conn.Close()
	if err := conn.Ping(ctx); err != nil {
		return fmt.Errorf("%w at %s: %w", ErrUnreachable, db.address, plain(err))
	}
	return nil
}

// plain takes the part of a connection's error that a person can act on out of its wrapping.
func plain(err error) error {
	var timeout net.Error
	if errors.Is(err, ch.ErrAcquireConnTimeout) || errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout()) {
		return errors.New("no answer in time")
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	return err
}

// Close ends the connections.
func (db *DB) Close() error { return errors.Join(db.inserts.Close(), db.conn.Close()) }

// Address is where the store is, without a password: for reports and errors.
func (db *DB) Address() string { return db.address }

// Query runs a SELECT. The table is "events"; values go in as Named parameters.
func (db *DB) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	return db.conn.Query(ctx, sql, args...)
}

// ReadOnly makes queries with the context it returns unable to change anything: for questions that a person types.
func ReadOnly(ctx context.Context) context.Context {
	// 2: settings of the query itself are still allowed, which the driver needs for its own.
	return ch.Context(ctx, ch.WithSettings(ch.Settings{"readonly": 2}))
}

// QueryRow runs a SELECT of one row.
func (db *DB) QueryRow(ctx context.Context, sql string, args ...any) driver.Row {
	return db.conn.QueryRow(ctx, sql, args...)
}

// Exec runs a statement without a result.
func (db *DB) Exec(ctx context.Context, sql string, args ...any) error {
	return db.conn.Exec(ctx, sql, args...)
}

// Stored counts a run's events in the store.
func (db *DB) Stored(ctx context.Context, run string) (uint64, error) {
	var n uint64
	if err := db.QueryRow(ctx, "SELECT count() FROM events WHERE run = {run:String}", Named("run", run)).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting the stored events: %w", err)
	}
	return n, nil
}
