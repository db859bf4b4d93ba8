// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// failNth is where a thread says which of its next allocations, or copies from and
// to user space, is to fail; it reads as 0 once that came (Documentation/fault-injection).
const failNth = "/proc/thread-self/fail-nth"

// callers is a range of code: what isn't called from within doesn't fail, nor count.
type callers [2]uint64

var (
	anybody = callers{0, ^uint64(0)}
	nobody  = callers{1, 2}
)

// driverCode is where the driver's functions are.
func driverCode(t *testing.T) callers {
	t.Helper()
	text, err := os.ReadFile("/sys/module/dio/sections/.text")
	if err != nil {
		t.Fatal(err)
	}
	start, err := strconv.ParseUint(strings.TrimSpace(string(text)), 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := os.ReadFile("/proc/modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(modules), "\n") {
		var name string
		var size uint64
		if n, _ := fmt.Sscan(line, &name, &size); n == 2 && name == "dio" {
			return callers{start, start + size}
		}
	}
	t.Fatal("/proc/modules has no dio")
	return callers{}
}

// failAttributes are the folders of what can fail, in debugfs.
var failAttributes = [3]string{"failslab", "fail_page_alloc", "fail_usercopy"}

// failSet sets one up until the test ends.
func failSet(t *testing.T, attribute, name, value string) {
	t.Helper()
	path := filepath.Join("/sys/kernel/debug", attribute, name)
	before, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, bytes.TrimSpace(before), 0); err != nil {
			t.Error(err)
		}
	})
}

// failWithin has memory, and copies from and to user space, fail for those callers
// only, until the test ends: any memory, also for who could wait for it.
func failWithin(t *testing.T, memory, copies callers) {
	t.Helper()
	for i, within := range [len(failAttributes)]callers{memory, memory, copies} {
		failSet(t, failAttributes[i], "verbose", "0")
		failSet(t, failAttributes[i], "times", "-1")
		failSet(t, failAttributes[i], "require-start", strconv.FormatUint(within[0], 10))
		failSet(t, failAttributes[i], "require-end", strconv.FormatUint(within[1], 10))
	}
	failSet(t, "failslab", "ignore-gfp-wait", "N")
	failSet(t, "fail_page_alloc", "ignore-gfp-wait", "N")
	failSet(t, "fail_page_alloc", "ignore-gfp-highmem", "N")
	failSet(t, "fail_page_alloc", "min-order", "0")
}

// rawCall is a system call, whose pointers are to memory that Go doesn't move; or
// with touchCall, a load of the byte at its first argument.
type rawCall struct {
	trap uintptr
	args [6]uintptr
}

const touchCall = ^uintptr(0)

func syscallOf(trap uintptr, args ...uintptr) rawCall {
	c := rawCall{trap: trap}
	copy(c.args[:], args)
	return c
}

// failing is a thread, the test's, that can have one of its allocations fail.
type failing struct {
	t   *testing.T
	fd  int
	arm []byte // what is written to fail-nth
	nth int    // how long that is
	was []byte // what is read from there
}

func newFailing(t *testing.T) *failing {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	fd, err := unix.Open(failNth, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	mem := anonymous(t, 1)
	clear(mem)
	return &failing{t: t, fd: fd, arm: mem[:16], was: mem[16:32]}
}

// run makes the call, of which the nth allocation or copy fails, and tells whether
// it came to that. The errno is 0 for a success.
func (f *failing) run(nth int, c rawCall) (result int, e unix.Errno, fired bool) {
	f.t.Helper()
	f.nth = copy(f.arm, strconv.Itoa(nth))
	clear(f.was)
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	// A signal's frame is copied, too, and Go's runtime sends some.
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		f.t.Fatal(err)
	}
	r, e, armed, read := f.window(&c)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err != nil {
		f.t.Fatal(err)
	}
	if armed != 0 {
		f.t.Fatal("write fail-nth:", armed)
	}
	left, _, _ := strings.Cut(string(f.was), "\n")
	switch {
	case read == unix.EFAULT: // it came to telling, and that failed
	case read != 0 || left == "":
		f.t.Fatalf("read fail-nth: %q, %v", left, read)
	default:
		fired = left == "0"
	}
	if e == 0 {
		result = int(r)
	}
	return result, e, fired
}

// window is all that runs with the failure set: nothing of Go's runtime, which
// takes lack of memory for the end.
//
//go:nosplit
func (f *failing) window(c *rawCall) (r uintptr, e, armed, read unix.Errno) {
	_, _, armed = unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(f.fd), uintptr(unsafe.Pointer(unsafe.SliceData(f.arm))), uintptr(f.nth), 0, 0, 0)
	if c.trap == touchCall {
		r = uintptr(*(*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&c.args[0]))))
	} else {
		r, _, e = unix.RawSyscall6(c.trap, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
	}
	_, _, read = unix.RawSyscall6(unix.SYS_PREAD64, uintptr(f.fd), uintptr(unsafe.Pointer(unsafe.SliceData(f.was))), uintptr(len(f.was)-1), 0, 0, 0)
	f.arm[0] = '0'
	// If this copy is the one that fails, nothing is set any more either.
	unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(f.fd), uintptr(unsafe.Pointer(unsafe.SliceData(f.arm))), 1, 0, 0, 0)
	return r, e, armed, read
}

// placed is v at the beginning of mem, which isn't Go's.
func placed[T any](mem []byte, v T) *T {
	p := (*T)(unsafe.Pointer(unsafe.SliceData(mem)))
	*p = v
	return p
}

func addr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }
