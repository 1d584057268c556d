package netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/kernel"
)

// Able tries the smallest network: a namespace that nobody sees, with each kind of thing in it once. It says in one sentence
// what is lacking.
func Able() error {
	s, err := newSpace()
	if err != nil {
		return err
	}
	err = s.netlink.addVeth(end{name: "a"}, end{name: "b"})
	if err == nil {
		err = s.do(func() error { return errors.Join(plain("a"), kernel.Able()) })
	}
	if err == nil {
		err = s.do(func() error {
			w, err := newWire(s.netlink, "wire")
			if err != nil {
				return err
			}
			return w.close()
		})
	}
	return errors.Join(err, s.close())
}

// explain turns a refusal of the kernel's into what a person can do about it, and says of anything else what failed.
func explain(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: a network of the run's own needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root), which this user lacks; relays in user space work without", evidence.ErrUnsupported)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: a network of the run's own needs Linux with network namespaces, veth and /dev/net/tun, one of which this machine lacks (%w); relays in user space work without", evidence.ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
