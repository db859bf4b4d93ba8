// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Without any memory left in its cgroup a call fails as documented, and nothing is
// kept. Any kernel can do that; which single allocation fails can be chosen on the
// debug kernel only.
func TestNoMemoryInCgroup(t *testing.T) {
	// The kernel tells much of each failure: look before it overwrites what came
	// before.
	quiet(t)
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	cgroups, commands := newCgroups(t), hasCommands(t, d)
	// These need more than what a CPU has charged in advance, and nobody tries them
	// again, as io_uring's threads do.
	sure := []string{"long read", "long read, family get", "read of segments", "long read, queued", "AIO read",
		"transfer, read", "BUFFER_REGISTER"}
	for _, c := range slices.Concat(oomReadsAndWrites(), oomIoctls(), oomOthers()) {
		switch {
		case strings.HasPrefix(c.name, "touch of"):
			continue // tried again for as long as there is no memory
		case strings.HasPrefix(c.name, "population of") && !kernelAtLeast(t, 5, 14):
			continue // no such advice
		case strings.Contains(c.name, "command") && !commands:
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			errnos := append([]unix.Errno{unix.ENOMEM}, c.errnos...)
			if asynchronous.MatchString(c.name) {
				// The kernel's own, without room for a request or a thread.
				errnos = append(errnos, unix.EAGAIN, unix.ECANCELED)
			}
			_, failed, ended := c.sweep(t, cgroups.confine(t), errnos)
			if !ended {
				t.Error("no end of failures")
			}
			if failed == 0 && slices.Contains(sure, c.name) {
				t.Error("it didn't want for memory")
			}
		})
	}
	quiet(t)
	if now, err := d.Config(); err != nil || now != config {
		t.Errorf("configuration %+v, %v; it was %+v", now, err, config)
	}
}

// asynchronous are the calls that go through native AIO or io_uring.
var asynchronous = regexp.MustCompile(`AIO|io_uring|command|polled`)

// quiet fails the test for any complaint that the kernel made up to now.
func quiet(t *testing.T) {
	t.Helper()
	complaints, err := kernelComplaints()
	if err != nil || len(complaints) > 0 {
		t.Fatalf("the kernel complained: %q, %v", complaints, err)
	}
}

// cgroups make memory scarce for this process.
type cgroups struct {
	root string // where the hierarchy is mounted
	home string // the process's own, in there
	made int
}

func newCgroups(t *testing.T) *cgroups {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	g := &cgroups{}
	for _, line := range strings.Split(string(own), "\n") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			g.home = path
		}
	}
	g.root = t.TempDir()
	if err := unix.Mount("cgroup2", g.root, "cgroup2", 0, ""); err != nil {
		t.Fatal("mount cgroup2:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(g.root, 0); err != nil {
			t.Error("unmount cgroup2:", err)
		}
	})
	putFile(t, filepath.Join(g.root, "cgroup.subtree_control"), "+memory")
	// With nobody to kill, what lacks memory fails.
	was, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	putFile(t, "/proc/self/oom_score_adj", "-1000")
	t.Cleanup(func() { putFile(t, "/proc/self/oom_score_adj", strings.TrimSpace(string(was))) })
	return g
}

func putFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// confined is a shortage: this process in a cgroup that gets no memory for the time
// of a call.
type confined struct {
	*cgroups
	t     *testing.T
	words []byte // "0", "max"
}

func (g *cgroups) confine(t *testing.T) *confined {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	mem := anonymous(t, 1)
	copy(mem, "0max")
	return &confined{cgroups: g, t: t, words: mem[:4]}
}

// run makes the first call without memory, and any later one with all that there is.
func (c *confined) run(nth int, call rawCall) (result int, e unix.Errno, fired bool) {
	c.t.Helper()
	if nth > 1 {
		r, _, e := unix.Syscall6(call.trap, call.args[0], call.args[1], call.args[2], call.args[3], call.args[4], call.args[5])
		if e != 0 {
			return 0, e, false
		}
		return int(r), 0, false
	}
	// A new one each time: what was charged in advance is another's.
	c.made++
	group := filepath.Join(c.root, c.home, fmt.Sprintf("dio-vmtest-%d", c.made))
	if err := os.Mkdir(group, 0o700); err != nil {
		c.t.Fatal(err)
	}
	pid := strconv.Itoa(os.Getpid())
	putFile(c.t, filepath.Join(group, "cgroup.procs"), pid)
	limit, err := unix.Open(filepath.Join(group, "memory.max"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	// Go's runtime sends signals, whose handling may need memory.
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		c.t.Fatal(err)
	}
	r, e, set, lifted := c.window(limit, &call)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err != nil {
		c.t.Fatal(err)
	}
	unix.Close(limit)
	if set != 0 || lifted != 0 {
		c.t.Fatalf("set and lift the limit of %s: %v, %v", group, set, lifted)
	}
	putFile(c.t, filepath.Join(c.root, c.home, "cgroup.procs"), pid)
	if err := os.Remove(group); err != nil {
		c.t.Error(err)
	}
	if e == 0 {
		result = int(r)
	}
	return result, e, true
}

// window is all that runs without memory: nothing of Go's runtime, which takes that
// for the end. Other threads that want for a page meanwhile try until it's over.
//
//go:nosplit
func (c *confined) window(limit int, call *rawCall) (r uintptr, e, set, lifted unix.Errno) {
	words := uintptr(unsafe.Pointer(unsafe.SliceData(c.words)))
	_, _, set = unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(limit), words, 1, 0, 0, 0)
	r, _, e = unix.RawSyscall6(call.trap, call.args[0], call.args[1], call.args[2], call.args[3], call.args[4], call.args[5])
	_, _, lifted = unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(limit), words+1, 3, 0, 0, 0)
	return r, e, set, lifted
}
