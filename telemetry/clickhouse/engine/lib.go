package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Version of the engine that install.sh puts into the cache folder.
const Version = "26.7.3-stable.1"

// ErrNoLib says that the engine's library is not on this machine.
var ErrNoLib = errors.New("the embedded ClickHouse engine is not installed")

// FindLib returns the path of libchdb.so: $TMINUS_CHDB_LIB if set, else the shared cache folder
// ($XDG_CACHE_HOME/tminus/chdb/VERSION, by default under ~/.cache). The error wraps ErrNoLib and says what to do.
func FindLib() (string, error) {
	if lib := os.Getenv("TMINUS_CHDB_LIB"); lib != "" {
		if !isFile(lib) {
			return "", fmt.Errorf("%w: TMINUS_CHDB_LIB names %s, which is not a file", ErrNoLib, lib)
		}
		return lib, nil
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("%w: no home folder to look in (%w); set TMINUS_CHDB_LIB", ErrNoLib, err)
		}
		cache = filepath.Join(home, ".cache")
	}
	lib := filepath.Join(cache, "tminus", "chdb", Version, "libchdb.so")
	if !isFile(lib) {
		return "", fmt.Errorf("%w: %s is missing; run `make setup`, or give --clickhouse (TMINUS_CLICKHOUSE) the address of a server", ErrNoLib, lib)
	}
	return lib, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() > 0
}

// capi is the part of chdb.h that is used. Handles are pointers into the engine's own memory.
type capi struct {
	setSignalHandlers func(enabled int32)
	connect           func(argc int32, argv unsafe.Pointer) unsafe.Pointer // chdb_connection *
	query             func(conn unsafe.Pointer, sql unsafe.Pointer, n uintptr, format string, formatLen uintptr,
		names, nameLens, values, valueLens unsafe.Pointer, params uintptr) unsafe.Pointer
	stream func(conn unsafe.Pointer, sql unsafe.Pointer, n uintptr, format string, formatLen uintptr,
		names, nameLens, values, valueLens unsafe.Pointer, params uintptr) unsafe.Pointer
	fetch        func(conn, result unsafe.Pointer) unsafe.Pointer
	cancel       func(conn, result unsafe.Pointer)
	destroy      func(result unsafe.Pointer)
	buffer       func(result unsafe.Pointer) unsafe.Pointer
	length       func(result unsafe.Pointer) uintptr
	errorOf      func(result unsafe.Pointer) string
	rowsWritten  func(result unsafe.Pointer) uint64
	insert       func(conn unsafe.Pointer, sql unsafe.Pointer, n uintptr, format string, formatLen uintptr) unsafe.Pointer
	insertAppend func(stream unsafe.Pointer, data unsafe.Pointer, n uintptr) int32
	insertDone   func(stream unsafe.Pointer) unsafe.Pointer
	insertCancel func(stream unsafe.Pointer)
	insertError  func(stream unsafe.Pointer) string
	insertFree   func(stream unsafe.Pointer)
}

func load(lib string) (_ *capi, err error) {
	handle, err := purego.Dlopen(lib, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("cannot load the ClickHouse engine %s: %w", lib, err)
	}
	defer func() { // RegisterLibFunc panics where a symbol is missing
		if r := recover(); r != nil {
			err = fmt.Errorf("%s is not the ClickHouse engine that this program knows (%s): %v", lib, Version, r)
		}
	}()
	c := new(capi)
	for _, f := range []struct {
		to   any
		name string
	}{
		{&c.setSignalHandlers, "chdb_set_signal_handlers_enabled"},
		{&c.connect, "chdb_connect"},
		{&c.query, "chdb_query_with_params_n"},
		{&c.stream, "chdb_stream_query_with_params_n"},
		{&c.fetch, "chdb_stream_fetch_result"},
		{&c.cancel, "chdb_stream_cancel_query"},
		{&c.destroy, "chdb_destroy_query_result"},
		{&c.buffer, "chdb_result_buffer"},
		{&c.length, "chdb_result_length"},
		{&c.errorOf, "chdb_result_error"},
		{&c.rowsWritten, "chdb_result_rows_written"},
		{&c.insert, "chdb_stream_insert_n"},
		{&c.insertAppend, "chdb_stream_append"},
		{&c.insertDone, "chdb_stream_done"},
		{&c.insertCancel, "chdb_stream_cancel_insert"},
		{&c.insertError, "chdb_stream_insert_error"},
		{&c.insertFree, "chdb_destroy_insert_stream"},
	} {
		purego.RegisterLibFunc(f.to, handle, f.name)
	}
	return c, nil
}

// conn is one connection to the engine: one statement at a time.
type conn struct {
	c        *capi
	h        unsafe.Pointer
	database string
}

// open starts the engine on dir (the first time) and connects to it.
func (c *capi) open(dir string) (*conn, error) {
	args := []string{"clickhouse", "--path=" + dir}
	argv := make([]*byte, len(args)+1)
	for i, a := range args {
		argv[i] = &append([]byte(a), 0)[0]
	}
	// The library resets the handlers of deadly signals when told to leave them alone, and again when it connects; the
	// Go runtime needs its own.
	restore := saveSignals()
	c.setSignalHandlers(0)
	p := c.connect(int32(len(args)), unsafe.Pointer(&argv[0]))
	restore()
	runtime.KeepAlive(argv)
	if p == nil {
		return nil, fmt.Errorf("the ClickHouse engine cannot open the data folder %s: is it writable, and free of another process?", dir)
	}
	return &conn{c: c, h: *(*unsafe.Pointer)(p), database: "default"}, nil
}

// Exception is an error the engine answered with.
type Exception struct {
	Code    int // ClickHouse's error code; 0 where the text has none
	Message string
}

func (e *Exception) Error() string { return e.Message }

func exception(msg string) *Exception {
	e := &Exception{Message: strings.TrimSpace(msg)}
	// Some paths wrap the same error several times: "Code: 60. DB::Exception: Code: 60. DB::Exception: …".
	for {
		var code int
		rest := strings.TrimPrefix(e.Message, "Code: ")
		if _, err := fmt.Sscanf(rest, "%d.", &code); rest == e.Message || err != nil {
			return e
		}
		e.Code = code
		_, inner, ok := strings.Cut(rest, "DB::Exception: ")
		if !ok || !strings.HasPrefix(inner, "Code: ") {
			return e
		}
		e.Message = inner
	}
}

type param struct{ name, value string }

type cparams struct {
	names, values   []*byte
	nameLen, valLen []uintptr
}

func cParams(params []param) cparams {
	var p cparams
	for _, q := range params {
		p.names = append(p.names, &append([]byte(q.name), 0)[0])
		p.nameLen = append(p.nameLen, uintptr(len(q.name)))
		p.values = append(p.values, &append([]byte(q.value), 0)[0])
		p.valLen = append(p.valLen, uintptr(len(q.value)))
	}
	return p
}

func (k *conn) start(stream bool, sql, format string, params []param) unsafe.Pointer {
	q := append([]byte(sql), 0)
	p := cParams(params)
	f := k.c.query
	if stream {
		f = k.c.stream
	}
	r := f(k.h, unsafe.Pointer(&q[0]), uintptr(len(sql)), format, uintptr(len(format)),
		unsafe.Pointer(unsafe.SliceData(p.names)), unsafe.Pointer(unsafe.SliceData(p.nameLen)),
		unsafe.Pointer(unsafe.SliceData(p.values)), unsafe.Pointer(unsafe.SliceData(p.valLen)), uintptr(len(params)))
	runtime.KeepAlive(q)
	runtime.KeepAlive(p)
	return r
}

// failed returns the error of a result, or nil.
func (k *conn) failed(r unsafe.Pointer) error {
	if r == nil {
		return &Exception{Message: "the engine gave no result"}
	}
	if msg := k.c.errorOf(r); msg != "" {
		return exception(msg)
	}
	return nil
}

func (k *conn) bytes(r unsafe.Pointer) []byte {
	n := k.c.length(r)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(k.c.buffer(r)), n)
}

// query runs one statement and hands its output to write, in chunks that are only valid during the call. Streaming
// keeps the memory of a large result bounded; only SELECT can be streamed.
func (k *conn) query(sql, format string, params []param, stream bool, write func([]byte) error) error {
	r := k.start(stream, sql, format, params)
	if r != nil {
		defer k.c.destroy(r)
	}
	if err := k.failed(r); err != nil {
		return err
	}
	if !stream {
		if b := k.bytes(r); b != nil {
			return write(b)
		}
		return nil
	}
	for {
		done, err := k.next(r, write)
		if err != nil {
			k.c.cancel(k.h, r)
			return err
		}
		if done {
			return nil
		}
	}
}

func (k *conn) next(r unsafe.Pointer, write func([]byte) error) (done bool, err error) {
	chunk := k.c.fetch(k.h, r)
	if chunk != nil {
		defer k.c.destroy(chunk)
	}
	if err := k.failed(chunk); err != nil {
		return false, err
	}
	b := k.bytes(chunk)
	if len(b) == 0 {
		return true, nil
	}
	return false, write(b)
}

func (k *conn) exec(sql string) error {
	return k.query(sql, "Null", nil, false, func([]byte) error { return nil })
}

// insert runs "INSERT INTO t (a, b)" with data in format and returns the rows written. When it returns without an
// error the rows survive a kill -9 of the process.
func (k *conn) insert(sql, format string, data []byte) (rows uint64, err error) {
	q := append([]byte(sql), 0)
	s := k.c.insert(k.h, unsafe.Pointer(&q[0]), uintptr(len(sql)), format, uintptr(len(format)))
	if s == nil {
		return 0, &Exception{Message: "the engine gave no insert stream"}
	}
	defer k.c.insertFree(s)
	if msg := k.c.insertError(s); msg != "" {
		return 0, exception(msg)
	}
	if len(data) > 0 && k.c.insertAppend(s, unsafe.Pointer(&data[0]), uintptr(len(data))) != 0 {
		msg := k.c.insertError(s)
		k.c.insertCancel(s)
		return 0, exception(msg)
	}
	r := k.c.insertDone(s)
	if r != nil {
		defer k.c.destroy(r)
	}
	if err := k.failed(r); err != nil {
		return 0, err
	}
	return k.c.rowsWritten(r), nil
}
