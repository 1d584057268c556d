package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelSigaction is at least as large as the kernel's struct sigaction on any Linux.
type kernelSigaction [64]byte

// saveSignals remembers the handlers of the signals that the engine's library resets, and returns what puts them back.
func saveSignals() (restore func()) {
	signals := []unix.Signal{unix.SIGABRT, unix.SIGSEGV, unix.SIGILL, unix.SIGBUS, unix.SIGSYS, unix.SIGFPE, unix.SIGTSTP, unix.SIGTRAP}
	saved := make([]kernelSigaction, len(signals))
	const maskSize = 8
	for i, s := range signals {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), 0, uintptr(unsafe.Pointer(&saved[i])), maskSize, 0, 0)
	}
	return func() {
		for i, s := range signals {
			unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&saved[i])), 0, maskSize, 0, 0)
		}
	}
}
