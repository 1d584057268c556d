package watchdog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const first = `{"tminus_journal":1,"run":"r1","pid":42,"start":7,"boot":"b","pid_namespace":"n"}` + "\n"

func entriesOf(list []open) []string {
	var s []string
	for _, o := range list {
		s = append(s, o.entry.String())
	}
	return s
}

func TestParse(t *testing.T) {
	stop := `{"protect":1,"entry":{"kind":"continue","pid":5,"start":6}}` + "\n"
	space := `{"protect":2,"entry":{"kind":"netns","name":"tminus-a"}}` + "\n"
	for _, c := range []struct {
		name, text string
		want       []string
		torn       string
	}{
		{"nothing was broken", first, nil, ""},
		{"in the order in which it was broken", first + stop + space, []string{"stopped process 5", "network namespace tminus-a"}, ""},
		{"released", first + stop + space + `{"release":1}` + "\n", []string{"network namespace tminus-a"}, ""},
		{"released twice", first + stop + `{"release":1}` + "\n" + `{"release":1}` + "\n", nil, ""},
		{"a last line that was not written to its end", first + stop + space[:20], []string{"stopped process 5"}, ""},
		{"empty", "", nil, "no first line"},
		{"a first line that was not written to its end", first[:30], nil, "no first line"},
		{"not a journal", "hello\n", nil, "its first line is"},
		{"a journal of another version", strings.Replace(first, "1", "9", 1), nil, "its first line is"},
		{"torn in the middle: what came before counts", first + stop + "{\n" + space, []string{"stopped process 5"}, "makes no sense"},
		{"an entry that no experiment makes", first + `{"protect":1,"entry":{"kind":"netns","name":"blue"}}` + "\n", nil, "does not begin"},
		{"a line that says nothing", first + "{}\n", nil, "a line is"},
		{"a line too long", first + strings.Repeat("x", maxLine+1) + "\n", nil, "makes no sense"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, list, err := parse(strings.NewReader(c.text))
			if !slices.Equal(entriesOf(list), c.want) {
				t.Errorf("%q, want %q", entriesOf(list), c.want)
			}
			if (err == nil) != (c.torn == "") || err != nil && (!errors.Is(err, errTorn) || !strings.Contains(err.Error(), c.torn)) {
				t.Errorf("err %v, want %q", err, c.torn)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(first + `{"protect":1,"entry":{"kind":"continue","pid":5,"start":6}}` + "\n" + `{"release":1}` + "\n"))
	f.Add([]byte(first + `{"protect":1,"entry":{"kind":"cgroup","path":"/sys/fs/cgroup/tminus-a","home":"/"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, list, _ := parse(bytes.NewReader(b))
		for _, o := range list {
			if err := o.entry.Validate(); err != nil {
				t.Fatalf("%+v: %v", o.entry, err)
			}
		}
	})
}

// What is written is what is read, whatever is protected and released in whatever order, and the file does not grow
// without bound.
func TestJournalReadsBackWhatIsOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	rapid.Check(t, func(t *rapid.T) {
		path, file, err := createJournal([]string{dir}, header{Version: journalVersion, PID: 42, Start: 7})
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		defer j.remove()
		var want []open
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			if len(want) > 0 && rapid.Bool().Draw(t, "release") {
				i := rapid.IntRange(0, len(want)-1).Draw(t, "which")
				if err := j.release(want[i].token); err != nil {
					t.Fatal(err)
				}
				want = slices.Delete(want, i, i+1)
				continue
			}
			e := Entry{Kind: Setting, Path: "/sys/x", Value: rapid.StringN(0, 20, 80).Draw(t, "value")}
			e.Value = strings.ToValidUTF8(e.Value, "")
			token, err := j.protect(e)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, open{token, e})
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		h, got, err := parse(bytes.NewReader(b))
		if err != nil || h.PID != 42 || !slices.Equal(got, want) || !slices.Equal(j.entries(), want) {
			t.Fatalf("read %v, %v; want %v", got, err, want)
		}
		if pid, start, ok := owner(path); !ok || pid != 42 || start != 7 {
			t.Fatalf("owner %d %d %v", pid, start, ok)
		}
	})
}

func TestJournalIsBounded(t *testing.T) {
	path, file, err := createJournal([]string{filepath.Join(t.TempDir(), "j")}, header{Version: journalVersion, PID: 42, Start: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.remove()
	long := Entry{Kind: Setting, Path: "/sys/x", Value: strings.Repeat("x", maxField)}
	for range 3 * compactAt / maxField {
		token, err := j.protect(long)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.release(token); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() > compactAt+2*maxLine {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	for {
		if _, err := j.protect(long); err != nil {
			if !errors.Is(err, errFull) {
				t.Error(err)
			}
			break
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() > maxJournal {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, list, err := parse(bytes.NewReader(b)); err != nil || len(list) != len(j.entries()) {
		t.Errorf("%d entries, %v: want the %d that fit", len(list), err, len(j.entries()))
	}
}
