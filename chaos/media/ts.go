package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	tsPacket = 188
	tsSync   = 0x47
	tsHz     = 90_000
	tsWrap   = 1 << 33 // PTS, DTS and the base of PCR count modulo this
)

// looksLikeTS reports whether a segment consists of transport packets.
func looksLikeTS(seg []byte) bool {
	return len(seg) >= tsPacket && seg[0] == tsSync && (len(seg) == tsPacket || len(seg) > tsPacket && seg[tsPacket] == tsSync)
}

// packet is the place of one transport packet.
type packet struct {
	at      int
	pid     uint16
	start   bool // a PES packet or a section starts in it
	payload int  // where its payload starts; at+188: it has none
	pcr     int  // where its PCR stands; 0: nowhere
	unit    int  // PES packet it belongs to; -1: none
}

// unit is one PES packet.
type unit struct {
	pid     uint16
	id      byte // stream_id
	packets []int
	pts     int64 // 90 kHz; -1: none
	dts     int64 // as pts where the stream has none
	ptsAt   int   // where they stand; 0: nowhere
	dtsAt   int
	body    int // where the elementary stream starts in the first packet
}

// kind is the track's kind by the stream_id (ISO/IEC 13818-1, table 2-22); private_stream_1 carries AC-3.
func (u unit) kind() string {
	switch {
	case u.id >= 0xe0 && u.id <= 0xef:
		return Video
	case u.id >= 0xc0 && u.id <= 0xdf, u.id == 0xbd:
		return Audio
	}
	return ""
}

// transport is a segment taken apart.
type transport struct {
	data    []byte
	packets []packet
	units   []unit
}

// parseTS takes a segment apart. Nothing is copied.
func parseTS(seg []byte) (*transport, error) {
	if len(seg) > MaxSegment {
		return nil, fmt.Errorf("a segment of %d bytes is too large", len(seg))
	}
	if len(seg) == 0 || len(seg)%tsPacket != 0 {
		return nil, fmt.Errorf("%d bytes are no whole number of transport packets", len(seg))
	}
	t := &transport{data: seg, packets: make([]packet, 0, len(seg)/tsPacket)}
	open := map[uint16]int{} // PID → its unit
	for at := 0; at < len(seg); at += tsPacket {
		b := seg[at : at+tsPacket]
		if b[0] != tsSync {
			return nil, fmt.Errorf("the transport packet at %d has no sync byte", at)
		}
		p := packet{at: at, pid: binary.BigEndian.Uint16(b[1:]) & 0x1fff, start: b[1]&0x40 != 0, payload: at + 4, unit: -1}
		if b[3]&0x20 != 0 {
			length := int(b[4])
			if length > tsPacket-5 {
				return nil, fmt.Errorf("the adaptation field at %d has %d bytes", at, length)
			}
			p.payload = at + 5 + length
			if length >= 7 && b[5]&0x10 != 0 {
				p.pcr = at + 6
			}
		}
		if b[3]&0x10 == 0 {
			p.payload = at + tsPacket
		}
		t.own(&p, open)
		t.packets = append(t.packets, p)
	}
	return t, nil
}

// own finds the PES packet that a transport packet belongs to.
func (t *transport) own(p *packet, open map[uint16]int) {
	payload := t.data[p.payload : p.at+tsPacket]
	if p.start && len(payload) > 0 {
		delete(open, p.pid)
		if u, ok := pes(payload, p.payload); ok {
			u.pid = p.pid
			t.units = append(t.units, u)
			open[p.pid] = len(t.units) - 1
		}
	}
	if i, ok := open[p.pid]; ok {
		p.unit = i
		t.units[i].packets = append(t.units[i].packets, len(t.packets))
	}
}

// pes reads the header of a PES packet (ISO/IEC 13818-1, 2.4.3.6).
func pes(b []byte, at int) (unit, bool) {
	if len(b) < 9 || b[0] != 0 || b[1] != 0 || b[2] != 1 {
		return unit{}, false
	}
	u := unit{id: b[3], pts: -1, dts: -1}
	if u.kind() == "" || b[6]&0xc0 != 0x80 {
		return unit{}, false
	}
	header := 9 + int(b[8])
	if header > len(b) {
		return unit{}, false // a header that goes on in the next packet: nobody writes such
	}
	u.body = at + header
	if b[7]&0x80 != 0 && header >= 14 {
		u.pts, u.ptsAt = stamp(b[9:]), at+9
		u.dts = u.pts
	}
	if b[7]&0xc0 == 0xc0 && header >= 19 {
		u.dts, u.dtsAt = stamp(b[14:]), at+14
	}
	return u, true
}

// stamp reads a 33-bit time with its marker bits.
func stamp(b []byte) int64 {
	return int64(b[0]&0x0e)<<29 | int64(b[1])<<22 | int64(b[2]&0xfe)<<14 | int64(b[3])<<7 | int64(b[4]>>1)
}

func putStamp(b []byte, v int64) {
	v &= tsWrap - 1
	b[0] = b[0]&0xf1 | byte(v>>29)&0x0e
	b[1] = byte(v >> 22)
	b[2] = b[2]&0x01 | byte(v>>14)&0xfe
	b[3] = byte(v >> 7)
	b[4] = b[4]&0x01 | byte(v<<1)
}

// clock reads the base of a PCR.
func clock(b []byte) int64 {
	return int64(binary.BigEndian.Uint32(b))<<1 | int64(b[4]>>7)
}

func putClock(b []byte, v int64) {
	v &= tsWrap - 1
	binary.BigEndian.PutUint32(b, uint32(v>>1))
	b[4] = b[4]&0x7f | byte(v<<7)
}

// after is a - b on a clock that wraps.
func after(a, b int64) int64 {
	d := (a - b) & (tsWrap - 1)
	if d >= tsWrap/2 {
		d -= tsWrap
	}
	return d
}

// span is the time that the units of one PID cover: from the first decode time to one step after the last.
func (t *transport) span(pid uint16) (first, length int64, n int) {
	first = -1
	var last, least int64
	for _, u := range t.units {
		if u.pid != pid || u.dts < 0 {
			continue
		}
		n++
		if first < 0 {
			first = u.dts
			continue
		}
		d := after(u.dts, first)
		last, least = max(last, d), min(least, d)
	}
	if n > 1 {
		length = last - least + (last-least)/int64(n-1)
	}
	return first + least, length, n
}

// pids lists the PIDs that carry PES packets, in order of appearance, each with its kind.
func (t *transport) pids() (out []uint16, kinds map[uint16]string) {
	kinds = map[uint16]string{}
	for _, u := range t.units {
		if _, ok := kinds[u.pid]; !ok {
			out = append(out, u.pid)
			kinds[u.pid] = u.kind()
		}
	}
	return out, kinds
}

// shift adds to every PTS, DTS and PCR of the packets that it is asked about.
func (t *transport) shift(by int64, pid func(uint16) bool) []byte {
	out := slices.Clone(t.data)
	for _, p := range t.packets {
		if p.pcr != 0 && pid(p.pid) {
			putClock(out[p.pcr:], clock(out[p.pcr:])+by)
		}
	}
	for _, u := range t.units {
		if !pid(u.pid) {
			continue
		}
		if u.ptsAt != 0 {
			putStamp(out[u.ptsAt:], u.pts+by)
		}
		if u.dtsAt != 0 {
			putStamp(out[u.dtsAt:], u.dts+by)
		}
	}
	return out
}

// without leaves out the PES packets that drop names. Continuity counters of what is left are numbered anew from the
// PID's first, so that a hole is in time and not in the transport; the next segment goes on with its own.
func (t *transport) without(drop func(unit) bool) ([]byte, error) {
	gone := make([]bool, len(t.units))
	left := 0
	for i, u := range t.units {
		if gone[i] = drop(u); !gone[i] {
			left++
		}
	}
	if left == 0 {
		return nil, fmt.Errorf("%w: nothing would be left of the segment", ErrUnspoilable)
	}
	out := make([]byte, 0, len(t.data))
	counters := map[uint16]byte{}
	for _, p := range t.packets {
		if p.unit >= 0 && gone[p.unit] {
			continue
		}
		at := len(out)
		out = append(out, t.data[p.at:p.at+tsPacket]...)
		count(out[at:], counters)
	}
	return out, nil
}

// count gives a packet the next continuity counter of its PID; one without payload repeats the last.
func count(b []byte, counters map[uint16]byte) {
	pid := binary.BigEndian.Uint16(b[1:]) & 0x1fff
	if pid == 0x1fff {
		return
	}
	last, ok := counters[pid]
	switch {
	case !ok:
		last = b[3] & 0x0f
	case b[3]&0x10 != 0:
		last = (last + 1) & 0x0f
	}
	counters[pid] = last
	b[3] = b[3]&0xf0 | last
}

// withPictures puts another segment's video packets in the place of this one's, at this one's times.
func (t *transport) withPictures(earlier *transport) ([]byte, error) {
	mine, err := t.video()
	if err != nil {
		return nil, err
	}
	theirs, err := earlier.video()
	if err != nil {
		return nil, err
	}
	start, _, _ := t.span(mine)
	from, _, _ := earlier.span(theirs)
	if start < 0 || from < 0 {
		return nil, fmt.Errorf("%w: the pictures have no times", ErrUnspoilable)
	}
	moved := earlier.shift(after(start, from), func(pid uint16) bool { return pid == theirs })
	var pictures [][]byte
	for _, p := range earlier.packets {
		if p.pid == theirs {
			b := moved[p.at : p.at+tsPacket]
			binary.BigEndian.PutUint16(b[1:], binary.BigEndian.Uint16(b[1:])&^0x1fff|mine)
			pictures = append(pictures, b)
		}
	}
	slots := 0
	for _, p := range t.packets {
		if p.pid == mine {
			slots++
		}
	}
	// Each slot of this segment takes its share of the other's packets, so that the multiplex stays as it was.
	out := make([]byte, 0, len(t.data)+len(pictures)*tsPacket)
	counters := map[uint16]byte{}
	slot, used := 0, 0
	for _, p := range t.packets {
		if p.pid != mine {
			at := len(out)
			out = append(out, t.data[p.at:p.at+tsPacket]...)
			count(out[at:], counters)
			continue
		}
		if slot == 0 { // the counter goes on where this segment's would have started
			counters[mine] = (t.data[p.at+3] - 1) & 0x0f
		}
		slot++
		for ; used < len(pictures)*slot/slots; used++ {
			at := len(out)
			out = append(out, pictures[used]...)
			count(out[at:], counters)
		}
	}
	return out, nil
}

// video is the PID of the first video stream.
func (t *transport) video() (uint16, error) {
	pids, kinds := t.pids()
	for _, pid := range pids {
		if kinds[pid] == Video {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("%w: there are no pictures in it", ErrUnspoilable)
}

// elementary gathers the elementary stream of one PES packet.
func (t *transport) elementary(u unit) []byte {
	var out []byte
	for i, n := range u.packets {
		p := t.packets[n]
		from := p.payload
		if i == 0 {
			from = u.body
		}
		out = append(out, t.data[from:p.at+tsPacket]...)
	}
	return out
}

// continuity counts the places where a PID's counter does not go on by one.
func (t *transport) continuity() int {
	counters := map[uint16]byte{}
	breaks := 0
	for _, p := range t.packets {
		b := t.data[p.at:]
		if p.pid == 0x1fff || b[3]&0x10 == 0 {
			continue
		}
		now := b[3] & 0x0f
		if last, ok := counters[p.pid]; ok && now != (last+1)&0x0f && now != last {
			breaks++
		}
		counters[p.pid] = now
	}
	return breaks
}

var errNoContainer = errors.New("neither fragmented MP4 nor a transport stream")
