// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

const (
	uringCommand      = 46 // IORING_OP_URING_CMD
	uringCommandFixed = 1  // IORING_URING_CMD_FIXED
)

// hasCommands tells whether the driver takes io_uring's commands here: from 6.1 on,
// and so the driver has to say. Where it doesn't, io_uring must be the one that
// says so.
func hasCommands(t *testing.T, d *ioctlapi.Device) bool {
	t.Helper()
	info, err := d.Info()
	if err != nil {
		t.Fatal(err)
	}
	has := kernelAtLeast(t, 6, 1)
	if info.Features.Has(ioctlapi.FeatureURingCmd) != has {
		t.Fatalf("the driver says that it takes io_uring's commands: %v, want %v", !has, has)
	}
	return has
}

// command is an io_uring command on a stretch of the device.
func command(op uint32, fd int, buf []byte, offset int64) uringEntry {
	c := ioctlapi.URingCmd{Addr: address(buf), Length: uint32(len(buf)), Block: uint32(offset / ioctlapi.URingBlock)}
	if buf == nil {
		c.Addr = 0
	}
	return uringEntry{opcode: uringCommand, fd: int32(fd), off: uint64(op), command: [2]uint64{c.Addr, uint64(c.Length) | uint64(c.Block)<<32}}
}

// Commands move what reads and writes move, at once, later, or polled for; from
// registered buffers without a pin. The file needn't be opened with O_DIRECT.
func TestDriverCommand(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		ring := newUring(t, 1, 0)
		ring.submit(command(ioctlapi.URingRead, openRaw(t, 0), anonymous(t, 1), scratch))
		want := unix.EINVAL // io_uring knows no such operation
		if kernelAtLeast(t, 5, 19) {
			want = unix.EOPNOTSUPP // it does, and finds that the driver doesn't take it
		}
		if v := ring.wait(10 * time.Second); v.res != -int32(want) {
			t.Errorf("without commands: %d, want %v", v.res, want)
		}
		return
	}
	noPins(t, d)
	page, seed := os.Getpagesize(), byte(3)
	for _, c := range []struct {
		completion ioctlapi.Completion
		latency    time.Duration
	}{
		{ioctlapi.CompletionAuto, 0}, {ioctlapi.CompletionAuto, 2 * time.Millisecond},
		{ioctlapi.CompletionTimer, time.Millisecond}, {ioctlapi.CompletionWorker, 0}, {ioctlapi.CompletionInline, 0},
	} {
		for _, fixed := range []bool{false, true} {
			for _, flags := range []uint32{0, uringIOPoll} {
				t.Run(fmt.Sprintf("%v/%v/fixed=%v/flags=%d", c.completion, c.latency, fixed, flags), func(t *testing.T) {
					setConfig(t, d, func(to *ioctlapi.Config) { to.Completion, to.LatencyNS = c.completion, uint64(c.latency) })
					fd, ring, mem := openRaw(t, 0), newUring(t, 8, flags), anonymous(t, 8)
					var opFlags uint32
					if fixed {
						iov := unix.Iovec{Base: &mem[0]}
						iov.SetLen(len(mem))
						if err := ring.register(uringRegisterBuffers, unsafe.Pointer(&iov), 1); err != nil {
							t.Fatal(err)
						}
						opFlags = uringCommandFixed
					}
					// Within the registered buffer, over page boundaries, at an odd block.
					out, in := mem[512:][:2*page], mem[4*page+1024:][:2*page]
					seed++ // other bytes than the last one left
					fill(out, seed)
					const at = scratch + 5*ioctlapi.URingBlock
					before, err := d.Stats()
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range []uringEntry{command(ioctlapi.URingWrite, fd, out, at), command(ioctlapi.URingRead, fd, in, at)} {
						e.opFlags, e.data = opFlags, 7
						begin := time.Now()
						ring.submit(e)
						if v := ring.wait(10 * time.Second); v.data != 7 || v.res != int32(2*page) || v.flags != 0 {
							t.Fatalf("%+v, want %d bytes", v, 2*page)
						}
						if took := time.Since(begin); took < c.latency {
							t.Errorf("it took %v, less than %v", took, c.latency)
						}
					}
					ring.none()
					if !bytes.Equal(in, out) {
						t.Error("other bytes came back")
					}
					after, err := d.Stats()
					if err != nil {
						t.Fatal(err)
					}
					pinned, dirtied, queued := after.PagesPinned-before.PagesPinned, after.PagesDirtied-before.PagesDirtied, after.Queued-before.Queued
					if want := map[bool][2]uint64{false: {6, 3}, true: {0, 0}}[fixed]; pinned != want[0] || dirtied != want[1] {
						t.Errorf("%d pages pinned, %d dirtied, want %d", pinned, dirtied, want)
					}
					wantQueued := uint64(2)
					if c.completion == ioctlapi.CompletionInline || c.completion == ioctlapi.CompletionAuto && c.latency == 0 && flags == 0 {
						wantQueued = 0
					}
					if queued != wantQueued || after.Submitted-before.Submitted != 2 || after.Completed-before.Completed != 2 {
						t.Errorf("%d queued, want %d; %d submitted, %d completed", queued, wantQueued, after.Submitted-before.Submitted, after.Completed-before.Completed)
					}
				})
			}
		}
	}
}

// Every error of a command, each alone; nothing is moved, nothing left.
func TestDriverCommandErrors(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	noPins(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	fd, ring, mem := openRaw(t, 0), newUring(t, 8, 0), anonymous(t, 4)
	iov := unix.Iovec{Base: &mem[0]}
	iov.SetLen(2 * page)
	if err := ring.register(uringRegisterBuffers, unsafe.Pointer(&iov), 1); err != nil {
		t.Fatal(err)
	}
	readOnly, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(readOnly)
	writeOnly, err := unix.Open(ioctlapi.DefaultPath, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(writeOnly)
	constant, err := unix.Mmap(-1, 0, page, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(constant)
	gone := anonymous(t, 1)
	if err := unix.Mprotect(gone, unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}

	raw := func(op uint32, fd int, addr uint64, n, block uint32) uringEntry {
		return uringEntry{opcode: uringCommand, fd: int32(fd), off: uint64(op), command: [2]uint64{addr, uint64(n) | uint64(block)<<32}}
	}
	fixed := func(e uringEntry) uringEntry { e.opFlags = uringCommandFixed; return e }
	buf := address(mem)
	end := uint32(config.Capacity / ioctlapi.URingBlock)
	for _, c := range []struct {
		name string
		e    uringEntry
		want int32
	}{
		{"no such command", raw(ioctlapi.URingDiscard+1, fd, buf, 512, 0), -int32(unix.ENOTTY)},
		{"an ioctl's number", raw(0xC038D100, fd, buf, 512, 0), -int32(unix.ENOTTY)},
		{"read of what isn't open for it", raw(ioctlapi.URingRead, writeOnly, buf, 512, 0), -int32(unix.EBADF)},
		{"write of what isn't open for it", raw(ioctlapi.URingWrite, readOnly, buf, 512, 0), -int32(unix.EBADF)},
		{"discard of what isn't open for it", raw(ioctlapi.URingDiscard, readOnly, 0, 512, 0), -int32(unix.EBADF)},
		{"odd address", raw(ioctlapi.URingRead, fd, buf+8, 512, 0), -int32(unix.EINVAL)},
		{"odd length", raw(ioctlapi.URingRead, fd, buf, 513, 0), -int32(unix.EINVAL)},
		{"no length", raw(ioctlapi.URingWrite, fd, buf, 0, 0), -int32(unix.EINVAL)},
		{"over max_request", raw(ioctlapi.URingRead, fd, buf, uint32(config.MaxRequest)+512, 0), -int32(unix.EINVAL)},
		{"the largest length", raw(ioctlapi.URingRead, fd, buf, 1<<32-512, 0), -int32(unix.EINVAL)},
		{"unknown flag", func() uringEntry { e := raw(ioctlapi.URingRead, fd, buf, 512, 0); e.opFlags = 1 << 9; return e }(), -int32(unix.EINVAL)},
		{"flush with an address", raw(ioctlapi.URingFlush, fd, buf, 0, 0), -int32(unix.EINVAL)},
		{"flush with a length", raw(ioctlapi.URingFlush, fd, 0, 1, 0), -int32(unix.EINVAL)},
		{"flush with a block", raw(ioctlapi.URingFlush, fd, 0, 0, 1), -int32(unix.EINVAL)},
		{"flush of a buffer", fixed(raw(ioctlapi.URingFlush, fd, 0, 0, 0)), -int32(unix.EINVAL)},
		{"discard with an address", raw(ioctlapi.URingDiscard, fd, buf, 512, 0), -int32(unix.EINVAL)},
		{"discard of a buffer", fixed(raw(ioctlapi.URingDiscard, fd, 0, 512, 0)), -int32(unix.EINVAL)},
		{"discard of nothing", raw(ioctlapi.URingDiscard, fd, 0, 0, 0), -int32(unix.EINVAL)},
		{"discard past the end", raw(ioctlapi.URingDiscard, fd, 0, 512, end), -int32(unix.ENOSPC)},
		{"nothing there", raw(ioctlapi.URingRead, fd, address(gone), 512, 0), -int32(unix.EFAULT)},
		{"no address of a user", raw(ioctlapi.URingRead, fd, 1<<63, 512, 0), -int32(unix.EFAULT)},
		{"target that can't be written", raw(ioctlapi.URingRead, fd, address(constant), 512, 0), -int32(unix.EFAULT)},
		{"outside of the registered buffer", fixed(raw(ioctlapi.URingRead, fd, buf+uint64(2*page), 512, 0)), -int32(unix.EFAULT)},
		{"half outside of it", fixed(raw(ioctlapi.URingRead, fd, buf+uint64(page), uint32(2*page), 0)), -int32(unix.EFAULT)},
		{"read past the end", raw(ioctlapi.URingRead, fd, buf, 512, end), 0},
		{"write past the end", raw(ioctlapi.URingWrite, fd, buf, 512, end), -int32(unix.ENOSPC)},
		{"read across the end", raw(ioctlapi.URingRead, fd, buf, 1024, end-1), 512},
		{"flush", raw(ioctlapi.URingFlush, fd, 0, 0, 0), 0},
		{"discard", raw(ioctlapi.URingDiscard, fd, 0, 1<<32-1, end-3), 3 * ioctlapi.URingBlock},
	} {
		ring.submit(c.e)
		if v := ring.wait(10 * time.Second); v.res != c.want {
			t.Errorf("%s: %d, want %d", c.name, v.res, c.want)
		}
	}

	// Too many: one waits, the next may not.
	setConfig(t, d, func(to *ioctlapi.Config) {
		to.Completion, to.LatencyNS, to.MaxInFlightFile = ioctlapi.CompletionAuto, uint64(300*time.Millisecond), 1
	})
	first, second := command(ioctlapi.URingRead, fd, mem[:page], scratch), command(ioctlapi.URingRead, fd, mem[page:][:page], scratch)
	first.data, second.data = 1, 2
	ring.submit(first, second)
	for range 2 {
		v := ring.wait(10 * time.Second)
		if want := map[uint64]int32{1: int32(page), 2: -int32(unix.EAGAIN)}[v.data]; v.res != want {
			t.Errorf("number %d of two where one is allowed: %d, want %d", v.data, v.res, want)
		}
	}
	ring.none()
}

// A flush is done when what was in flight before it is; a discarded range is
// zero, and its memory given back.
func TestDriverCommandFlush(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	noPins(t, d)
	fd, ring, mem := openRaw(t, 0), newUring(t, 8, 0), anonymous(t, 1)
	fill(mem, 9)
	const latency = 400 * time.Millisecond
	slow(t, d, latency)
	write, flush := command(ioctlapi.URingWrite, fd, mem, scratch), command(ioctlapi.URingFlush, fd, nil, 0)
	write.data, flush.data = 1, 2
	begin := time.Now()
	ring.submit(write)
	ring.submit(flush)
	// Either may be told first; neither before the write is done.
	want := map[uint64]int32{1: int32(len(mem)), 2: 0}
	for range 2 {
		v := ring.wait(10 * time.Second)
		if res, ok := want[v.data]; !ok || v.res != res {
			t.Errorf("%+v, want one of %v", v, want)
		}
		delete(want, v.data)
		if took := time.Since(begin); took < latency {
			t.Errorf("%+v came after %v, before the write was done", v, took)
		}
	}
	discard := command(ioctlapi.URingDiscard, fd, nil, scratch)
	discard.command[1] |= uint64(len(mem))
	ring.submit(discard)
	if v := ring.wait(10 * time.Second); v.res != int32(len(mem)) {
		t.Errorf("discard: %d, want %d", v.res, len(mem))
	}
	if n, err := unix.Pread(fd, mem, scratch); n != len(mem) || err != nil || !bytes.Equal(mem, make([]byte, len(mem))) {
		t.Errorf("the discarded range: %d, %v, or it isn't zero", n, err)
	}
}

// On a ring that is polled, commands that are done at once, with nothing to poll
// for, are told as others are, by whomever they are done.
func TestDriverCommandPolledAtOnce(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	noPins(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	fd, ring, mem := openRaw(t, 0), newUring(t, 8, uringIOPoll), anonymous(t, 1)
	discard := command(ioctlapi.URingDiscard, fd, nil, scratch)
	discard.command[1] |= 4096
	entries := []uringEntry{command(ioctlapi.URingFlush, fd, nil, 0), command(ioctlapi.URingRead, fd, mem, int64(config.Capacity)), discard}
	want := []int32{0, 0, 4096}
	for round := range 60 {
		for i := range entries {
			entries[i].data = uint64(i)
			if entries[i].flags = 0; round%2 == 1 {
				entries[i].flags = uringAsync
			}
		}
		ring.submit(entries...)
		seen := map[uint64]bool{}
		for range entries {
			v, ok := ring.next(10 * time.Second)
			if !ok {
				t.Fatalf("round %d: no completion within 10 s after those of %v; %s", round, seen, missed(ring, fd))
			}
			if seen[v.data] || v.res != want[v.data] {
				t.Fatalf("round %d: %+v, told before: %v; want one each of %v", round, v, seen[v.data], want)
			}
			seen[v.data] = true
		}
	}
	ring.none()
}

// missed tells what it comes of that a command wasn't told: does it come by itself,
// and only the guest stood still; is some thread in the driver; or does it come with
// the next that is given to io_uring's threads, and lay in their queue until then?
func missed(ring *uring, fd int) string {
	late, ok := ring.next(2 * time.Second)
	threads := whereabouts(os.Getpid())
	if ok {
		return fmt.Sprintf("%+v came later by itself%s", late, threads)
	}
	next := command(ioctlapi.URingFlush, fd, nil, 0)
	next.flags, next.data = uringAsync, 99
	ring.submit(next)
	var told []uringResult
	for v, ok := ring.next(2 * time.Second); ok; v, ok = ring.next(2 * time.Second) {
		told = append(told, v)
	}
	return fmt.Sprintf("it didn't come later; with another flush came %+v%s", told, threads)
}

// The ring goes while a command waits: from 6.7 on it is cancelled at once,
// before that it has its time. Either way nothing of it is left.
func TestDriverCommandRingGoes(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	noPins(t, d)
	var major, minor int
	if _, err := fmt.Sscanf(release(t), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	cancels := major > 6 || major == 6 && minor >= 7
	latency := 2 * time.Second
	if cancels {
		latency = 50 * time.Second
	}
	slow(t, d, latency)
	before, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	fd, ring, mem := openRaw(t, 0), newUring(t, 8, 0), anonymous(t, 4)
	for i := range 4 {
		ring.submit(command(ioctlapi.URingRead, fd, mem[i*os.Getpagesize():][:os.Getpagesize()], scratch))
	}
	waitInFlight(t, d, before.InFlight+4)
	begin := time.Now()
	ring.close()
	waitInFlight(t, d, before.InFlight)
	t.Logf("all were gone %v after the ring", time.Since(begin))
	after, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if want := map[bool]uint64{true: 4}[cancels]; after.Cancelled-before.Cancelled != want {
		t.Errorf("%d were cancelled, want %d", after.Cancelled-before.Cancelled, want)
	}
}

// release is the kernel's.
func release(t *testing.T) string {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(uts.Release[:])
}
