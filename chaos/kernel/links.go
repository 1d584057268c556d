package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Links lists the bpf links of this machine that hold a program of this package, whoever put it there: its name by the link's id. It
// needs CAP_SYS_ADMIN; without it the error wraps os.ErrPermission, and where the kernel has no such links ebpf.ErrNotSupported.
func Links() (map[uint32]string, error) {
	ours := make(map[uint32]string)
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		name, err := programOf(it.Link)
		if err != nil {
			return nil, fmt.Errorf("bpf link %d: %w", it.ID, err)
		}
		if strings.HasPrefix(name, Prefix) {
			ours[uint32(it.ID)] = name
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list bpf links: %w", err)
	}
	return ours, nil
}

// programOf names the program behind a link; "" when it went away meanwhile or is of no kind we make.
func programOf(l link.Link) (string, error) {
	info, err := l.Info()
	if err != nil {
		return "", nil // kinds that cannot be asked are not ours
	}
	program, err := ebpf.NewProgramFromID(info.Program)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer program.Close()
	about, err := program.Info()
	if err != nil {
		return "", err
	}
	return about.Name, nil
}
