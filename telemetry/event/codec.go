package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"
)

// Bounds of the wire form. Append cuts what is longer, so that an oversized event is stored short rather than lost;
// Decode refuses what is longer, because nothing of ours writes it.
const (
	MaxLine   = 128 << 10 // bytes of one encoded event
	MaxString = 512       // bytes of a string field, before escaping
	MaxDetail = 2048      // bytes of Detail
	MaxNums   = 64        // entries of Nums
)

// ErrWire is wrapped by every error of Decode.
var ErrWire = errors.New("not an event of the wire form")

// timeLayout is RFC 3339 in UTC with exactly six decimals: it sorts as text, and a fixed width is cheap to read.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// Append appends e as one JSON object without a newline: the form events have in the spool, in Kafka and in
// timeline.ndjson. Zero fields are left out; a NaN or infinite number is left out too (JSON has none); strings are cut
// to their bound and invalid UTF-8 becomes U+FFFD. A play start's Value and LagMS are rounded to the microsecond; every
// other number reads back as it was.
func Append(dst []byte, e *Event) []byte {
	dst = AppendHead(dst, e.Run, e.Source)
	dst = strconv.AppendUint(dst, e.Seq, 10)
	return AppendBody(dst, e)
}

// AppendHead appends the part of an event's line that is the same for all of an emitter's events, up to and including
// the key of Seq. Head, the decimal Seq and AppendBody together are Append.
func AppendHead(dst []byte, run, source string) []byte {
	dst = append(dst, `{"run":`...)
	dst = appendString(dst, run, MaxString)
	dst = append(dst, `,"source":`...)
	dst = appendString(dst, source, MaxString)
	return append(dst, `,"seq":`...)
}

// AppendBody appends everything after Seq. An emitter calls it before it takes its lock.
func AppendBody(dst []byte, e *Event) []byte {
	dst = appendTime(dst, `,"at":"`, e.At)
	dst = appendTime(dst, `,"written":"`, e.Written)
	dst = appendText(dst, `,"kind":`, string(e.Kind))
	dst = appendText(dst, `,"status":`, e.Status)
	dst = appendText(dst, `,"region":`, e.Region)
	dst = appendText(dst, `,"component":`, e.Component)
	dst = appendText(dst, `,"session":`, e.Session)
	dst = appendText(dst, `,"device":`, e.Device)
	dst = appendText(dst, `,"isp":`, e.ISP)
	dst = appendText(dst, `,"home":`, e.Home)
	dst = appendText(dst, `,"edge":`, e.Edge)
	dst = appendText(dst, `,"rendition":`, e.Rendition)
	dst = appendUint(dst, `,"segment":`, e.Segment)
	dst = appendText(dst, `,"fault":`, e.Fault)
	dst = appendText(dst, `,"state":`, e.State)
	if e.Detail != "" {
		dst = append(dst, `,"detail":`...)
		dst = appendString(dst, e.Detail, MaxDetail)
	}
	value, lag := e.Value, e.LagMS
	if e.Kind == PlayStart { // the kind that there are millions of
		value, lag = toMicros(value), toMicros(lag)
	}
	dst = appendFloat(dst, `,"value":`, value)
	dst = appendFloat(dst, `,"lag_ms":`, lag)
	dst = appendFloat(dst, `,"buffer_ms":`, e.BufferMS)
	dst = appendFloat(dst, `,"latency_ms":`, e.LatencyMS)
	dst = appendFloat(dst, `,"playing_ms":`, e.PlayingMS)
	dst = appendFloat(dst, `,"rebuffer_ms":`, e.RebufferMS)
	dst = appendFloat(dst, `,"bitrate_kbps":`, e.BitrateKbps)
	dst = appendUint(dst, `,"bytes":`, e.Bytes)
	dst = appendUint(dst, `,"attempts":`, uint64(e.Attempts))
	if len(e.Nums) > 0 {
		dst = appendNums(dst, e.Nums)
	}
	return append(dst, '}')
}

func appendNums(dst []byte, nums map[string]float64) []byte {
	// Sorted, so that one event has one encoding; a handful of keys, so the array stays on the stack.
	var room [MaxNums]string
	keys := room[:0]
	for k := range nums {
		if len(keys) == MaxNums {
			break
		}
		keys = append(keys, k)
	}
	slices.Sort(keys)
	dst = append(dst, `,"nums":{`...)
	first := true
	for _, k := range keys {
		v := nums[k]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendString(dst, k, MaxString)
		dst = appendNumber(append(dst, ':'), v)
	}
	return append(dst, '}')
}

func appendText(dst []byte, key, s string) []byte {
	if s == "" {
		return dst
	}
	return appendString(append(dst, key...), s, MaxString)
}

func appendUint(dst []byte, key string, n uint64) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendUint(append(dst, key...), n, 10)
}

func appendFloat(dst []byte, key string, f float64) []byte {
	if f == 0 || math.IsNaN(f) || math.IsInf(f, 0) {
		return dst
	}
	return appendNumber(append(dst, key...), f)
}

// maxExact bounds the whole numbers that a float64 and an int64 hold alike.
const maxExact = 1 << 53

// appendNumber appends a decimal that reads back as exactly f. Most of ours have few decimals (milliseconds made of
// nanoseconds): where f is n millionths those are its decimals, since n and a million are exact and a division is
// rounded as the reading of "n/1000000" is. That takes a tenth of the search for the shortest decimal.
func appendNumber(dst []byte, f float64) []byte {
	millionths := math.RoundToEven(f * 1e6)
	if !(math.Abs(millionths) < maxExact) || millionths/1e6 != f {
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	}
	n := int64(millionths)
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	dst = strconv.AppendInt(dst, n/1e6, 10)
	part := uint32(n % 1e6)
	if part == 0 {
		return dst
	}
	digits := [7]byte{'.'}
	for i := 6; i > 0; i-- {
		digits[i] = '0' + byte(part%10)
		part /= 10
	}
	end := 7
	for digits[end-1] == '0' {
		end--
	}
	return append(dst, digits[:end]...)
}

// toMicros rounds milliseconds to whole microseconds: nothing here is measured finer, and what is shorter is cheaper to
// write, to send and to keep.
func toMicros(ms float64) float64 { return math.RoundToEven(ms*1000) / 1000 }

// The store's DateTime64(6) holds 1900 to 2299; a time outside it is a broken clock, and is kept as "no time".
const (
	minYear, maxYear = 1900, 2299
	minMicro         = -2208988800_000000    // 1 January 1900
	endMicro         = 10413792000_000000    // 1 January 2300
	dayMicros        = 24 * 3600 * 1_000_000 // microseconds
	eraDays          = 400*365 + 97          // days in 400 years
)

func appendTime(dst []byte, key string, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	micro := t.UnixMicro()
	if s := t.Unix(); s < minMicro/1e6 || s >= endMicro/1e6 { // UnixMicro says nothing of times far away
		return dst
	}
	day := micro / dayMicros
	if micro < 0 && micro%dayMicros != 0 {
		day--
	}
	micro -= day * dayMicros
	year, month, dom := civil(day)
	seconds, fraction := uint32(micro/1e6), uint32(micro%1e6)
	hour, minute, second := seconds/3600, seconds/60%60, seconds%60
	dst = append(dst, key...)
	return append(dst,
		'0'+byte(year/1000), '0'+byte(year/100%10), '0'+byte(year/10%10), '0'+byte(year%10), '-',
		'0'+byte(month/10), '0'+byte(month%10), '-', '0'+byte(dom/10), '0'+byte(dom%10), 'T',
		'0'+byte(hour/10), '0'+byte(hour%10), ':', '0'+byte(minute/10), '0'+byte(minute%10), ':',
		'0'+byte(second/10), '0'+byte(second%10), '.',
		'0'+byte(fraction/100000), '0'+byte(fraction/10000%10), '0'+byte(fraction/1000%10),
		'0'+byte(fraction/100%10), '0'+byte(fraction/10%10), '0'+byte(fraction%10), 'Z', '"')
}

// civil is the date of a day since 1970, from 1900 on: the arithmetic of a year that begins in March, whose leap day is
// its last (Neri and Schneider, Euclidean affine functions and their application to calendar algorithms, 2022).
func civil(day int64) (year, month, dom uint32) {
	n := uint32(day + 719468) // since 1 March of the year 0
	era := n / eraDays
	doe := n % eraDays
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	year, month, dom = yoe+era*400, mp+3, doy-(153*mp+2)/5+1
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, dom
}

const hex = "0123456789abcdef"

// plain are the bytes that a JSON string holds as they are and that are whole characters by themselves.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

func appendString(dst []byte, s string, limit int) []byte {
	if len(s) <= limit {
		i := 0
		for i < len(s) && plain[s[i]] {
			i++
		}
		if i == len(s) {
			dst = append(dst, '"')
			dst = append(dst, s...)
			return append(dst, '"')
		}
	}
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			start = i + 1
		}
		i += n
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// Decoder reads events of the wire form. It keeps the values of fields that have few of them (kind, region, edge …)
// so that a stream of events does not allocate them again and again. Not safe for concurrent use.
type Decoder struct {
	seen map[string]string
	last [fields]string // of the fields that go through seen

	date    [10]byte // the last that was read
	dateDay int64    // its midnight, in seconds since 1970

	// Alias makes Session and Detail share the line's memory instead of copying it: for a caller that is done with the
	// event before the line changes.
	Alias bool
}

const fields = 29

const maxSeen = 4096

// Decode reads one line (without its newline) into e, which it resets first. It is strict: unknown and repeated
// keys, values of the wrong type, and anything past the bounds are errors, which wrap ErrWire.
func (d *Decoder) Decode(line []byte, e *Event) error {
	*e = Event{}
	if len(line) > MaxLine {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrWire, len(line), MaxLine)
	}
	r := reader{b: line, d: d}
	if err := r.event(e); err != nil {
		return fmt.Errorf("%w: at byte %d: %w", ErrWire, r.i, err)
	}
	return nil
}

type reader struct {
	b []byte
	i int
	d *Decoder
}

var (
	errShort  = errors.New("unexpected end")
	errNumber = errors.New("not a number")
	errTime   = errors.New("not a time like " + timeLayout)
)

func (r *reader) event(e *Event) error {
	if err := r.token('{'); err != nil {
		return err
	}
	var had uint32 // one bit a key
	for n := 0; ; n++ {
		if n == 0 && r.peek() == '}' {
			r.i++
			break
		}
		key, err := r.rawString(MaxString)
		if err != nil {
			return err
		}
		if err := r.token(':'); err != nil {
			return err
		}
		bit, err := r.field(e, key)
		if err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
		if had&bit != 0 {
			return fmt.Errorf("%q: given twice", key)
		}
		had |= bit
		if r.peek() == '}' {
			r.i++
			break
		}
		if err := r.token(','); err != nil {
			return err
		}
	}
	r.space()
	if r.i != len(r.b) {
		return errors.New("more after the object")
	}
	return nil
}

// field reads the value of key into e and returns the key's bit.
func (r *reader) field(e *Event, key []byte) (bit uint32, err error) {
	switch string(key) {
	case "run":
		e.Run, err = r.common(0)
		return 1 << 0, err
	case "source":
		e.Source, err = r.common(1)
		return 1 << 1, err
	case "seq":
		e.Seq, err = r.uint(64)
		return 1 << 2, err
	case "at":
		e.At, err = r.time()
		return 1 << 3, err
	case "written":
		e.Written, err = r.time()
		return 1 << 4, err
	case "kind":
		var s string
		s, err = r.common(5)
		e.Kind = Kind(s)
		return 1 << 5, err
	case "status":
		e.Status, err = r.common(6)
		return 1 << 6, err
	case "region":
		e.Region, err = r.common(7)
		return 1 << 7, err
	case "component":
		e.Component, err = r.common(8)
		return 1 << 8, err
	case "session":
		e.Session, err = r.text(MaxString)
		return 1 << 9, err
	case "device":
		e.Device, err = r.common(10)
		return 1 << 10, err
	case "isp":
		e.ISP, err = r.common(11)
		return 1 << 11, err
	case "edge":
		e.Edge, err = r.common(12)
		return 1 << 12, err
	case "rendition":
		e.Rendition, err = r.common(13)
		return 1 << 13, err
	case "segment":
		e.Segment, err = r.uint(64)
		return 1 << 14, err
	case "fault":
		e.Fault, err = r.common(15)
		return 1 << 15, err
	case "state":
		e.State, err = r.common(16)
		return 1 << 16, err
	case "detail":
		e.Detail, err = r.text(MaxDetail)
		return 1 << 17, err
	case "value":
		e.Value, err = r.float()
		return 1 << 18, err
	case "lag_ms":
		e.LagMS, err = r.float()
		return 1 << 19, err
	case "buffer_ms":
		e.BufferMS, err = r.float()
		return 1 << 20, err
	case "latency_ms":
		e.LatencyMS, err = r.float()
		return 1 << 21, err
	case "playing_ms":
		e.PlayingMS, err = r.float()
		return 1 << 22, err
	case "rebuffer_ms":
		e.RebufferMS, err = r.float()
		return 1 << 23, err
	case "bitrate_kbps":
		e.BitrateKbps, err = r.float()
		return 1 << 24, err
	case "bytes":
		e.Bytes, err = r.uint(64)
		return 1 << 25, err
	case "attempts":
		var n uint64
		n, err = r.uint(32)
		e.Attempts = uint32(n)
		return 1 << 26, err
	case "nums":
		e.Nums, err = r.nums()
		return 1 << 27, err
	case "home":
		e.Home, err = r.common(28)
		return 1 << 28, err
	}
	return 0, errors.New("unknown key")
}

func (r *reader) space() {
	for r.i < len(r.b) && (r.b[r.i] == ' ' || r.b[r.i] == '\t' || r.b[r.i] == '\r') {
		r.i++
	}
}

func (r *reader) peek() byte {
	r.space()
	if r.i >= len(r.b) {
		return 0
	}
	return r.b[r.i]
}

func (r *reader) token(c byte) error {
	r.space()
	if r.i >= len(r.b) {
		return errShort
	}
	if r.b[r.i] != c {
		return fmt.Errorf("%q where %q is due", r.b[r.i], c)
	}
	r.i++
	return nil
}

// rawString reads a string and returns its value: a part of the line where nothing was escaped, else a copy.
func (r *reader) rawString(limit int) ([]byte, error) {
	if err := r.token('"'); err != nil {
		return nil, err
	}
	start := r.i
	for r.i < len(r.b) && plain[r.b[r.i]] {
		r.i++
	}
	if n := r.i - start; r.i < len(r.b) && r.b[r.i] == '"' && n <= limit {
		r.i++
		return r.b[start : start+n], nil
	}
	return r.oddString(start, limit)
}

// oddString is rawString for what is not plain all through; what lies before r.i is.
func (r *reader) oddString(start, limit int) ([]byte, error) {
	plain := true
	for r.i < len(r.b) {
		switch c := r.b[r.i]; {
		case c == '"':
			raw := r.b[start:r.i]
			r.i++
			if !plain {
				var s string
				if err := json.Unmarshal(r.b[start-1:r.i], &s); err != nil {
					return nil, errors.New("a string with a broken escape")
				}
				raw = []byte(s)
			} else if !utf8.Valid(raw) {
				return nil, errors.New("a string that is not UTF-8")
			}
			if len(raw) > limit+2 { // a broken byte at the cut may have become U+FFFD
				return nil, fmt.Errorf("a string of %d bytes, the limit is %d", len(raw), limit)
			}
			return raw, nil
		case c == '\\':
			plain = false
			r.i += 2
		case c < 0x20:
			return nil, errors.New("a control character in a string")
		default:
			r.i++
		}
	}
	r.i = len(r.b)
	return nil, errShort
}

func (r *reader) text(limit int) (string, error) {
	b, err := r.rawString(limit)
	if r.d.Alias && len(b) > 0 {
		return unsafe.String(&b[0], len(b)), err
	}
	return string(b), err
}

// common reads a string of a field that has few values; field is its number.
func (r *reader) common(field int) (string, error) {
	b, err := r.rawString(MaxString)
	if err != nil {
		return "", err
	}
	if last := r.d.last[field]; last == string(b) {
		return last, nil
	}
	s := r.d.keep(b)
	r.d.last[field] = s
	return s, nil
}

// keep returns b as a string that is shared with whoever had the same before.
func (d *Decoder) keep(b []byte) string {
	if s, ok := d.seen[string(b)]; ok { // no allocation for the look-up
		return s
	}
	s := string(b)
	if len(d.seen) < maxSeen {
		if d.seen == nil {
			d.seen = make(map[string]string)
		}
		d.seen[s] = s
	}
	return s
}

// number returns the bytes of a JSON number (RFC 8259, section 6).
func (r *reader) number() ([]byte, error) {
	r.space()
	start := r.i
	digits := func() bool {
		from := r.i
		for r.i < len(r.b) && r.b[r.i] >= '0' && r.b[r.i] <= '9' {
			r.i++
		}
		return r.i > from
	}
	at := func(cs string) bool {
		for j := 0; r.i < len(r.b) && j < len(cs); j++ {
			if r.b[r.i] == cs[j] {
				r.i++
				return true
			}
		}
		return false
	}
	at("-")
	if zero := r.i; !digits() || (r.b[zero] == '0' && r.i > zero+1) {
		return nil, errNumber
	}
	if at(".") && !digits() {
		return nil, errNumber
	}
	if at("eE") {
		at("+-")
		if !digits() {
			return nil, errNumber
		}
	}
	if r.i-start > 64 {
		return nil, errNumber
	}
	return r.b[start:r.i], nil
}

// decimal reads a number of up to 18 digits as n / 10^places, where it is that and no more; else it reads nothing.
func (r *reader) decimal() (n uint64, places int, negative, ok bool) {
	r.space()
	b, i := r.b, r.i
	if i < len(b) && b[i] == '-' {
		negative = true
		i++
	}
	start := i
	for i < len(b) && b[i]-'0' <= 9 {
		n = 10*n + uint64(b[i]-'0')
		i++
	}
	whole := i - start
	if whole == 0 || whole > 1 && b[start] == '0' {
		return 0, 0, false, false
	}
	if i < len(b) && b[i] == '.' {
		point := i
		for i++; i < len(b) && b[i]-'0' <= 9; i++ {
			n = 10*n + uint64(b[i]-'0')
		}
		if places = i - point - 1; places == 0 {
			return 0, 0, false, false
		}
	}
	if whole+places > 18 || i < len(b) && (b[i]|0x20 == 'e') {
		return 0, 0, false, false
	}
	r.i = i
	return n, places, negative, true
}

var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18}

func (r *reader) uint(bits int) (uint64, error) {
	before := r.i
	if n, places, negative, ok := r.decimal(); ok && places == 0 && !negative && n>>bits == 0 {
		return n, nil
	}
	r.i = before
	b, err := r.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(b), 10, bits)
	if err != nil {
		return 0, fmt.Errorf("%s is not a whole number of %d bits", b, bits)
	}
	return n, nil
}

func (r *reader) float() (float64, error) {
	before := r.i
	if n, places, negative, ok := r.decimal(); ok && n < maxExact { // both are exact, and so is the quotient's rounding
		f := float64(n) / powers[places]
		if negative {
			f = -f
		}
		return f, nil
	}
	r.i = before
	b, err := r.number()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return 0, fmt.Errorf("%s is out of range", b)
	}
	return f, nil
}

func (r *reader) time() (time.Time, error) {
	b, err := r.rawString(MaxString)
	if err != nil {
		return time.Time{}, err
	}
	if len(b) != len(timeLayout) {
		return time.Time{}, errTime
	}
	if b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' || b[19] != '.' || b[26] != 'Z' {
		return time.Time{}, errTime
	}
	wrong := false
	n := func(from, to int) int64 {
		v := int64(0)
		for _, c := range b[from:to] {
			d := c - '0'
			wrong = wrong || d > 9
			v = v*10 + int64(d)
		}
		return v
	}
	if string(b[:10]) != string(r.d.date[:]) {
		year, month, day := n(0, 4), n(5, 7), n(8, 10)
		t := time.Date(int(year), time.Month(month), int(day), 0, 0, 0, 0, time.UTC)
		if wrong || year < minYear || year > maxYear || t.Month() != time.Month(month) || t.Day() != int(day) {
			return time.Time{}, errTime // 31 February and the like
		}
		r.d.date, r.d.dateDay = [10]byte(b), t.Unix()
	}
	hour, minute, second, micro := n(11, 13), n(14, 16), n(17, 19), n(20, 26)
	if wrong || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, errTime
	}
	return time.Unix(r.d.dateDay+3600*hour+60*minute+second, 1000*micro).UTC(), nil
}

func (r *reader) nums() (map[string]float64, error) {
	if err := r.token('{'); err != nil {
		return nil, err
	}
	if r.peek() == '}' {
		r.i++
		return nil, nil
	}
	nums := make(map[string]float64)
	for {
		raw, err := r.rawString(MaxString)
		if err != nil {
			return nil, err
		}
		key := r.d.keep(raw)
		if err := r.token(':'); err != nil {
			return nil, err
		}
		v, err := r.float()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", key, err)
		}
		if _, twice := nums[key]; twice {
			return nil, fmt.Errorf("%q: given twice", key)
		}
		if len(nums) == MaxNums {
			return nil, fmt.Errorf("more than %d numbers", MaxNums)
		}
		nums[key] = v
		if r.peek() == '}' {
			r.i++
			return nums, nil
		}
		if err := r.token(','); err != nil {
			return nil, err
		}
	}
}
