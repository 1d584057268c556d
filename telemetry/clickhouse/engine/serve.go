package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
	"golang.org/x/net/netutil"

	"github.com/tminus-live/tminus/telemetry/priority"
)

// Bounds of the server.
const (
	MaxBody       = 64 << 20         // bytes of a statement or of an INSERT's data
	MaxStatement  = 1 << 20          // bytes of ?query=
	maxHTTPConns  = 64               // connections at once
	maxQueryTime  = 60 * time.Second // of one statement, unless ?max_execution_time= says less
	maxReadTime   = 30 * time.Second // to read a request
	maxWriteTime  = 5 * time.Minute  // to answer it
	engineConns   = 4                // statements at once; more wait their turn
	maxMemory     = 4 << 30          // bytes one statement may use
	maxParameters = 64

	// DefaultNice leaves the engine a tenth of what others get while they want all of the machine, and everything when
	// they do not: it has a whole spool to catch up from, and they have only this moment.
	DefaultNice = 10
)

// Config of an embedded engine.
type Config struct {
	Dir  string // data folder; made if missing; held by this process alone
	Addr string // "127.0.0.1:0"
	Lib  string // libchdb.so; "" = FindLib
	Nice int    // scheduling priority of the whole process, 1 to 19 (least); 0 = DefaultNice, negative: left as it is

	Logger *slog.Logger // nil = none
}

// Server is the engine behind its HTTP face.
type Server struct {
	listener net.Listener
	conns    chan *conn
	hello    helloAnswer
	log      *slog.Logger
	lock     *os.File
}

// Listen binds the address, takes the data folder and starts the engine (about 0.3 s). One engine per process: the
// second call fails.
func Listen(cfg Config) (_ *Server, err error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	lib := cfg.Lib
	if lib == "" {
		if lib, err = FindLib(); err != nil {
			return nil, err
		}
	}
	lower := func() {
		nice := cmp.Or(cfg.Nice, DefaultNice)
		if nice < 0 {
			return
		}
		if err := priority.GiveWay(nice); err != nil { // it works as well as it does
			log.Warn("the embedded ClickHouse keeps its priority", "error", err)
		}
	}
	lower()
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("the embedded ClickHouse cannot listen on %s: %w", cfg.Addr, err)
	}
	s := &Server{listener: netutil.LimitListener(listener, maxHTTPConns), conns: make(chan *conn, engineConns), log: log}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("the embedded ClickHouse's data folder %s: %w", cfg.Dir, err)
	}
	if s.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	c, err := load(lib)
	if err != nil {
		return nil, err
	}
	for range engineConns {
		k, err := c.open(dir)
		if err != nil {
			return nil, err
		}
		for _, set := range []string{
			"SET session_timezone = 'UTC'",
			fmt.Sprintf("SET max_execution_time = %d", int(maxQueryTime.Seconds())),
			fmt.Sprintf("SET max_memory_usage = %d", maxMemory),
		} {
			if err := k.exec(set); err != nil {
				return nil, fmt.Errorf("the embedded ClickHouse does not take %q: %w", set, err)
			}
		}
		s.conns <- k
	}
	if s.hello, err = s.askHello(); err != nil {
		return nil, err
	}
	lower() // one of the engine's threads has raised its own
	return s, nil
}

func (s *Server) release() {
	s.listener.Close()
	if s.lock != nil {
		s.lock.Close()
	}
}

// lockDir makes the folder and keeps other processes out of it for as long as the file is open.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("the embedded ClickHouse's data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "tminus.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("the embedded ClickHouse's data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("the embedded ClickHouse's data folder %s is in use by another process", dir)
	}
	return f, nil
}

// Addr is the address that is listened on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// URL is the address as clickhouse.Open takes it.
func (s *Server) URL() string { return "http://" + s.Addr().String() }

// Run serves until ctx ends, then lets statements under way finish (5 s at most). The engine itself goes on until the
// process ends: it cannot be shut down cleanly with tables of the MergeTree family, and need not be.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       maxReadTime,
		WriteTimeout:      maxWriteTime,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    MaxStatement + 64<<10, // clickhouse-go puts an INSERT's statement into the URL
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(s.listener) }()
	defer s.lock.Close()
	select {
	case err := <-failed:
		return fmt.Errorf("the embedded ClickHouse on %s stopped serving: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		server.Close()
	}
	<-failed
	return nil
}

// ServeHTTP answers one request of ClickHouse's HTTP interface.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/ping":
		io.WriteString(w, "Ok.\n")
		return
	case r.URL.Path != "/":
		http.Error(w, "no such path; statements go to /", http.StatusNotFound)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		http.Error(w, "only GET and POST", http.StatusMethodNotAllowed)
		return
	}
	req, err := readRequest(w, r)
	if err != nil {
		answerError(w, err)
		return
	}
	defer req.release()
	var k *conn
	select {
	case k = <-s.conns:
		defer func() { s.conns <- k }()
	case <-r.Context().Done():
		return
	case <-time.After(maxReadTime):
		answerError(w, &Exception{Code: 202, Message: "Code: 202. DB::Exception: every connection of the embedded engine is busy. (TOO_MANY_SIMULTANEOUS_QUERIES)"})
		return
	}
	if err := s.answer(w, k, req); err != nil {
		s.log.Debug("statement failed", "error", err)
	}
}

// request is one statement with its surroundings.
type request struct {
	sql, database, format string
	revision              uint64
	params                []param
	settings              []param
	insert                bool // data goes to the INSERT sql, in format
	data                  []byte
	buffer                *bytes.Buffer // holds data until release
}

// bodies are the buffers of request bodies: an insert's is some tens of megabytes, and the next one's is as large.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func (r *request) release() {
	r.data = nil
	bodies.Put(r.buffer)
}

var (
	insertHead   = regexp.MustCompile(`(?is)^\s*INSERT\s+INTO\s`)
	formatTail   = regexp.MustCompile(`(?is)\sFORMAT\s+(\w+)\s*;?\s*$`)
	settingName  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,99}$`)
	databaseName = regexp.MustCompile(`^[A-Za-z0-9_]{1,100}$`)
	// streamable matches what chdb_stream_query takes; everything else is small or has no result.
	streamable = regexp.MustCompile(`(?is)^\s*(SELECT|WITH)\s`)
)

type badRequest struct{ text string }

func (e *badRequest) Error() string { return e.text }

func readRequest(w http.ResponseWriter, r *http.Request) (_ *request, err error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &badRequest{"the URL's query cannot be read"}
	}
	if len(q) > maxParameters {
		return nil, &badRequest{fmt.Sprintf("more than %d parameters", maxParameters)}
	}
	req := &request{format: "TabSeparated", buffer: bodies.Get().(*bytes.Buffer)}
	req.buffer.Reset()
	defer func() {
		if err != nil {
			req.release()
		}
	}()
	if _, err := req.buffer.ReadFrom(http.MaxBytesReader(w, r.Body, MaxBody)); err != nil {
		return nil, &badRequest{fmt.Sprintf("the body cannot be read whole (at most %d bytes): %v", MaxBody, err)}
	}
	body := req.buffer.Bytes()
	for name, values := range q {
		v := values[0]
		switch {
		case name == "query":
			req.sql = v
		case name == "database":
			if !databaseName.MatchString(v) {
				return nil, &badRequest{fmt.Sprintf("%.100q is no name of a database", v)}
			}
			req.database = v
		case name == "default_format":
			req.format = v
		case name == "client_protocol_version":
			if req.revision, err = strconv.ParseUint(v, 10, 32); err != nil {
				return nil, &badRequest{"client_protocol_version is not a number"}
			}
		case name == "compress" || name == "decompress":
			if v != "0" && v != "" {
				return nil, &badRequest{"the embedded ClickHouse does not compress: leave compress out of the address"}
			}
		case strings.HasPrefix(name, "param_"):
			req.params = append(req.params, param{name: strings.TrimPrefix(name, "param_"), value: v})
		case name == "query_id" || name == "quota_key" || name == "user" || name == "password" || name == "wait_end_of_query":
		case settingName.MatchString(name):
			req.settings = append(req.settings, param{name: name, value: v})
		default:
			return nil, &badRequest{fmt.Sprintf("unknown parameter %.100q", name)}
		}
	}
	switch {
	case req.sql == "":
		req.sql = string(body)
	case insertHead.MatchString(req.sql) && len(body) > 0:
		req.insert, req.data = true, body
	case len(body) > 0: // as the real interface has it: the two are one statement
		req.sql += "\n" + string(body)
	}
	if m := formatTail.FindStringSubmatchIndex(req.sql); m != nil {
		req.format = req.sql[m[2]:m[3]]
		if req.insert {
			req.sql = req.sql[:m[0]]
		}
	}
	if strings.TrimSpace(req.sql) == "" {
		return nil, &badRequest{"no statement: give it in the body or in ?query="}
	}
	return req, nil
}

func (s *Server) answer(w http.ResponseWriter, k *conn, req *request) error {
	if isHello(req.sql) {
		return s.hello.answer(w, req)
	}
	if req.database != "" && req.database != k.database {
		if err := k.exec("USE `" + req.database + "`"); err != nil {
			return answerError(w, err)
		}
		k.database = req.database
	}
	for _, set := range req.settings {
		defer k.exec("SET " + set.name + " = DEFAULT") // the connection is another request's next
		if err := k.exec("SET " + set.name + " = '" + escape(set.value) + "'"); err != nil {
			return answerError(w, err)
		}
	}
	if req.insert {
		rows, err := k.insert(req.sql, req.format, req.data)
		if err != nil {
			return answerError(w, err)
		}
		w.Header().Set("X-ClickHouse-Summary", fmt.Sprintf(`{"written_rows":"%d"}`, rows))
		return nil
	}
	out := &output{w: w, format: req.format}
	err := k.query(req.sql, req.format, req.params, streamable.MatchString(req.sql), out.write)
	switch {
	case err == nil:
		return nil
	case !out.begun:
		return answerError(w, err)
	case out.err == nil:
		out.exception(err)
	}
	return err
}

type output struct {
	w      http.ResponseWriter
	format string
	begun  bool
	err    error // of the client's connection
}

func (o *output) write(b []byte) error {
	if !o.begun {
		o.begun = true
		o.w.Header().Set("X-ClickHouse-Format", o.format)
		o.w.Header().Set("Content-Type", "application/octet-stream")
	}
	_, o.err = o.w.Write(b)
	return o.err
}

// exception tells of an error after the result has begun: a framed block at the end of the body, as a server of
// version 25.11 and later writes it (https://clickhouse.com/docs/interfaces/http#http_response_codes_caveats).
func (o *output) exception(err error) {
	const mark, tag = "__exception__", "tminus-exception"
	msg := err.Error()
	fmt.Fprintf(o.w, "\r\n%s\r\n%s\r\n%s\n%d %s\r\n%s\r\n", mark, tag, msg, len(msg)+1, tag, mark)
}

func answerError(w http.ResponseWriter, err error) error {
	var bad *badRequest
	var ex *Exception
	status := http.StatusInternalServerError
	switch {
	case errors.As(err, &bad):
		status = http.StatusBadRequest
	case errors.As(err, &ex):
		w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(ex.Code))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, err.Error()+"\n")
	return err
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s)
}

// helloAnswer is what the first statement of every clickhouse-go connection gets. The Native format has extra bytes
// from protocol revision 1 on, which the engine's library does not write: so the answer, the only one in the client's
// own revision, names revision 0, and everything after it is plain.
type helloAnswer struct{ version, timezone string }

func isHello(sql string) bool {
	return strings.TrimSpace(sql) == "SELECT displayName(), version(), revision(), timezone()"
}

func (s *Server) askHello() (h helloAnswer, err error) {
	k := <-s.conns
	defer func() { s.conns <- k }()
	var out bytes.Buffer
	err = k.query("SELECT version(), timezone()", "TabSeparated", nil, false, func(b []byte) error {
		out.Write(b)
		return nil
	})
	if err != nil {
		return h, fmt.Errorf("the embedded ClickHouse does not say its version: %w", err)
	}
	h.version, h.timezone, _ = strings.Cut(strings.TrimSpace(out.String()), "\t")
	return h, nil
}

func (h helloAnswer) answer(w http.ResponseWriter, req *request) error {
	block := proto.NewBlock()
	for _, c := range []struct{ name, typ string }{
		{"displayName()", "String"}, {"version()", "String"}, {"revision()", "UInt32"}, {"timezone()", "String"},
	} {
		if err := block.AddColumn(c.name, column.Type(c.typ)); err != nil {
			return answerError(w, err)
		}
	}
	if err := block.Append("tminus embedded", h.version, uint32(0), h.timezone); err != nil {
		return answerError(w, err)
	}
	var buf chproto.Buffer
	if err := block.Encode(&buf, req.revision); err != nil {
		return answerError(w, err)
	}
	w.Header().Set("X-ClickHouse-Format", "Native")
	_, err := w.Write(buf.Buf)
	return err
}
