// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// A rule that can't delay a call is no reason to turn it away for: it's for the other
// direction, for other bytes, or used up.
func TestDriverNowaitBesideADelay(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	mem := anonymous(t, 1)
	for _, access := range []int{0, unix.O_DIRECT} {
		fd := openRaw(t, access)
		nowait := func(want error) {
			t.Helper()
			if n, err := vectored(unix.SYS_PREADV2, fd, iovecs(mem), scratch, unix.RWF_NOWAIT); !errors.Is(err, want) {
				t.Errorf("access %#x: %d, %v, want %v", access, n, err, want)
			}
		}
		delay := ioctlapi.Inject{Action: ioctlapi.InjectDelay, Every: 1, DelayNS: uint64(time.Millisecond)}
		rule := delay
		rule.Flags = ioctlapi.InjectWrites
		inject(t, d, rule)
		nowait(nil)
		rule = delay
		rule.Offset, rule.Length = scratch+4096, 4096
		inject(t, d, rule)
		nowait(nil)
		rule = delay
		rule.Count = 1
		inject(t, d, rule)
		nowait(unix.EAGAIN)
		pread(t, fd, mem, scratch)
		nowait(nil)
		if err := d.ClearInject(ioctlapi.InjectNone); err != nil {
			t.Fatal(err)
		}
	}
}

// A ring that polls isn't told of a limit: a thread of io_uring's tries until there is
// room. What it tries in vain is no request.
func TestDriverPolledLimit(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	slow(t, d, 200*time.Millisecond)
	setConfig(t, d, func(c *ioctlapi.Config) { c.MaxInFlightFile = 1 })
	fd, ring, mem := openRaw(t, unix.O_DIRECT), newUring(t, 4, uringIOPoll), anonymous(t, 2)
	entries := map[string]func(buf []byte) uringEntry{
		"read": func(buf []byte) uringEntry { return entry(uringRead, fd, buf, scratch) },
	}
	if hasCommands(t, d) {
		entries["command"] = func(buf []byte) uringEntry { return command(ioctlapi.URingRead, fd, buf, scratch) }
	}
	for name, make := range entries {
		before, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		ring.submit(make(mem[:4096]), make(mem[4096:]))
		for range 2 {
			if v := ring.wait(10 * time.Second); v.res != 4096 {
				t.Errorf("%s: %d", name, v.res)
			}
		}
		ring.none()
		after, err := d.Stats()
		if err != nil || after.Reads-before.Reads != 2 || after.Submitted-before.Submitted != 2 ||
			after.Completed-before.Completed != 2 || after.Failed != before.Failed {
			t.Errorf("%s: %d reads, %d submitted, %d completed, %d failed, %v", name, after.Reads-before.Reads,
				after.Submitted-before.Submitted, after.Completed-before.Completed, after.Failed-before.Failed, err)
		}
	}
}

// A command has one result. Where io_uring knows of several the driver refuses, elsewhere
// io_uring does.
func TestDriverCommandMultishot(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		return
	}
	const bufferSelect, multishot = 1 << 5, 1 << 1 // IOSQE_BUFFER_SELECT, IORING_URING_CMD_MULTISHOT
	want := unix.EOPNOTSUPP
	if kernelAtLeast(t, 6, 18) {
		want = unix.EINVAL
	}
	fd, mem := openRaw(t, 0), anonymous(t, 1)
	for _, setup := range []uint32{0, uringIOPoll} {
		ring := newUring(t, 4, setup)
		for _, op := range []uint32{ioctlapi.URingRead, ioctlapi.URingWrite, ioctlapi.URingFlush, ioctlapi.URingDiscard} {
			e := command(op, fd, mem, scratch)
			if op == ioctlapi.URingFlush {
				e = command(op, fd, nil, 0)
			}
			e.flags, e.opFlags = bufferSelect, multishot
			ring.submit(e)
			if v := ring.wait(10 * time.Second); v.res != -int32(want) {
				t.Errorf("setup %#x, command %#x: %d, want %v", setup, op, v.res, want)
			}
		}
		ring.none()
	}
}
