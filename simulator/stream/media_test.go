package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
)

// initSegment makes an initialisation segment of one track.
func initSegment(t testing.TB, kind string, timescale uint32) []byte {
	t.Helper()
	init := mp4.CreateEmptyInit()
	init.AddEmptyTrack(timescale, kind, "und")
	var b bytes.Buffer
	if err := init.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// segment makes a media segment of n samples of d units from decode time on.
func segment(t testing.TB, decode uint64, n int, d uint32) []byte {
	t.Helper()
	s := mp4.NewMediaSegment()
	f, err := mp4.CreateFragment(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	s.AddFragment(f)
	for i := range n {
		f.AddFullSample(mp4.FullSample{Sample: mp4.Sample{Dur: d, Size: 4, Flags: mp4.SyncSampleFlags},
			DecodeTime: decode + uint64(i)*uint64(d), Data: []byte{1, 2, 3, 4}})
	}
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestInspectsFragmentedMP4(t *testing.T) {
	init, err := InspectInit(initSegment(t, "video", 90_000))
	if err != nil {
		t.Fatal(err)
	}
	if len(init.Tracks) != 1 || init.Tracks[0].Kind != Video || init.Tracks[0].Timescale != 90_000 {
		t.Fatalf("%+v", init)
	}
	// Since the epoch, as epoch-locked encoders count: beyond 32 bits.
	const decode = 1_764_000_000 * 90_000
	m, err := Inspect(segment(t, decode, 60, 3000), init)
	if err != nil {
		t.Fatal(err)
	}
	tr := m.Tracks[0]
	if tr.Decode != decode || tr.Samples != 60 || tr.Length() != 2*time.Second || tr.Start() != 1_764_000_000*time.Second {
		t.Errorf("%+v", tr)
	}
}

func TestBadMP4(t *testing.T) {
	init, _ := InspectInit(initSegment(t, "video", 90_000))
	good := segment(t, 0, 10, 3000)
	other := init
	other.Tracks = []Track{{ID: 9, Timescale: 1}}
	for name, c := range map[string]struct {
		b    []byte
		init Media
		says string
	}{
		"empty":        {nil, init, "empty"},
		"html":         {[]byte("<html>not found</html>"), init, "box"},
		"cut off":      {good[:len(good)-3], init, "says"},
		"half a box":   {append(bytes.Clone(good), 0, 0, 0), init, "left over"},
		"no fragment":  {initSegment(t, "video", 1), init, "no moof"},
		"no payload":   {good[:len(good)-48], init, "0 mdat"},
		"other track":  {good, other, "not in the init segment"},
		"zero size":    {append([]byte{0, 0, 0, 4}, good[4:]...), init, "box"},
		"wrong length": {append([]byte{0, 0, 0, 1}, good[4:12]...), init, "cut off"},
	} {
		if _, err := Inspect(c.b, c.init); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	if _, err := InspectInit(good); !errors.Is(err, ErrMalformed) {
		t.Errorf("a media segment for an init segment: %v", err)
	}
}

// tsSegment makes MPEG-TS: PAT, PMT with H.264 and AAC, and PES packets with the given PTS on the video PID.
func tsSegment(pts ...uint64) []byte {
	var out []byte
	packet := func(pid int, payload []byte) {
		p := make([]byte, tsPacket)
		p[0], p[3] = 0x47, 0x10
		binary.BigEndian.PutUint16(p[1:], uint16(pid)|0x4000)
		n := copy(p[4:], payload)
		for i := 4 + n; i < tsPacket; i++ {
			p[i] = 0xff
		}
		out = append(out, p...)
	}
	table := func(id byte, body []byte) []byte {
		n := 5 + len(body) + 4
		return append(append([]byte{0, id, 0xb0 | byte(n>>8), byte(n), 0, 1, 0xc1, 0, 0}, body...), 0, 0, 0, 0)
	}
	packet(0, table(0, []byte{0, 1, 0xf0, 0x00}))                                                      // PMT on PID 0x1000
	packet(0x1000, table(2, []byte{0xe1, 0, 0xf0, 0, 0x1b, 0xe1, 0, 0xf0, 0, 0x0f, 0xe1, 1, 0xf0, 0})) // video 0x100, audio 0x101
	for _, v := range pts {
		packet(0x100, []byte{0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5,
			0x21 | byte(v>>29)&0x0e, byte(v >> 22), 1 | byte(v>>14)&0xfe, byte(v >> 7), 1 | byte(v<<1)})
	}
	return out
}

func TestInspectsTS(t *testing.T) {
	m, err := Inspect(tsSegment(900_000, 906_000, 903_000, 909_000), Media{})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Tracks) != 1 || m.Container != "ts" {
		t.Fatalf("%+v", m)
	}
	if tr := m.Tracks[0]; tr.Kind != Video || tr.Start() != 10*time.Second || tr.Duration != 12_000 || tr.Samples != 4 {
		t.Errorf("%+v", tr)
	}
	// The clock wraps within the segment.
	m, err = Inspect(tsSegment(1<<33-3000, 0, 3000), Media{})
	if err != nil || m.Tracks[0].Decode != 1<<33-3000 || m.Tracks[0].Duration != 9000 {
		t.Errorf("%+v %v", m, err)
	}
	good := tsSegment(1)
	for name, b := range map[string][]byte{"half a packet": good[:len(good)-1], "no sync": append(bytes.Clone(good), make([]byte, tsPacket)...),
		"no PAT": good[tsPacket:], "no PMT": good[:tsPacket], "no time": good[:2*tsPacket]} {
		if _, err := Inspect(b, Media{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzInspect(f *testing.F) {
	init := initSegment(f, "video", 90_000)
	f.Add(init, segment(f, 5, 3, 3000))
	f.Add(init, tsSegment(1, 2, 1<<33-1))
	f.Add([]byte{}, tsSegment(7))
	f.Fuzz(func(t *testing.T, init, media []byte) {
		i, err := InspectInit(init)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("an error of no kind: %v", err)
		}
		m, err := Inspect(media, i)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("an error of no kind: %v", err)
		}
		for _, tr := range m.Tracks {
			if tr.Start() < 0 || tr.Length() < 0 {
				t.Fatalf("%+v", tr)
			}
		}
	})
}
