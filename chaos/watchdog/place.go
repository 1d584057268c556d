package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// root's journals lie in one place whatever its environment says: what only root can make is listed nowhere else.
const systemDir = "/run/tminus"

// dirs are the places for journals, best first: /run/tminus for root, then below XDG_RUNTIME_DIR, then below the folder for
// temporary files. All but the last are empty after a boot, like most of what they list.
func dirs() []string {
	var list []string
	if os.Geteuid() == 0 {
		list = append(list, systemDir)
	}
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(runtime) {
		list = append(list, filepath.Join(runtime, "tminus"))
	}
	return append(list, filepath.Join(os.TempDir(), "tminus-"+strconv.Itoa(os.Geteuid())))
}

// others are the places where other users' journals may lie.
func others() []string {
	list := []string{systemDir}
	for _, pattern := range []string{"/run/user/*/tminus", "/tmp/tminus-*", filepath.Join(os.TempDir(), "tminus-*")} {
		found, _ := filepath.Glob(pattern) // fails for a bad pattern alone
		list = append(list, found...)
	}
	return list
}

// makePrivate makes a folder that nobody else can look into, or makes sure that one is.
func makePrivate(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a folder for the journal: %w", err)
	}
	return private(dir)
}

// private makes sure that a folder is this user's own: whoever can write a journal can have this user undo anything.
func private(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is no folder", dir)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, not to this one (%d)", dir, st.Uid, os.Geteuid())
	case st.Mode&0o077 != 0:
		return fmt.Errorf("%s is open to others (mode %04o, want 0700)", dir, st.Mode&0o7777)
	}
	return nil
}
