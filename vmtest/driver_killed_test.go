// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
	"dio/trace/tracefs"
)

// What a call says to who was killed in it, nobody lives to see: the kernel's own
// tracepoint at the end of each system call does.
const syscallExit = "raw_syscalls/sys_exit"

// exits watches what a system call returns, whoever makes it.
func exits(t *testing.T, trap uintptr) *tracefs.Instance {
	t.Helper()
	name := strings.ReplaceAll(t.Name(), "/", "-")
	trace, err := tracefs.Open(tracefs.Options{Name: fmt.Sprintf("%s-%d", name, os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trace.Close() })
	if err := errors.Join(trace.Filter(syscallExit, fmt.Sprintf("id == %d", trap)), trace.Enable(syscallExit)); err != nil {
		t.Fatal(err)
	}
	return trace
}

// lastExit is what a thread was told by the last such call that it made, if it did.
func lastExit(t *testing.T, trace *tracefs.Instance, tid int) (result int64, made bool) {
	t.Helper()
	events, err := trace.Drain()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.TID == tid && len(e.Words) > 0 { // NR 17 = -4
			if result, err = strconv.ParseInt(e.Words[len(e.Words)-1], 10, 64); err != nil {
				t.Fatalf("the end of a system call: %+v", e)
			}
			made = true
		}
	}
	return result, made
}

// asleep tells whether a thread waits, and no signal but SIGKILL can interrupt it: as
// in the driver.
func asleep(t *testing.T, _, tid int) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(tid), "stat"))
	if err != nil {
		t.Fatal("the thread that was to wait:", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(rest, "D")
}

// whereabouts is what a process's threads do.
func whereabouts(pid int) string {
	var b strings.Builder
	threads, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task/*"))
	for _, thread := range threads {
		stat, _ := os.ReadFile(thread + "/stat")
		stack, _ := os.ReadFile(thread + "/stack")
		fmt.Fprintf(&b, "\n%.80s\n%s", stat, stack)
	}
	return b.String()
}

// killedIn has a process make a call over and over, and kills it as soon as it's
// there: it must be told EINTR. In one of some tries, for it may be on its way out.
func killedIn(t *testing.T, d *ioctlapi.Device, call string, there func(t *testing.T, pid, tid int) bool) {
	t.Helper()
	before, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	trace := exits(t, killedCalls[call].trap)
	const tries = 20
	var told []int64
	for range tries {
		h := startHelper(t, "killed", nil, call)
		tid, err := strconv.Atoi(h.line(t))
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(60 * time.Second); !there(t, h.Process.Pid, tid); time.Sleep(100 * time.Microsecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: it isn't there after a minute: %s", call, whereabouts(h.Process.Pid))
			}
		}
		killed := time.Now()
		if err := h.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = h.Wait()
		if took := time.Since(killed); took > 30*time.Second || h.ProcessState.Exited() {
			t.Errorf("%s: it took %v to die: %v", call, took, h.ProcessState)
		}
		result, made := lastExit(t, trace, tid)
		if made && result == -int64(unix.EINTR) {
			break
		}
		told = append(told, result)
	}
	if err := trace.Close(); err != nil {
		t.Error(err)
	}
	if len(told) == tries {
		t.Errorf("%s: killed %d times, it was told %v, want EINTR once", call, tries, told)
	} else {
		t.Logf("%s: EINTR at try %d", call, len(told)+1)
	}
	after, err := d.Stats()
	if held := (after.PagesPinned - after.PagesReleased) - (before.PagesPinned - before.PagesReleased); err != nil || held != 0 ||
		after.InFlight != before.InFlight || after.Buffers != before.Buffers || after.BufferPages != before.BufferPages {
		t.Errorf("%s: left behind: %d pages, %d in flight, it was %d; %d buffers, %d pages of them; %v", call, held,
			after.InFlight, before.InFlight, after.Buffers, after.BufferPages, err)
	}
}

// charged tells whether pages are charged to a process: it's about to pin them, or has.
func charged(t *testing.T, pid, _ int) bool { return pinnedKB(t, strconv.Itoa(pid)) > 0 }

const (
	killedPos   = scratch + 30<<20
	killedPages = 1 << 14 // enough to be killed in the middle of
)

// killedCalls are what the other process is killed in. Each gives a call to make over
// and over; memory is of a page.
var killedCalls = map[string]struct {
	trap    uintptr
	flags   int // of its file
	prepare func(d *ioctlapi.Device, mem []byte) (func() error, error)
}{
	"direct read":  {unix.SYS_PREAD64, unix.O_DIRECT, killedRead},
	"copied read":  {unix.SYS_PREAD64, 0, killedRead},
	"direct write": {unix.SYS_PWRITE64, unix.O_DIRECT, killedWrite},
	"copied write": {unix.SYS_PWRITE64, 0, killedWrite},
	"splice": {unix.SYS_SPLICE, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		_, w, err := onePipe()
		return func() error {
			pos := int64(killedPos)
			_, err := unix.Splice(d.FD(), &pos, w, nil, 4096, 0)
			return err
		}, err
	}},
	"fsync": {unix.SYS_FSYNC, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		return func() error { return unix.Fsync(d.FD()) }, nil
	}},
	"transfer": {unix.SYS_IOCTL, 0, func(d *ioctlapi.Device, mem []byte) (func() error, error) {
		return func() error { _, err := d.ReadAt(mem, killedPos); return err }, nil
	}},
	"transfer of a buffer": {unix.SYS_IOCTL, 0, func(d *ioctlapi.Device, mem []byte) (func() error, error) {
		id, err := d.RegisterBuffer(mem, true)
		return func() error { _, err := move(d, id, 0, len(mem), killedPos, ioctlapi.TransferWrite); return err }, err
	}},
	"discard": {unix.SYS_IOCTL, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		return func() error { _, err := d.Discard(killedPos, killedPages<<12); return err }, nil
	}},
	"set config": {unix.SYS_IOCTL, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		return func() error { return d.SetConfig(ioctlapi.Config{}) }, nil
	}},
	"stats": {unix.SYS_IOCTL, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		return func() error { _, err := d.Stats(); return err }, nil
	}},
	"arm": {unix.SYS_IOCTL, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		return func() error { return d.ArmFault(killedFault) }, nil
	}},
	"disarm": {unix.SYS_IOCTL, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		return func() error { return d.ClearFault(killedFault.Fault) }, nil
	}},
	"inject": {unix.SYS_IOCTL, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		return func() error { return d.Inject(killedRule) }, nil
	}},
	"map": {unix.SYS_MMAP, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		return func() error {
			m, err := unix.Mmap(d.FD(), killedPos, 4096, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			return unix.Munmap(m)
		}, nil
	}},
	"register": {unix.SYS_IOCTL, 0, func(d *ioctlapi.Device, _ []byte) (func() error, error) {
		// Pages that aren't there yet, each alone: that takes long.
		mem, err := unix.Mmap(-1, 0, killedPages<<12, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil, err
		}
		_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // EINVAL: there are none
		return func() error {
			id, err := d.RegisterBuffer(mem, true)
			if err != nil {
				return err
			}
			return errors.Join(d.UnregisterBuffer(id), unix.Madvise(mem, unix.MADV_DONTNEED))
		}, nil
	}},
}

// A fault and a rule that nothing comes to.
var (
	killedFault = ioctlapi.Fault{Fault: ioctlapi.FaultOverUnpin, Every: 1 << 31}
	killedRule  = ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1 << 31}
)

func killedRead(d *ioctlapi.Device, mem []byte) (func() error, error) {
	return func() error { _, err := unix.Pread(d.FD(), mem, killedPos); return err }, nil
}

func killedWrite(d *ioctlapi.Device, mem []byte) (func() error, error) {
	return func() error { _, err := unix.Pwrite(d.FD(), mem, killedPos); return err }, nil
}

// helperKilled says which thread it is, and makes a call until it's killed.
func helperKilled(args []string) error {
	runtime.LockOSThread()
	c := killedCalls[args[0]]
	fd, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDWR|c.flags, 0)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	call, err := c.prepare(ioctlapi.FromFD(ioctlapi.Linux{}, fd, ioctlapi.DefaultPath), mem)
	if err != nil {
		return err
	}
	for fmt.Println(unix.Gettid()); ; {
		// Signals of Go's runtime don't wake who can only be killed.
		if err := call(); err != nil {
			return err
		}
	}
}

// Who sleeps in the driver, for the device or for other requests, is told EINTR.
func TestDriverKilledAsleep(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	slow(t, d, time.Minute)
	for _, call := range []string{"direct read", "direct write", "copied read", "copied write", "splice", "transfer", "transfer of a buffer"} {
		killedIn(t, d, call, asleep)
	}
	fd, aio := openRaw(t, unix.O_DIRECT), newAIO(t, 1)
	if err := aio.submit(control(aioWrite, fd, anonymous(t, 1), killedPos)); err != nil {
		t.Fatal(err)
	}
	killedIn(t, d, "fsync", asleep)
	// Behind another one, which waits for the requests.
	first := called(func() error { return unix.Fsync(fd) })
	still(t, "fsync", first)
	killedIn(t, d, "fsync", asleep)
	aio.close() // which cancels the write
	ends(t, "fsync", first)
}

// The gate of the device is closed while memory is given back: who waits there, or to
// change or count what is behind it, is told EINTR.
func TestDriverKilledAtGate(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	stop := make(chan struct{})
	discards := called(func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if _, err := d.Discard(killedPos, 4096); err != nil {
				return err
			}
		}
	})
	for _, call := range []string{"direct read", "copied read", "direct write", "copied write", "transfer", "map", "discard", "set config", "stats"} {
		killedIn(t, d, call, asleep)
	}
	close(stop)
	ends(t, "discarding", discards)
}

// Who is at a long piece of work is told EINTR, too: zeroing in place, and pinning.
func TestDriverKilledAtWork(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, killedPages/8)
	for i := range 8 {
		pwrite(t, fd, mem, killedPos+int64(i*len(mem)))
	}
	// Mapped, so the memory stays and is zeroed, page by page.
	m, err := unix.Mmap(fd, killedPos, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := d.Discard(killedPos, killedPages<<12); err != nil {
			t.Error(err)
		}
	})
	unmap := sync.OnceValue(func() error { return unix.Munmap(m) })
	t.Cleanup(func() { _ = unmap() }) // or no later test has the device unmapped
	killedIn(t, d, "discard", asleep)
	if err := unmap(); err != nil {
		t.Error(err)
	}
	killedIn(t, d, "register", charged)
}

// Arming the first fault or rule, and disarming the last, changes the kernel's code,
// which takes its time: who waits to do so, too, is told EINTR.
func TestDriverKilledArming(t *testing.T) {
	d := openDevice(t)
	t.Cleanup(func() {
		if err := errors.Join(d.ClearFault(ioctlapi.FaultNone), d.ClearInject(ioctlapi.InjectNone)); err != nil {
			t.Error(err)
		}
	})
	// More than there are CPUs: who finds another at it on a CPU waits awake.
	const others = 3
	for _, c := range []struct {
		calls    []string
		on, away func() error
	}{
		{[]string{"arm", "disarm"}, func() error { return d.ArmFault(killedFault) }, func() error { return d.ClearFault(killedFault.Fault) }},
		{[]string{"inject"}, func() error { return d.Inject(killedRule) }, func() error { return d.ClearInject(killedRule.Action) }},
	} {
		stop := make(chan struct{})
		var over []<-chan error
		for range others {
			over = append(over, called(func() error {
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					if err := errors.Join(c.on(), c.away()); err != nil {
						return err
					}
				}
			}))
		}
		for _, call := range c.calls {
			killedIn(t, d, call, asleep)
		}
		close(stop)
		for _, o := range over {
			ends(t, "arming", o)
		}
	}
}
