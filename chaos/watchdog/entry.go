package watchdog

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Prefix begins the name of every namespace, interface and cgroup that is made for an experiment.
const Prefix = "tminus-"

// Kind says how an Entry is undone.
type Kind string

const (
	Continue  Kind = "continue" // PID was stopped: SIGCONT
	Namespace Kind = "netns"    // Name is a network namespace below NamespaceDir: unmounted and removed
	Interface Kind = "link"     // Name is a network interface of the watchdog's own namespace: deleted
	Cgroup    Kind = "cgroup"   // Path is a control group: its processes go back to Home, and it is removed
	Setting   Kind = "setting"  // Path is a file below /proc/sys or /sys: Value is written back
)

// NamespaceDir is where named network namespaces are mounted (ip-netns(8)).
const NamespaceDir = "/run/netns"

// Entry is one change to the machine and how to undo it. What it names need not exist: it is journalled before it is made,
// and may be gone before it is undone.
type Entry struct {
	Kind  Kind   `json:"kind"`
	PID   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"` // of PID: clock ticks since boot
	Name  string `json:"name,omitempty"`
	Path  string `json:"path,omitempty"`  // absolute
	Home  string `json:"home,omitempty"`  // absolute: the cgroup its processes came from
	Value string `json:"value,omitempty"` // as it was before
}

// maxField bounds each text of an entry, in bytes.
const maxField = 4096

// Token names a protected Entry until it is released. The zero Token names none.
type Token uint64

// Guard is what a fault needs of a watchdog.
type Guard interface {
	// Protect returns when the disk knows how to undo e. Only then may e be done. It refuses when the watchdog is lost.
	Protect(e Entry) (Token, error)
	// Release says that e has been undone, or was never done. Releasing twice, or the zero Token, is fine.
	Release(Token) error
}

// Validate reports everything that is wrong with an entry. It keeps an entry to what an experiment may have made: what
// is removed by name bears Prefix.
func (e Entry) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	clean := func(what, p string) {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			wrong("%s %q is not a clean absolute path", what, p)
		}
	}
	ours := func(name string) {
		if !strings.HasPrefix(name, Prefix) || name == Prefix || strings.ContainsAny(name, "/\x00") {
			wrong("name %q does not begin with %s", name, Prefix)
		}
	}
	for _, text := range []string{e.Name, e.Path, e.Home, e.Value} {
		if len(text) > maxField {
			wrong("a text of %d bytes, at most %d are possible", len(text), maxField)
		}
	}
	switch e.Kind {
	case Continue:
		if e.PID < 2 || e.Start == 0 {
			wrong("process %d, started at %d, is not named for good", e.PID, e.Start)
		}
	case Namespace:
		ours(e.Name)
	case Interface:
		ours(e.Name)
		if len(e.Name) > 15 {
			wrong("an interface's name has at most 15 bytes, %q has %d", e.Name, len(e.Name))
		}
	case Cgroup:
		clean("cgroup", e.Path)
		clean("home", e.Home)
		ours(path.Base(e.Path))
		if e.Home == e.Path || strings.HasPrefix(e.Home, e.Path+"/") {
			wrong("cgroup %s cannot be its own home", e.Path)
		}
	case Setting:
		clean("setting", e.Path)
		if !strings.HasPrefix(e.Path, "/proc/sys/") && !strings.HasPrefix(e.Path, "/sys/") {
			wrong("setting %s is neither below /proc/sys nor below /sys", e.Path)
		}
	default:
		wrong("there is no kind %q of entry", e.Kind)
	}
	return errors.Join(errs...)
}

// String says in words what is undone: "stopped process 4711".
func (e Entry) String() string {
	switch e.Kind {
	case Continue:
		return fmt.Sprintf("stopped process %d", e.PID)
	case Namespace:
		return "network namespace " + e.Name
	case Interface:
		return "network interface " + e.Name
	case Cgroup:
		return "cgroup " + e.Path
	case Setting:
		return fmt.Sprintf("setting %s (was %q)", e.Path, e.Value)
	}
	return fmt.Sprintf("entry of unknown kind %q", e.Kind)
}
