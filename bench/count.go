// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

var errNoCount = errors.New("system calls weren't counted: that needs root, tracefs and one thread")

// callCounter counts a thread's system calls by the tracepoint
// raw_syscalls:sys_enter.
type callCounter int

// openCallCounter counts this thread's calls from now on. It needs tracefs and
// the right to use perf events.
func openCallCounter() (callCounter, error) {
	var b []byte
	var err error
	for _, dir := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		if b, err = os.ReadFile(dir + "/events/raw_syscalls/sys_enter/id"); err == nil {
			break
		}
	}
	if err != nil {
		return -1, fmt.Errorf("%w: %w", errNoCount, err)
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", errNoCount, err)
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("%w: perf_event_open: %w", errNoCount, err)
	}
	return callCounter(fd), nil
}

// count is how many calls were made, this one included.
func (c callCounter) count() (int64, bool) {
	var b [8]byte
	if c < 0 {
		return 0, false
	}
	n, err := unix.Read(int(c), b[:])
	return int64(binary.NativeEndian.Uint64(b[:])), n == len(b) && err == nil
}

func (c callCounter) close() {
	if c >= 0 {
		unix.Close(int(c))
	}
}

// CountCalls makes s.Ops operations twice at depth 1 and says how many system
// calls the loop counted, and how many the kernel did: a check of the former.
func CountCalls(s Spec) (own, kernel int64, err error) {
	s.Depth, s.Batch, s.Submit = 1, 1, 1
	t, err := openTarget(s)
	if err != nil {
		return 0, 0, err
	}
	defer t.file.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mem, err := newMemory(1, s.BlockSize, false)
	if err != nil {
		return 0, 0, err
	}
	defer mem.close()
	l, err := openLoop(s.Engine, &job{file: t.file, write: s.RW.Writes(), block: s.BlockSize, depth: 1, batch: 1, submit: 1,
		offset: newOffsets(s.RW, s.BlockSize, t.size, s.Seed), mem: mem})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.run(s.Ops, nil); err != nil {
		return 0, 0, err
	}
	defer blockSignals()() // the return from a handler is a system call, too
	before := l.tally().calls
	c, err := openCallCounter()
	if err != nil {
		return 0, 0, err
	}
	defer c.close()
	start, _ := c.count()
	err = l.run(s.Ops, nil)
	end, ok := c.count()
	if !ok && err == nil {
		err = errNoCount
	}
	return l.tally().calls - before, end - start - 1, err
}
