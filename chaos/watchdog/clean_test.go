package watchdog

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/procfs"
)

// sweepOf looks at one folder of journals, and at names of this test's alone: others work on this machine too.
func sweepOf(dir string) sweep {
	return sweep{journals: []string{dir}, prefix: Prefix + "test-" + strconv.Itoa(os.Getpid()) + "-", remove: true}
}

func mustSweep(t *testing.T, s sweep) []Found {
	t.Helper()
	list, err := s.sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// write writes a journal, of a conductor with this identity.
func write(t *testing.T, dir string, h header, entries ...Entry) string {
	t.Helper()
	h.Version = journalVersion
	path, file, err := createJournal([]string{dir}, h)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for i, e := range entries {
		text, err := json.Marshal(line{Protect: Token(i + 1), Entry: &e})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(append(text, '\n')); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func here(pid int, start uint64) header {
	return header{Run: "r1", PID: pid, Start: start, Boot: bootID(), Space: pidNamespace()}
}

// If the conductor and its watchdog are both killed, Clean does what the watchdog would have done.
func TestCleanAfterBothWereKilled(t *testing.T) {
	dir := t.TempDir()
	prey := victim(t)
	conductor := as(t, "conductor", "WATCHDOG_TEST_DIR="+dir, "WATCHDOG_TEST_SEED=1",
		fmt.Sprintf("WATCHDOG_TEST_PREY=%[1]d,%[2]d,%[1]d,%[2]d", prey.PID, prey.Start))
	out, err := conductor.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := conductor.Start(); err != nil {
		t.Fatal(err)
	}
	defer conductor.Process.Kill()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	s := sweepOf(filepath.Join(dir, "journals"))
	journal := func() candidate {
		list, err := s.list()
		if err != nil || len(list) != 1 {
			t.Fatalf("%d journals, %v", len(list), err)
		}
		return list[0]
	}
	// It is stopped while it has something broken: left to itself it would mend that meanwhile.
	eventually(t, patience, "something is broken", func() bool {
		conductor.Process.Signal(unix.SIGSTOP)
		eventually(t, patience, "the conductor is stopped", func() bool {
			p, err := procfs.Read(conductor.Process.Pid)
			return err == nil && p.State == procfs.Stopped
		})
		if len(journal().entries) >= 2 {
			return true
		}
		conductor.Process.Signal(unix.SIGCONT)
		return false
	})
	// What a living conductor has is not touched.
	if found := mustSweep(t, s); len(found) != 0 {
		t.Errorf("of a living conductor: %+v", found)
	}
	all, err := procfs.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procfs.Descendants(all, conductor.Process.Pid) {
		if sid, err := unix.Getsid(p.PID); err == nil && sid == p.PID { // the watchdog leads a session
			_ = procfs.Signal(p.PID, p.Start, unix.SIGKILL)
		}
	}
	conductor.Process.Kill()
	conductor.Wait()
	before := journal()
	if before.lives || len(before.entries) == 0 {
		t.Fatalf("%+v", before)
	}
	look := s
	look.remove = false
	if found := mustSweep(t, look); len(found) == 0 || found[0].Removed || found[0].Run != "test" {
		t.Errorf("%+v", found)
	}
	found := mustSweep(t, s)
	if len(found) == 0 {
		t.Error("nothing was found")
	}
	for _, f := range found {
		if !f.Removed {
			t.Errorf("%+v", f)
		}
	}
	for _, o := range before.entries {
		if there(o.entry) {
			t.Errorf("%s is left", o.entry)
		}
	}
	if exists(filepath.Join(dir, "journals")) {
		t.Error("the folder of journals is left")
	}
	if found := mustSweep(t, s); len(found) != 0 {
		t.Errorf("a second time: %+v", found)
	}
}

func TestCleanLooksAtWhoseItIs(t *testing.T) {
	me, err := procfs.Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := here(me.PID, me.Start+1)
	elsewhere.Space = "pid:[1]"
	earlier := here(me.PID, me.Start)
	earlier.Boot = "an earlier boot"
	for _, c := range []struct {
		name    string
		of      header
		undone  bool
		removed bool   // the journal
		says    string // of it
	}{
		{"a living conductor's", here(me.PID, me.Start), false, false, ""},
		{"of a dead one whose pid another process has now", here(me.PID, me.Start+1), true, true, "journal"},
		{"of another pid namespace", elsewhere, false, false, "clean up there"},
		{"of an earlier boot: its pids are other people's", earlier, false, true, "journal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "j")
			p := victim(t)
			stop(t, p)
			write(t, dir, c.of, stopOne(p))
			if n, err := sweepOf(dir).underWay(); err != nil || (n == 1) != (c.name == "a living conductor's") {
				t.Errorf("%d runs are under way, %v", n, err)
			}
			found := mustSweep(t, sweepOf(dir))
			if (state(p) == procfs.Stopped) == c.undone || exists(dir) == c.removed {
				t.Errorf("state %c, journal %v; %+v", state(p), exists(dir), found)
			}
			if said := slices.ContainsFunc(found, func(f Found) bool {
				return strings.Contains(f.What+f.Error, c.says) && f.Removed == c.removed
			}); said != (c.says != "") {
				t.Errorf("%+v", found)
			}
		})
	}
}

func TestCleanKeepsTheJournalOfWhatItCannotUndo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	setting := Entry{Kind: Setting, Path: "/sys/kernel/mm/nowhere/at/all", Value: "1"}
	path := write(t, dir, here(1<<22, 1), setting)
	found := mustSweep(t, sweepOf(dir))
	if len(found) != 2 || found[0].Removed || !strings.Contains(found[0].Error, "no such file") || found[1].Removed || !exists(path) {
		t.Errorf("%+v, journal %v", found, exists(path))
	}
}

// Whoever can write to a journal could have root undo anything.
func TestCleanDoesNotTrustAnOpenFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	p := victim(t)
	stop(t, p)
	write(t, dir, here(1<<22, 1), stopOne(p))
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	found := mustSweep(t, sweepOf(dir))
	if state(p) != procfs.Stopped || len(found) != 1 || found[0].Removed || !strings.Contains(found[0].Error, "open to others") {
		t.Errorf("state %c, %+v", state(p), found)
	}
}

func TestAJournalWithoutAFirstLineIsItsNamesOwners(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	me, err := procfs.Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, fmt.Sprintf("%d-%d-1.journal", me.PID, me.Start))
	dead := filepath.Join(dir, fmt.Sprintf("%d-%d-1.journal", me.PID, me.Start+1))
	for _, path := range []string{mine, dead, filepath.Join(dir, "notes.txt")} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := mustSweep(t, sweepOf(dir))
	if !exists(mine) || exists(dead) || !exists(filepath.Join(dir, "notes.txt")) || len(found) != 1 {
		t.Errorf("mine %v, dead %v, %+v", exists(mine), exists(dead), found)
	}
}

// A dead conductor's watchdog that is at work has the journal's lock.
func TestCleanWaitsForAWatchdogAtWork(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	path := write(t, dir, here(1<<22, 1))
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan []Found)
	go func() {
		list, err := sweepOf(dir).sweep(t.Context())
		if err != nil {
			t.Error(err)
		}
		done <- list
	}()
	select {
	case list := <-done:
		t.Fatalf("it did not wait: %+v", list)
	case <-time.After(50 * time.Millisecond):
	}
	if err := removeJournal(path); err != nil {
		t.Fatal(err)
	}
	file.Close()
	if list := <-done; len(list) != 0 {
		t.Errorf("the watchdog did it all, and yet: %+v", list)
	}
}

func TestCleanFindsByName(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("namespaces, interfaces and cgroups take root")
	}
	dir := filepath.Join(t.TempDir(), "j")
	s := sweepOf(dir)
	s.prefix = fmt.Sprintf("%s%d-", Prefix, os.Getpid()%10_000) // an interface's name has 15 bytes
	left := []Entry{
		{Kind: Namespace, Name: s.prefix + "n"},
		{Kind: Interface, Name: s.prefix + "i"},
		{Kind: Cgroup, Path: "/sys/fs/cgroup/freezer/" + s.prefix + "c", Home: "/sys/fs/cgroup/freezer"},
	}
	owned := Entry{Kind: Namespace, Name: s.prefix + "owned"}
	used := Entry{Kind: Namespace, Name: s.prefix + "used"}
	p := victim(t)
	for _, e := range append(left, owned, used) {
		t.Cleanup(func() { undo(e) })
		var err error
		switch e.Kind {
		case Namespace:
			err = makeNamespace(e.Name)
		case Interface:
			err = makeTun(e.Name)
		case Cgroup:
			if unix.Access(e.Home, unix.W_OK) != nil {
				continue // this machine has none of version 1
			}
			if err = os.Mkdir(e.Path, 0o755); err == nil {
				err = procfs.Write(e.Path+"/cgroup.procs", strconv.Itoa(p.PID))
			}
			if err == nil {
				err = procfs.Write(e.Path+"/freezer.state", "FROZEN")
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", e, err)
		}
	}
	me, err := procfs.Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, here(me.PID, me.Start), owned)
	inside := exec.Command("nsenter", "--net="+filepath.Join(NamespaceDir, used.Name), os.Args[0])
	inside.Env = append(os.Environ(), role+"=victim")
	if err := inside.Start(); err != nil {
		t.Skipf("there is no nsenter(1): %v", err)
	}
	defer func() { inside.Process.Kill(); inside.Wait() }()
	eventually(t, patience, "a process lives in the namespace", func() bool { return inUse(used) == inside.Process.Pid })

	found := mustSweep(t, s)
	for _, e := range left {
		if there(e) {
			t.Errorf("%s is left; %+v", e, found)
		}
	}
	if !there(owned) || !there(used) {
		t.Errorf("a living conductor's: %v, one that is in use: %v; %+v", there(owned), there(used), found)
	}
	if state(p) == procfs.Dead {
		t.Error("a process of a cgroup was killed")
	}
	if i := slices.IndexFunc(found, func(f Found) bool { return strings.HasSuffix(f.What, used.Name) }); i < 0 || !strings.Contains(found[i].Error, "lives in it") {
		t.Errorf("%+v", found)
	}
}
