package audit

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/httprelay"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/packager"
)

// rung makes a piece every half second from 0 s to 30 s, of segments of 1 s, spoiled during the fault as told.
func rung(spoil func(p *piece)) (out []piece) {
	for i := range 60 {
		n := uint64(1000 + i/2)
		start := at(float64(i) / 2).Add(50 * time.Millisecond)
		p := piece{
			start: start, end: start.Add(20 * time.Millisecond), number: n, selected: n%3 == 0, status: 200, late: 20 * time.Millisecond, timed: true,
			at: time.Duration(n) * time.Second, lasts: time.Second, frames: 30, audio: true, compared: true,
		}
		if phaseOf(tenToTwenty, p.start, p.end) == during && p.selected {
			spoil(&p)
		}
		out = append(out, p)
		p.control, p.selected = true, true
		if i%2 == 0 {
			p = out[len(out)-1]
			p.control, p.status, p.fail, p.parsed, p.faults, p.differs, p.same = true, 200, "", nil, 0, false, false
			p.late, p.at, p.lasts, p.frames, p.audio = 20*time.Millisecond, time.Duration(n)*time.Second, time.Second, 30, true
			out = append(out, p)
		}
	}
	return out
}

func TestJudgeSegments(t *testing.T) {
	everywhere := func(spoil func(p *piece), where func(p piece) bool) []piece {
		out := rung(spoil)
		for i := range out {
			if where(out[i]) {
				spoil(&out[i])
			}
		}
		return out
	}
	nobody := func(piece) bool { return false }
	inFault := func(p piece) bool { return phaseOf(tenToTwenty, p.start, p.end) == during }
	missing := func(p *piece) { p.status = 404 }
	for _, c := range []struct {
		name           string
		want           media.Defect
		samples        []piece
		status, detail string
	}{
		{"missing", media.Defect{Kind: media.Missing}, rung(missing), evidence.Confirmed, "6 of 6 segments chosen were missing"},
		{"late", media.Defect{Kind: media.Late, Delay: 2 * time.Second}, rung(func(p *piece) { p.late += 2 * time.Second }), evidence.Confirmed, ""},
		{"late by half", media.Defect{Kind: media.Late, Delay: 2 * time.Second}, rung(func(p *piece) { p.late += 1100 * time.Millisecond }), evidence.Mismatch, "2.00 s was expected"},
		{"short", media.Defect{Kind: media.Short, Keep: 0.5}, rung(func(p *piece) { p.lasts, p.frames = 500*time.Millisecond, 15 }), evidence.Confirmed, ""},
		{"shorter than announced", media.Defect{Kind: media.Short, Keep: 0.5}, rung(func(p *piece) { p.lasts, p.frames = 200*time.Millisecond, 6 }), evidence.Mismatch, "50 % was expected"},
		{"missing frames", media.Defect{Kind: media.MissingFrames, Share: 0.5}, rung(func(p *piece) { p.frames = 16 }), evidence.Confirmed, ""},
		{"all frames but the first", media.Defect{Kind: media.MissingFrames, Share: 0.5}, rung(func(p *piece) { p.frames = 1 }), evidence.Mismatch, ""},
		{"corrupt", media.Defect{Kind: media.Corrupt, Share: 0.2}, rung(func(p *piece) { p.faults = 2 }), evidence.Confirmed, ""},
		{"corrupt, by its copy", media.Defect{Kind: media.Corrupt, Share: 0.2}, rung(func(p *piece) { p.differs = true }), evidence.Confirmed, ""},
		{"frozen", media.Defect{Kind: media.Frozen}, rung(func(p *piece) { p.same = true }), evidence.Confirmed, ""},
		{"wrong timestamp", media.Defect{Kind: media.WrongTime, Shift: 10 * time.Second}, rung(func(p *piece) { p.at += 10 * time.Second }), evidence.Confirmed, ""},
		{"wrong timestamp the other way", media.Defect{Kind: media.WrongTime, Shift: 10 * time.Second}, rung(func(p *piece) { p.at -= 10 * time.Second }), evidence.Mismatch, ""},
		{"wrong timestamp, back over the end of a clock that wraps", media.Defect{Kind: media.WrongTime, Shift: -2000 * time.Second}, everywhere(func(p *piece) { p.at += 10_000*time.Second - 2000*time.Second; p.wraps = 10_000 * time.Second }, nobody), evidence.Confirmed, ""},
		{"wrong timestamp by 7 s", media.Defect{Kind: media.WrongTime, Shift: 10 * time.Second}, rung(func(p *piece) { p.at += 7 * time.Second }), evidence.Mismatch, "shifted by 7.00 s, 10.00 s was expected"},
		{"missing, and the others have lost their audio", media.Defect{Kind: media.Missing}, func() []piece {
			out := rung(missing)
			for i := range out {
				out[i].audio = !inFault(out[i]) || out[i].control
			}
			return out
		}(), evidence.Mismatch, "not chosen suffered too"},
		{"nothing", media.Defect{Kind: media.Frozen}, rung(func(*piece) {}), evidence.Mismatch, "0 of 6"},
		{"something else", media.Defect{Kind: media.Short, Keep: 0.5}, rung(missing), evidence.Mismatch, ""},
		{"half of them", media.Defect{Kind: media.Missing}, rung(func(p *piece) {
			if p.number%2 == 0 {
				missing(p)
			}
		}), evidence.Mismatch, "2 of 6"},
		{"those not chosen too", media.Defect{Kind: media.Missing}, everywhere(missing, func(p piece) bool { return inFault(p) && !p.control }), evidence.Mismatch, "not chosen suffered too"},
		{"another rung too", media.Defect{Kind: media.Missing}, everywhere(missing, func(p piece) bool { return inFault(p) && p.control }), evidence.Mismatch, "reached v360 too"},
		{"it was there before", media.Defect{Kind: media.Missing}, everywhere(missing, func(p piece) bool { return p.start.Before(at(10)) && !p.control }), evidence.Inconclusive, "not well before"},
		{"it stays", media.Defect{Kind: media.Missing}, everywhere(missing, func(p piece) bool { return p.start.After(at(20)) && !p.control && p.number%2 == 0 }), evidence.Mismatch, "outlived"},
		{"nothing after it", media.Defect{Kind: media.Missing}, only(rung(missing), func(p piece) bool { return p.start.Before(at(19)) }), evidence.Inconclusive, "nothing was measured after"},
		{"nothing at all", media.Defect{Kind: media.Missing}, nil, evidence.Inconclusive, "too little"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := judgeSegments(c.want, tenToTwenty, "v360", c.samples)
			if e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// Of a fault that is about few segments, and of one that spoils few frames, no more is said than can be told.
func TestJudgeFewSegments(t *testing.T) {
	missing := func(p *piece) { p.status = 404 }
	// chosen changes which segments are: those of a rung with a piece every half second from 0 s to 30 s, of which 1010 is the
	// first during the fault and 1020 the first after it.
	chosen := func(samples []piece, numbers ...uint64) []piece {
		for i := range samples {
			samples[i].selected = samples[i].control || slices.Contains(numbers, samples[i].number)
			if !samples[i].control && slices.Contains(numbers, samples[i].number) && samples[i].number >= 1010 {
				missing(&samples[i])
			}
		}
		return samples
	}
	whole := func() []piece { return rung(func(*piece) {}) }
	heal := func(samples []piece) []piece {
		for i := range samples {
			if samples[i].number >= 1020 {
				samples[i].status = 200
			}
		}
		return samples
	}
	// frames chooses all segments, of 50 frames, and spoils so many of the ten during the fault, and of those after it.
	frames := func(spoiled uint64, forEver bool, spoil func(p *piece)) []piece {
		out := whole()
		for i := range out {
			p := &out[i]
			p.frames, p.selected = 50, true
			if n := p.number * 7 % 10; !p.control && p.number >= 1010 && (p.number < 1020 || forEver) && n < spoiled {
				spoil(p)
			}
		}
		return out
	}
	flipped := func(p *piece) { p.faults = 1 }
	lost := func(n int) func(p *piece) { return func(p *piece) { p.frames -= n } }
	for _, c := range []struct {
		name           string
		want           media.Defect
		samples        []piece
		status, detail string
	}{
		{"chosen again after it, and whole", media.Defect{Kind: media.Missing}, heal(chosen(whole(), 1012, 1014, 1016, 1024)), evidence.Confirmed, ""},
		{"chosen again after it, and missing", media.Defect{Kind: media.Missing}, only(chosen(whole(), 1012, 1014, 1016, 1024), func(p piece) bool {
			return p.number != 1024 || p.start.Before(at(24.2)) // asked for once
		}), evidence.Mismatch, "outlived its end"},
		{"none chosen after it", media.Defect{Kind: media.Missing}, chosen(whole(), 1012, 1014, 1016), evidence.Inconclusive, "too little was measured after it"},
		{"4 % of frames corrupt", media.Defect{Kind: media.Corrupt, Share: 0.04}, frames(8, false, flipped), evidence.Confirmed, "as chance has it of 87 %"},
		{"2 % of frames corrupt instead", media.Defect{Kind: media.Corrupt, Share: 0.04}, frames(4, false, flipped), evidence.Mismatch, "87 % of the segments chosen were expected"},
		{"4 % of frames corrupt for ever", media.Defect{Kind: media.Corrupt, Share: 0.04}, frames(8, true, flipped), evidence.Mismatch, "outlived its end"},
		{"1 % of frames corrupt", media.Defect{Kind: media.Corrupt, Share: 0.01}, frames(4, false, flipped), evidence.Inconclusive, "half as many might have been"},
		{"10 % of frames missing", media.Defect{Kind: media.MissingFrames, Share: 0.1}, frames(8, false, lost(6)), evidence.Confirmed, ""},
		{"5 % of frames missing", media.Defect{Kind: media.MissingFrames, Share: 0.05}, frames(8, false, lost(3)), evidence.Confirmed, ""},
		{"twice as many frames missing", media.Defect{Kind: media.MissingFrames, Share: 0.1}, frames(10, false, lost(15)), evidence.Mismatch, "10 % was expected"},
		{"no frames missing", media.Defect{Kind: media.MissingFrames, Share: 0.1}, frames(0, false, nil), evidence.Mismatch, "0 of 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := judgeSegments(c.want, tenToTwenty, "v360", c.samples)
			if e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// The watch goes on until a segment that the fault was about has been at the live edge again.
func TestSegmentsSayHowLongTheyNeed(t *testing.T) {
	layout := media.ReferenceEvent("e", 2*time.Second)
	for _, c := range []struct {
		want   media.Defect
		chosen media.Selector
		least  time.Duration
	}{
		{media.Defect{Kind: media.Missing}, media.Selector{Every: 10}, 18 * time.Second},
		{media.Defect{Kind: media.Missing}, media.Selector{Every: 10, Live: []int{-2}}, 22 * time.Second},
		{media.Defect{Kind: media.Late, Delay: time.Second}, media.Selector{}, 4 * time.Second},
		{media.Defect{Kind: media.Corrupt, Share: 0.01}, media.Selector{}, 16 * time.Second}, // (1 - 0.4) to the tenth is less than 1 %
	} {
		s, err := NewSegments(SegmentsConfig{Stream: Stream{Base: "http://x", Layout: layout, Rung: "v360"}, Want: c.want, Select: c.chosen, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		s.samples = frames50(s.samples)
		if got := s.After(); got < c.least || got > c.least+3*time.Second {
			t.Errorf("%+v of %+v: %v", c.want, c.chosen, got)
		}
	}
}

func frames50(out []piece) []piece {
	for range 8 {
		out = append(out, piece{status: 200, lasts: 2 * time.Second, frames: 50})
	}
	return out
}

// fast is the reference layout with a segment every half second, so that a fault of seconds has many.
var fast = media.ReferenceEvent("e", 500*time.Millisecond)

// edge serves reference segments of any number that is due. Numbers that count half seconds since 1970 would be
// centuries of segments of 2 s, and less accurate for it: the media starts anew with the test.
func edge(t testing.TB) http.Handler {
	t.Helper()
	zero, _ := fast.Newest(time.Now().Add(-time.Minute))
	l, err := encoder.Load("sports")
	if err != nil {
		t.Fatal(err)
	}
	var made sync.Map // path → bytes: one packager for all that ask
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ref, ok := fast.Find(r.URL.Path)
		if newest, _ := fast.Newest(time.Now()); !ok || ref.Number > newest {
			http.NotFound(w, r)
			return
		}
		if out, ok := made.Load(r.URL.Path); ok {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(out.([]byte)))
			return
		}
		for _, track := range l.Segment(max(ref.Number, zero) - zero).Tracks {
			if track.Rendition.ID != ref.Rung {
				continue
			}
			var out []byte
			var err error
			if ref.Kind == media.Init {
				codec, _ := l.Codec(ref.Rung)
				out, err = packager.Init(track.Rendition, codec)
			} else {
				out, err = packager.Media(track, ref.Number-zero, false)
			}
			if err != nil {
				t.Error(err)
			}
			made.Store(r.URL.Path, out)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(out))
			return
		}
		http.NotFound(w, r)
	})
}

// Every defect of the reference pipeline's segments is injected, confirmed at the live edge, and restored; and found out when
// nothing, half of it, or another rung is spoiled.
func TestMediaFaultsAreProved(t *testing.T) {
	h := edge(t)
	third := media.Selector{Rung: "360p", Every: 3}
	g := newTogether(t)
	defer g.wg.Wait()
	sabotages := []string{"nothing is injected", "half of it is injected", "another rung is spoiled"}
	for n, c := range []struct {
		name   string
		defect media.Defect
		chosen media.Selector
	}{
		{"missing", media.Defect{Kind: media.Missing}, third},
		{"missing at live-2", media.Defect{Kind: media.Missing}, media.Selector{Rung: "v360", Every: 3, Live: []int{-2}}},
		{"rung lost", media.Defect{Kind: media.Missing}, media.Selector{Rung: "v360", Whole: true}},
		{"audio lost", media.Defect{Kind: media.Missing}, media.Selector{Track: media.Audio, Whole: true}},
		{"short", media.Defect{Kind: media.Short, Keep: 0.5}, third},
		{"late", media.Defect{Kind: media.Late, Delay: 800 * time.Millisecond}, media.Selector{Rung: "v360"}},
		{"missing frames", media.Defect{Kind: media.MissingFrames, Share: 0.4}, third},
		{"corrupt", media.Defect{Kind: media.Corrupt, Share: 0.3}, third},
		{"corrupt audio", media.Defect{Kind: media.Corrupt, Share: 0.3}, media.Selector{Rung: "a-en"}},
		{"frozen", media.Defect{Kind: media.Frozen}, third},
		{"frozen for good", media.Defect{Kind: media.Frozen}, media.Selector{Rung: "v360"}},
		{"wrong timestamp", media.Defect{Kind: media.WrongTime, Shift: 10 * time.Second}, third},
	} {
		// Missing is sabotaged in every way, the others in one each.
		tries := []string{"", sabotages[n%len(sabotages)]}
		if c.name == media.Missing {
			tries = append(sabotages, "")
		}
		for _, sabotage := range tries {
			g.run(c.name+"/"+sabotage, func(t *testing.T) {
				r, base := site(t, fast, h)
				_, untouched := site(t, fast, h)
				watched, control := "v360", "v540"
				if c.chosen.Track == media.Audio || strings.HasPrefix(c.chosen.Rung, "a-") {
					watched = "a-en"
				}
				cfg := SegmentsConfig{
					Fault: "media-1", Stream: Stream{Base: base, Layout: fast, Rung: watched}, Control: &Stream{Base: base, Layout: fast, Rung: control},
					Copy: untouched, Want: c.defect, Select: c.chosen, Now: time.Now,
				}
				watch := func() (observer, error) { return NewSegments(cfg) }
				chosen := c.chosen
				rule := httprelay.Rule{Name: c.name, Share: 1, Seed: 5, Media: &chosen, Action: httprelay.Action{Kind: httprelay.Segment, Defect: c.defect}}
				i := &httprelay.Injector{Relay: r, Owner: "media-1", Rules: []httprelay.Rule{rule}}
				want := evidence.Mismatch
				switch sabotage {
				case "":
					want = evidence.Confirmed
				case "nothing is injected":
					i.Rules = nil
				case "half of it is injected":
					i.Rules[0].Share = 0.5
				case "another rung is spoiled":
					chosen.Rung, chosen.Track = "v540", ""
				}
				if e := play(t, i, watch, 2*time.Second, 6*time.Second, 2*time.Second); e.Status != want {
					t.Errorf("%+v (%s)", e, i.Note())
				} else {
					t.Logf("%+v (%s)", e, i.Note())
				}
			})
		}
	}
}

// An nginx that serves what ffmpeg writes, in both containers: numbers counted from 0, no clock, a playlist that slides.
func TestSomeonesOwnHLS(t *testing.T) {
	for _, tool := range []string{"ffmpeg", "nginx"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	g := newTogether(t)
	defer g.wg.Wait()
	for _, kind := range []string{"fmp4", "mpegts"} {
		suffix := map[string]string{"fmp4": "m4s", "mpegts": "ts"}[kind]
		root := t.TempDir()
		live(t, root, kind, "seg-%05d."+suffix)
		upstream := nginx(t, root)
		layout, err := media.Pattern(`/seg-(?P<number>\d+)\.(?:m4s|ts)$`)
		if err != nil {
			t.Fatal(err)
		}
		layout.Duration = time.Second
		for _, c := range []struct {
			defect media.Defect
			chosen media.Selector
		}{
			{media.Defect{Kind: media.Missing}, media.Selector{Every: 3}},
			{media.Defect{Kind: media.Missing, Status: 410}, media.Selector{Every: 2, Live: []int{-2}}},
			{media.Defect{Kind: media.Short, Keep: 0.5}, media.Selector{Every: 2}},
			{media.Defect{Kind: media.Frozen}, media.Selector{Every: 3}},
			{media.Defect{Kind: media.WrongTime, Shift: 10 * time.Second}, media.Selector{}},
			{media.Defect{Kind: media.Corrupt, Share: 0.5}, media.Selector{Every: 2, Phase: 1}},
			{media.Defect{Kind: media.Late, Delay: time.Second}, media.Selector{}},
		} {
			g.run(fmt.Sprintf("%s/%s%v", kind, c.defect.Kind, c.chosen.Live), func(t *testing.T) {
				r, base := behind(t, layout, upstream)
				cfg := SegmentsConfig{
					Fault: "media-1", Stream: Stream{Base: base, Layout: layout, Playlist: "/live.m3u8"}, Want: c.defect, Select: c.chosen, Now: time.Now,
				}
				watch := func() (observer, error) { return NewSegments(cfg) }
				rule := httprelay.Rule{Name: "own", Share: 1, Media: &c.chosen, Action: httprelay.Action{Kind: httprelay.Segment, Defect: c.defect}}
				i := &httprelay.Injector{Relay: r, Owner: "media-1", Rules: []httprelay.Rule{rule}}
				if e := play(t, i, watch, 3*time.Second, 7*time.Second, 3*time.Second); e.Status != evidence.Confirmed {
					t.Errorf("%+v (%s)", e, i.Note())
				} else {
					t.Logf("%+v (%s)", e, i.Note())
				}
			})
		}
	}
}

// live runs ffmpeg as an encoder that writes HLS until the test ends.
func live(t *testing.T, root, kind, segments string) {
	t.Helper()
	cmd := exec.Command("ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error",
		"-re", "-f", "lavfi", "-i", "testsrc2=s=192x108:r=20", "-re", "-f", "lavfi", "-i", "sine=f=440", "-map", "0:v", "-map", "1:a",
		"-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "20", "-keyint_min", "20", "-c:a", "aac",
		"-f", "hls", "-hls_time", "1", "-hls_list_size", "8", "-hls_delete_threshold", "8", "-hls_flags", "delete_segments+temp_file", "-hls_segment_type", kind,
		"-hls_segment_filename", filepath.Join(root, segments), filepath.Join(root, "live.m3u8"))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	wait(t, "six segments of ffmpeg", func() bool {
		text, err := os.ReadFile(filepath.Join(root, "live.m3u8"))
		return err == nil && strings.Count(string(text), "#EXTINF") >= 6
	})
}

// nginx serves a folder until the test ends.
func nginx(t *testing.T, root string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	dir := t.TempDir()
	for _, d := range []string{root, filepath.Dir(root), dir} { // workers of a root's nginx are somebody else
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr error;
events { worker_connections 256; }
http {
  access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen %[2]s; root %[3]s; }
}`, dir, addr, root)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nginx", "-p", dir, "-e", "stderr", "-c", file)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	wait(t, "nginx", func() bool {
		resp, err := http.Get("http://" + addr + "/live.m3u8")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return addr
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("no %s", what)
		}
	}
}

func TestPlaylistsAreRead(t *testing.T) {
	layout, err := media.Template("seg-%05d.m4s")
	if err != nil {
		t.Fatal(err)
	}
	base, _ := url.Parse("http://127.0.0.1:80/hls/live.m3u8")
	got, init := readPlaylist([]byte("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-MAP:BYTERANGE=\"1@0\",URI=\"init.mp4\"\n#EXTINF:1.0,\nseg-00009.m4s?t=1\n#EXTINF:1,\r\n/other/seg-00010.m4s\r\nnotes.txt\n"), base, layout)
	if init != "http://127.0.0.1:80/hls/init.mp4" || len(got) != 2 || got[0].number != 9 || got[0].url != "http://127.0.0.1:80/hls/seg-00009.m4s?t=1" ||
		got[1].number != 10 || got[1].url != "http://127.0.0.1:80/other/seg-00010.m4s" {
		t.Errorf("%s, %+v", init, got)
	}
}

func FuzzPlaylist(f *testing.F) {
	f.Add([]byte("#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:1.0,\nseg-00009.m4s\n"))
	layout, err := media.Template("seg-%05d.m4s")
	if err != nil {
		f.Fatal(err)
	}
	base, _ := url.Parse("http://127.0.0.1/hls/live.m3u8")
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, _ := readPlaylist(text, base, layout); len(got) > 2*window+maxLiveAsked {
			t.Fatal(len(got))
		}
	})
}

// A stream of which nothing says what is newest is refused with the parameter that would.
func TestAStreamWithoutAClockNamesThePlaylist(t *testing.T) {
	_, err := NewSegments(SegmentsConfig{Fault: "f", Stream: Stream{Base: "http://127.0.0.1:1"}, Want: media.Defect{Kind: media.Missing}, Now: time.Now})
	if err == nil || !strings.Contains(err.Error(), "give --set playlist=/path (a scenario: playlist: /path)") {
		t.Error(err)
	}
}
