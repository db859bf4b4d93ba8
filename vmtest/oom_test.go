// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// oomCall is a way into the driver that is to survive a lack of memory.
type oomCall struct {
	name string
	path string // of the device; the first one by default
	// How many of the driver's allocations, and of its copies from and to user
	// space, must be seen to fail, or the test tests nothing.
	memory, copies int
	errnos         []unix.Errno // that it may end with, beside ENOMEM and, for a copy, EFAULT
	begin          func(k *oomKit) oomSteps
}

// oomKit is what such a call is made with.
type oomKit struct {
	t     *testing.T
	d     *ioctlapi.Device
	pages uint64 // of the store, that aren't these tests'
	shortage
}

// shortage makes a call want for memory.
type shortage interface {
	// run makes the call, of which the nth allocation fails, and tells whether it
	// came to that. The errno is 0 for a success.
	run(nth int, c rawCall) (result int, e unix.Errno, fired bool)
}

// oomSteps make the call, again and again.
type oomSteps struct {
	want   int            // what it gives when nothing fails
	short  bool           // it may give less when something does
	before func()         // if need be
	call   func() rawCall // what is to be made
	// after takes what the call gave, waits for what is still to come of it, and
	// gives back what it brought; looks whether all is as it should be.
	after func(result int, e unix.Errno) (int, unix.Errno)
}

// oomLimit bounds the search for a call's last allocation.
const oomLimit = 100

// Whatever allocation of a call fails, and whatever copy from or to user space: the
// errno is one that is documented, nothing is kept, and the device goes on.
func TestOutOfMemory(t *testing.T) {
	if _, err := os.Stat(failNth); err != nil {
		t.Skipf("this kernel can't have an allocation fail on demand (the debug kernel can): %v", err)
	}
	driver := driverCode(t)
	for _, pass := range []struct {
		name           string
		memory, copies callers
	}{
		{"memory", driver, nobody},
		{"copies", nobody, driver},
		{"anything", anybody, anybody},
	} {
		t.Run(pass.name, func(t *testing.T) {
			failWithin(t, pass.memory, pass.copies)
			for _, c := range slices.Concat(oomReadsAndWrites(), oomIoctls(), oomOthers()) {
				errnos, least, whole := []unix.Errno{unix.ENOMEM}, c.memory, true
				switch {
				case pass.memory == nobody:
					errnos, least = []unix.Errno{unix.EFAULT}, c.copies
				case pass.memory == anybody && c.path != "":
					continue // its hardware takes too long for so many
				case pass.memory == anybody:
					// The kernel's own: io_submit and io_uring without room for a
					// request, or a thread.
					errnos = append(errnos, unix.EFAULT, unix.EAGAIN, unix.ECANCELED)
					least, whole = max(c.memory, c.copies), false
				}
				if pass.memory != nobody {
					errnos = append(errnos, c.errnos...)
				}
				t.Run(c.name, func(t *testing.T) {
					fired, _, ended := c.sweep(t, newFailing(t), errnos)
					t.Logf("%d failures", fired)
					if fired < least {
						t.Errorf("%d failures were met, want %d or more", fired, least)
					}
					if whole && !ended {
						t.Errorf("no end of them after %d", oomLimit)
					}
				})
			}
		})
	}
}

// sweep makes the call with its first allocation failing, its second, and so on until
// it has no more, and tells how many failed, how many calls did not give all that they
// should for that, and whether that was all.
func (c *oomCall) sweep(t *testing.T, by shortage, errnos []unix.Errno) (fired, failed int, ended bool) {
	if c.path == "" {
		c.path = ioctlapi.DefaultPath
	}
	k := &oomKit{t: t, shortage: by}
	k.d = edu(t, c.path)
	noBuffers(t, k.d)
	if c.path == ioctlapi.DefaultPath {
		k.settle()
		t.Cleanup(k.empty)
	}
	begin := k.stats()
	steps := c.begin(k)
	for nth := 1; nth <= oomLimit && !ended && !t.Failed(); nth++ {
		if steps.before != nil {
			steps.before()
		}
		result, e, hit := k.run(nth, steps.call())
		n, e := steps.after(result, e)
		switch {
		case e == 0 && n == steps.want:
		case e == 0 && n > 0 && n < steps.want && steps.short && hit:
		case e != 0 && hit && slices.Contains(errnos, e):
		default:
			t.Errorf("allocation %d, failed: %v: result %d of %d, %v", nth, hit, n, steps.want, e)
		}
		if e != 0 || n != steps.want {
			failed++
			t.Logf("allocation %d, failed: %v: result %d of %d, %v", nth, hit, n, steps.want, e)
		}
		if hit {
			fired++
		} else {
			ended = true
		}
		s := k.stats()
		if s.InFlight != 0 || s.PagesPinned-s.PagesReleased != begin.PagesPinned-begin.PagesReleased ||
			s.Submitted-s.Completed != begin.Submitted-begin.Completed || s.QuarantinedPages+s.QuarantinedRequests != 0 {
			t.Errorf("allocation %d, failed: %v: this is left: %+v", nth, hit, s)
		}
	}
	k.roundTrip(c.path)
	return fired, failed, ended
}

func (k *oomKit) stats() ioctlapi.Stats {
	k.t.Helper()
	s, err := k.d.Stats()
	if err != nil {
		k.t.Fatal(err)
	}
	return s
}

// must fails the test for what isn't tried to fail.
func (k *oomKit) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// oomStretch is the part of the store, from scratch on, that these tests use.
const oomStretch = 1 << 20

// settle empties the stretch and notes what others have in the store. A page stays
// while anything is in flight or mapped, which an earlier test's end may leave behind
// for a moment.
func (k *oomKit) settle() {
	k.t.Helper()
	config, err := k.d.Config()
	k.must(err)
	// roundTrip takes the last page away.
	_, err = k.d.Discard(config.Capacity-uint64(os.Getpagesize()), uint64(os.Getpagesize()))
	k.must(err)
	for same, tries := 0, 0; same < 3; tries++ {
		if tries == 1000 {
			k.t.Fatalf("the device doesn't come to rest: %+v", k.stats())
		}
		_, err := k.d.Discard(scratch, oomStretch)
		k.must(err)
		if s := k.stats(); s.StorePages != k.pages || s.InFlight != 0 {
			k.pages, same = s.StorePages, 0
		} else {
			same++
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// empty gives the store's memory there back, and sees to it that it's gone. What
// others left is behind, in memory of its own.
func (k *oomKit) empty() {
	k.t.Helper()
	_, err := k.d.Discard(scratch, oomStretch)
	k.must(err)
	if s := k.stats(); s.StorePages != k.pages {
		k.t.Errorf("the store has %d pages, want %d", s.StorePages, k.pages)
	}
}

// oomRing hands an entry over and waits for what comes of it.
func oomRing(k *oomKit, ring *uring, e uringEntry) (call func() rawCall, after func(int, unix.Errno) (int, unix.Errno)) {
	call = func() rawCall {
		ring.put(ring.slot(0), e)
		return syscallOf(unix.SYS_IO_URING_ENTER, uintptr(ring.fd), 1)
	}
	after = func(int, unix.Errno) (int, unix.Errno) {
		k.t.Helper()
		// What the kernel refused to take is still there for it.
		for tries := 0; ring.waiting(); tries++ {
			_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(ring.fd), 1, 0, 0, 0, 0)
			if e != 0 && (e != unix.EINTR && e != unix.EAGAIN || tries > 100) {
				k.t.Fatal("io_uring_enter:", e)
			}
		}
		v := ring.wait(time.Minute)
		if v.res < 0 {
			return 0, unix.Errno(-v.res)
		}
		return int(v.res), 0
	}
	return call, after
}

// oomAIO is the same for native AIO.
func oomAIO(k *oomKit, aio *aioContext, c *aioControl, arena []byte) (call func() rawCall, after func(int, unix.Errno) (int, unix.Errno)) {
	control := placed(arena, *c)
	list := placed(arena[128:], addr(control))
	call = func() rawCall { return syscallOf(unix.SYS_IO_SUBMIT, aio.id, 1, addr(list)) }
	after = func(n int, e unix.Errno) (int, unix.Errno) {
		k.t.Helper()
		if e != 0 || n != 1 {
			return 0, e
		}
		v := aio.wait(time.Minute)
		if v.res < 0 {
			return 0, unix.Errno(-v.res)
		}
		return int(v.res), 0
	}
	return call, after
}

// roundTrip sees to it that the device still works, and isn't mapped.
func (k *oomKit) roundTrip(path string) {
	k.t.Helper()
	at := int64(scratch)
	if path != ioctlapi.DefaultPath {
		at = 0
	}
	fd := eduRaw(k.t, path, unix.O_DIRECT)
	out, in := fill(anonymous(k.t, 1), 77), anonymous(k.t, 1)
	pwrite(k.t, fd, out, at)
	pread(k.t, fd, in, at)
	if !bytes.Equal(in, out) {
		k.t.Error("what is read isn't what was written")
	}
	if path != ioctlapi.DefaultPath {
		return
	}
	config, err := k.d.Config()
	k.must(err)
	smaller := config
	smaller.Capacity -= uint64(os.Getpagesize())
	if err := errors.Join(k.d.SetConfig(smaller), k.d.SetConfig(config)); err != nil {
		k.t.Error(err)
	}
}
