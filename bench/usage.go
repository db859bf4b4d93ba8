// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// usage is what the process had used up at a moment. All of it counts, not
// only the measuring thread: io_uring's own threads work for the process.
type usage struct {
	cpu                    int64 // nanoseconds
	minor, major, switches int64
}

func readUsage() (usage, error) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return usage{}, err
	}
	var ts unix.Timespec
	// Finer than rusage's own times.
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return usage{}, err
	}
	return usage{cpu: ts.Nano(), minor: int64(ru.Minflt), major: int64(ru.Majflt), switches: int64(ru.Nvcsw) + int64(ru.Nivcsw)}, nil
}

func (u usage) since(o usage) usage {
	return usage{u.cpu - o.cpu, u.minor - o.minor, u.major - o.major, u.switches - o.switches}
}

// blockSignals keeps signals from this thread until the function that it
// returns is called: Go's runtime interrupts a thread that computes for long,
// which would be measured, too. What a fault raises can't wait.
func blockSignals() (unblock func()) {
	var set, old unix.Sigset_t
	for i := range set.Val {
		set.Val[i] = ^set.Val[i]
	}
	const wordBits = 8 * unsafe.Sizeof(set.Val[0])
	for _, s := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS} {
		bit := uintptr(s) - 1
		set.Val[bit/wordBits] &^= 1 << (bit % wordBits)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old); err != nil {
		return func() {}
	}
	return func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }
}
