package playback

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash"
	"sync"
	"time"
)

// Session is what a session id carries.
type Session struct {
	Device Device
	Home   int       // index of the viewer's home region in the topology; NoRegion when unknown
	Issuer int       // index of the region whose service issued it
	Viewer uint32    // the viewer's hash: the seed of the steering order
	Issued time.Time // whole seconds
	Nonce  uint32    // tells sessions of one viewer apart
}

// NoRegion is the home region of a viewer who gave none.
const NoRegion = 255

// Device is a class of devices.
type Device uint8

// Device classes. Other is whatever has no class of its own.
const (
	Other Device = iota
	TV
	Console
	Browser
	Phone
	Tablet
)

// device finds the class of a device by name.
func device(name []byte) Device {
	switch string(name) {
	case "tv":
		return TV
	case "console":
		return Console
	case "browser":
		return Browser
	case "phone":
		return Phone
	case "tablet":
		return Tablet
	}
	return Other
}

// MaxHeight is the tallest rung that is worth sending to the device, in pixels; 0: any.
func (d Device) MaxHeight() int {
	switch d {
	case Phone:
		return 540
	case Tablet:
		return 720
	}
	return 0
}

// Errors of Sessions.Parse.
var (
	ErrSession = errors.New("no such session")
	ErrExpired = errors.New("the session has expired")
)

// Layout of an id: version and device, home, issuer, viewer, issued, nonce, then the signature, cut as RFC 2104, 5 allows. 25
// bytes are 40 characters of base32 (RFC 4648, 7), without padding.
const (
	sessionVersion = 1
	signedLen      = 15
	macLen         = 10
	sessionLen     = signedLen + macLen
	sessionChars   = 40

	// SessionLife is how long a session's id is good for.
	SessionLife = 24 * time.Hour
)

var sessionText = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// Sessions issues and reads session ids of one event. It is safe for concurrent use.
type Sessions struct {
	desks sync.Pool // of *desk
	salt  []byte    // what else the signature covers
}

// desk is what signing takes. What goes through hash.Hash would be allocated anew each time otherwise.
type desk struct {
	mac hash.Hash // keyed with the run's key
	raw [sessionLen]byte
	sum [sha256.Size]byte
}

// NewSessions takes the key that every region's service has, and the event that the sessions are for.
func NewSessions(key []byte, event string) *Sessions {
	s := &Sessions{salt: []byte("tminus session\x00" + event + "\x00")}
	s.desks.New = func() any { return &desk{mac: hmac.New(sha256.New, key)} }
	return s
}

// Append appends the id of a session to dst.
func (s *Sessions) Append(dst []byte, v Session) []byte {
	d := s.desks.Get().(*desk)
	defer s.desks.Put(d)
	raw := &d.raw
	raw[0] = sessionVersion<<4 | byte(v.Device)
	raw[1], raw[2] = byte(v.Home), byte(v.Issuer)
	binary.BigEndian.PutUint32(raw[3:], v.Viewer)
	binary.BigEndian.PutUint32(raw[7:], uint32(v.Issued.Unix()))
	binary.BigEndian.PutUint32(raw[11:], v.Nonce)
	copy(raw[signedLen:], s.sign(d))
	return sessionText.AppendEncode(dst, raw[:])
}

// sign returns the signature of d.raw.
func (s *Sessions) sign(d *desk) []byte {
	d.mac.Reset()
	d.mac.Write(s.salt)
	d.mac.Write(d.raw[:signedLen])
	return d.mac.Sum(d.sum[:0])[:macLen]
}

// Parse reads an id at now. It returns ErrSession for what no service with the key issued, and ErrExpired.
func (s *Sessions) Parse(id string, now time.Time) (Session, error) {
	if len(id) != sessionChars {
		return Session{}, ErrSession
	}
	d := s.desks.Get().(*desk)
	defer s.desks.Put(d)
	raw := &d.raw
	// 40 characters are exactly 25 bytes: no trailing bits, so no two ids decode alike.
	if n, err := sessionText.Decode(raw[:], []byte(id)); err != nil || n != sessionLen {
		return Session{}, ErrSession
	}
	if !hmac.Equal(s.sign(d), raw[signedLen:]) || raw[0]>>4 != sessionVersion {
		return Session{}, ErrSession
	}
	v := Session{
		Device: Device(raw[0] & 15), Home: int(raw[1]), Issuer: int(raw[2]),
		Viewer: binary.BigEndian.Uint32(raw[3:]), Issued: time.Unix(int64(binary.BigEndian.Uint32(raw[7:])), 0).UTC(),
		Nonce: binary.BigEndian.Uint32(raw[11:]),
	}
	if now.Sub(v.Issued) > SessionLife {
		return v, ErrExpired
	}
	return v, nil
}
