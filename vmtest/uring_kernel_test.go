// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// readsRingLate tells whether this kernel reads a command's bytes out of the ring
// after io_uring_enter(2) has returned: 6.10 put off copying them, 6.14 went back
// to doing so at once.
func readsRingLate(t *testing.T) bool {
	t.Helper()
	return kernelAtLeast(t, 6, 10) && !kernelAtLeast(t, 6, 14)
}

// drainsWell tells whether this kernel knows when a drained entry's turn has come.
// Before 6.16 it waits until as many were told as entries came before the drained
// one; one behind it that is refused at once is counted, too. So it begins early, or
// never when the count has passed by.
func drainsWell(t *testing.T) bool {
	t.Helper()
	return kernelAtLeast(t, 6, 16)
}

// A drained entry is begun when all before it were told, and not before: also
// when one behind it is refused at once. Kernels that get this wrong are known.
func TestDriverUringDrain(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency = 300 * time.Millisecond
	slow(t, d, latency)
	ring, fd, mem := newUring(t, 8, 0), openRaw(t, unix.O_DIRECT), anonymous(t, 2)
	before, drained, refused := entry(uringRead, fd, mem[:4096], scratch), entry(uringRead, fd, mem[4096:], scratch), entry(uringRead, fd, mem, scratch)
	before.data, drained.data, refused.data = 1, 2, 3
	drained.flags, refused.flags = uringDrain, 1<<7
	begin := time.Now()
	ring.submit(before, drained, refused)
	told := map[uint64]time.Duration{}
	for range 3 {
		v := ring.wait(10 * time.Second)
		if told[v.data] = time.Since(begin); v.data == 3 && v.res != -int32(unix.EINVAL) || v.data != 3 && v.res != 4096 {
			t.Errorf("%+v", v)
		}
	}
	t.Logf("told: %v", told)
	if waited := told[2] >= 2*latency; waited != drainsWell(t) {
		t.Errorf("the drained one ended after %v, with one before it that took %v", told[2], latency)
	}
	ring.none()
}

// A program may use an entry's place in the ring again once io_uring_enter(2) has
// returned. Commands that begin, or begin again, only then must be done as they
// were handed over; kernels that don't are known, and do what stands there by then.
func TestDriverCommandReuse(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	noPins(t, d)
	const latency, first, then = 400 * time.Millisecond, 1024, 512
	slow(t, d, latency)
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 2)
	slowRead := func(flags uint8) uringEntry {
		e := entry(uringRead, fd, mem[4096:], scratch+1<<20)
		e.flags, e.data = flags, 1
		return e
	}
	write, discard := command(ioctlapi.URingWrite, fd, mem[:first], scratch), command(ioctlapi.URingDiscard, fd, nil, scratch)
	discard.command[1] |= first
	with := func(e uringEntry, flags uint8) uringEntry { e.flags |= flags; return e }
	for _, c := range []struct {
		name   string
		before []uringEntry
		e      uringEntry
		late   bool // such a kernel reads it late
	}{
		{"linked", []uringEntry{slowRead(uringLink)}, write, true},
		{"drained", []uringEntry{slowRead(0)}, with(write, uringDrain), false},
		// A thread, the only one, waits in a flush for the read; the command, of
		// which the kernel learns that it can't be done at once, is next in its queue.
		{"begun again", []uringEntry{slowRead(0), command(ioctlapi.URingFlush, fd, nil, 0)}, discard, true},
		{"forced", []uringEntry{slowRead(0), command(ioctlapi.URingFlush, fd, nil, 0)}, with(discard, uringAsync), false},
		{"linked and forced", []uringEntry{slowRead(uringLink)}, with(write, uringAsync), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ring := newUring(t, 8, 0)
			defer ring.limitWorkers(1)()
			c.e.data = 2
			slot := ring.slot(len(c.before))
			ring.submit(append(c.before[:len(c.before):len(c.before)], c.e)...)
			again := ring.at(slot)
			again.command[1] = again.command[1]&^0xffff_ffff | then
			want := int32(first)
			if c.late && readsRingLate(t) {
				want = then
			}
			for range len(c.before) + 1 {
				v := ring.wait(10 * time.Second)
				if v.data == 2 && v.res != want {
					t.Errorf("told %d bytes, want %d; %d were handed over, %d stood in the ring later", v.res, want, first, then)
				}
				if v.res < 0 {
					t.Errorf("%+v", v)
				}
			}
			ring.none()
		})
	}
}
