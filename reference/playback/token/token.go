package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
	"time"
)

// Errors of Verify and Check.
var (
	ErrToken   = errors.New("the token is not good")
	ErrExpired = errors.New("the token has expired")
)

// Layout of a token: key id, expiry, subject, signature. 27 bytes are 36 characters, with no bits to spare.
const (
	signedLen = 1 + 4 + 8
	macLen    = 14
	rawLen    = signedLen + macLen

	// Chars is a token's length.
	Chars = 36
	// Prefix stands before a token in a path.
	Prefix = "/t/"
)

// Key is a secret and the id under which tokens name it.
type Key struct {
	ID     byte
	Secret []byte // 16 bytes at least
}

// Ring signs with its first key and verifies with all. It is safe for concurrent use.
type Ring struct {
	salt []byte
	keys []keyed
}

type keyed struct {
	id   byte
	macs *sync.Pool // of hash.Hash
}

// NewRing takes the event that tokens are for and the keys, the one to sign with first.
func NewRing(event string, keys ...Key) (*Ring, error) {
	if len(keys) == 0 {
		return nil, errors.New("token: there is no key")
	}
	r := &Ring{salt: []byte("tminus media token\x00" + event + "\x00")}
	for _, k := range keys {
		if len(k.Secret) < 16 {
			return nil, fmt.Errorf("token: key %d has %d bytes, too few to sign with", k.ID, len(k.Secret))
		}
		if _, twice := r.key(k.ID); twice {
			return nil, fmt.Errorf("token: key %d is there twice", k.ID)
		}
		r.keys = append(r.keys, keyed{k.ID, &sync.Pool{New: func() any { return hmac.New(sha256.New, k.Secret) }}})
	}
	return r, nil
}

func (r *Ring) key(id byte) (keyed, bool) {
	for _, k := range r.keys {
		if k.id == id {
			return k, true
		}
	}
	return keyed{}, false
}

func (r *Ring) sign(k keyed, signed, mac []byte) {
	var sum [sha256.Size]byte
	h := k.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(r.salt)
	h.Write(signed)
	copy(mac, h.Sum(sum[:0]))
	k.macs.Put(h)
}

// Append appends the token of a subject that is good up to and including the whole second of expires (1970 to 2106).
func (r *Ring) Append(dst []byte, subject uint64, expires time.Time) []byte {
	var raw [rawLen]byte
	raw[0] = r.keys[0].id
	binary.BigEndian.PutUint32(raw[1:], uint32(min(max(expires.Unix(), 0), 1<<32-1)))
	binary.BigEndian.PutUint64(raw[5:], subject)
	r.sign(r.keys[0], raw[:signedLen], raw[signedLen:])
	return base64.RawURLEncoding.AppendEncode(dst, raw[:])
}

// Verify reads a token at now: ErrToken for what no holder of a key signed, ErrExpired for what is over.
func (r *Ring) Verify(token string, now time.Time) (subject uint64, expires time.Time, err error) {
	var raw [rawLen]byte
	if len(token) != Chars {
		return 0, time.Time{}, ErrToken
	}
	// Strict, and without spare bits: no two tokens decode alike. Decode alone would skip line breaks.
	if n, err := base64.RawURLEncoding.Decode(raw[:], []byte(token)); err != nil || n != rawLen {
		return 0, time.Time{}, ErrToken
	}
	k, ok := r.key(raw[0])
	if !ok {
		return 0, time.Time{}, ErrToken
	}
	var mac [macLen]byte
	if r.sign(k, raw[:signedLen], mac[:]); !hmac.Equal(mac[:], raw[signedLen:]) {
		return 0, time.Time{}, ErrToken
	}
	expires = time.Unix(int64(binary.BigEndian.Uint32(raw[1:])), 0).UTC()
	subject = binary.BigEndian.Uint64(raw[5:])
	if now.Unix() > expires.Unix() {
		return subject, expires, ErrExpired
	}
	return subject, expires, nil
}

// Cut takes the token off a path: "/t/<token>/final/v1/7.m4s" is <token> and "/final/v1/7.m4s". It returns false for a path
// that begins otherwise.
func Cut(path string) (token, rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, Prefix)
	if !ok {
		return "", path, false
	}
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return rest, "", true
	}
	return rest[:i], rest[i:], true
}

// maxKnown bounds a Gate's memory, in tokens. When there are more it begins anew, which costs a signature for each again.
const maxKnown = 1 << 16

// Gate checks the tokens of requests and remembers those that were good: a viewer's token comes with each of its requests. It is
// safe for concurrent use.
type Gate struct {
	ring  *Ring
	mu    sync.RWMutex
	known map[string]int64 // token → Unix seconds of its expiry
}

// NewGate checks by ring.
func NewGate(ring *Ring) *Gate { return &Gate{ring: ring, known: map[string]int64{}} }

// Check returns nil, ErrToken or ErrExpired.
func (g *Gate) Check(token string, now time.Time) error {
	g.mu.RLock()
	expires, ok := g.known[token]
	g.mu.RUnlock()
	if ok {
		if now.Unix() > expires {
			return ErrExpired
		}
		return nil
	}
	_, end, err := g.ring.Verify(token, now)
	if err != nil {
		return err
	}
	g.mu.Lock()
	if len(g.known) >= maxKnown {
		clear(g.known)
	}
	g.known[strings.Clone(token)] = end.Unix()
	g.mu.Unlock()
	return nil
}
