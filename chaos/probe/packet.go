package probe

import (
	"encoding/binary"
	"hash/crc32"
)

// A probe packet begins and ends with the same header, so that one flipped bit leaves one of them whole:
//
//	0  4  magic
//	4  4  the probe's number, so that two probes do not take each other's packets
//	8  1  direction
//	9  8  sequence number
//	17 4  CRC-32 (IEEE) of the above
//
// What lies between is a pattern of the sequence number.
const (
	headerSize = 21
	leastSize  = 2 * headerSize
	mostSize   = 1472
	magic      = 0x746d7072
)

type header struct {
	probe uint32
	way   byte
	seq   uint64
}

func (h header) put(b []byte) {
	binary.BigEndian.PutUint32(b, magic)
	binary.BigEndian.PutUint32(b[4:], h.probe)
	b[8] = h.way
	binary.BigEndian.PutUint64(b[9:], h.seq)
	binary.BigEndian.PutUint32(b[17:], crc32.ChecksumIEEE(b[:17]))
}

// marshal fills b, leastSize at least, with a packet.
func (h header) marshal(b []byte) {
	h.put(b)
	h.put(b[len(b)-headerSize:])
	for i := headerSize; i < len(b)-headerSize; i++ {
		b[i] = byte(h.seq) + byte(i)
	}
}

func parseHeader(b []byte) (header, bool) {
	if binary.BigEndian.Uint32(b) != magic || binary.BigEndian.Uint32(b[17:]) != crc32.ChecksumIEEE(b[:17]) {
		return header{}, false
	}
	return header{probe: binary.BigEndian.Uint32(b[4:]), way: b[8], seq: binary.BigEndian.Uint64(b[9:])}, true
}

// parse reads a packet that should have size bytes. ok: it can be told which it is; intact: it is as it was sent.
func parse(b []byte, size int) (h header, intact, ok bool) {
	if len(b) != size || size < leastSize {
		return header{}, false, false
	}
	first, one := parseHeader(b)
	last, two := parseHeader(b[len(b)-headerSize:])
	switch {
	case one:
		h = first
	case two:
		h = last
	default:
		return header{}, false, false
	}
	if !one || !two || first != last {
		return h, false, true
	}
	for i := headerSize; i < len(b)-headerSize; i++ {
		if b[i] != byte(h.seq)+byte(i) {
			return h, false, true
		}
	}
	return h, true, true
}
