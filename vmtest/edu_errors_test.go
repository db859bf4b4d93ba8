// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// eduWays are the ways to have the hardware read or write, each with what came of it.
func eduWays(t *testing.T, d *ioctlapi.Device, mem []byte) map[string]func(write bool) (int, error) {
	direct, copied := eduRaw(t, d.Path(), unix.O_DIRECT), eduRaw(t, d.Path(), 0)
	aio, ring, polled := newAIO(t, 1), newUring(t, 4, 0), newUring(t, 4, uringIOPoll)
	buffer := register(t, d, mem, true)
	t.Cleanup(func() {
		if err := d.UnregisterBuffer(buffer); err != nil {
			t.Error(err)
		}
	})
	call := func(fd int) func(bool) (int, error) {
		return func(write bool) (int, error) {
			if write {
				return unix.Pwrite(fd, mem, 0)
			}
			return unix.Pread(fd, mem, 0)
		}
	}
	onRing := func(r *uring, read, write uringEntry) func(bool) (int, error) {
		return func(w bool) (int, error) {
			e := read
			if w {
				e = write
			}
			r.submit(e)
			return result(int64(r.wait(20 * time.Second).res))
		}
	}
	rw := func(r *uring, fd int) func(bool) (int, error) {
		return onRing(r, entry(uringRead, fd, mem, 0), entry(uringWrite, fd, mem, 0))
	}
	ways := map[string]func(bool) (int, error){
		"direct": call(direct),
		"copied": call(copied),
		"transfer": func(write bool) (int, error) {
			if write {
				return d.WriteAt(mem, 0)
			}
			return d.ReadAt(mem, 0)
		},
		"transfer of a buffer": func(write bool) (int, error) {
			var flags uint32
			if write {
				flags = ioctlapi.TransferWrite
			}
			return move(d, buffer, 0, len(mem), 0, flags)
		},
		"aio": func(write bool) (int, error) {
			op := uint16(aioRead)
			if write {
				op = aioWrite
			}
			if err := aio.submit(control(op, direct, mem, 0)); err != nil {
				return 0, err
			}
			return result(aio.wait(20 * time.Second).res)
		},
		"io_uring":           rw(ring, direct),
		"io_uring, copied":   rw(ring, copied),
		"io_uring with POLL": rw(polled, direct),
	}
	if hasCommands(t, d) {
		ways["command"] = onRing(ring, command(ioctlapi.URingRead, copied, mem, 0), command(ioctlapi.URingWrite, copied, mem, 0))
		ways["command with POLL"] = onRing(polled, command(ioctlapi.URingRead, copied, mem, 0), command(ioctlapi.URingWrite, copied, mem, 0))
	}
	return ways
}

// Whatever way a request came, hardware that doesn't answer in time is EIO, and so is
// one that is still busy with what was given up. A read leaves the buffer as it was.
func TestEduEIOEveryWay(t *testing.T) {
	d := edu(t, eduOpenPath)
	noPins(t, d)
	settled, mem := eduRaw(t, eduOpenPath, unix.O_DIRECT), anonymous(t, 1)
	ways := eduWays(t, d, mem)
	eduParameter(t, "edu_timeout_ms", "20000")
	const timeout = "/sys/module/dio/parameters/edu_timeout_ms"
	if n, err := unix.Pwrite(settled, mem, 0); n != eduSize || err != nil {
		t.Fatal(n, err)
	}
	want := fill(make([]byte, eduSize), 5)
	for way, do := range ways {
		for _, write := range []bool{false, true} {
			for attempt := 1; ; attempt++ {
				copy(mem, want)
				before, err := d.Stats()
				if err != nil {
					t.Fatal(err)
				}
				eduWrite(t, timeout, "20")
				n, failed := do(write)
				m, busy := do(write)
				eduWrite(t, timeout, "20000")
				after, err := d.Stats()
				if err != nil {
					t.Fatal(err)
				}
				same := bytes.Equal(mem, want)
				eduSettle(t, settled)
				if (failed == nil || busy == nil) && attempt < 5 {
					continue // the machine slept through the timeout
				}
				if !errors.Is(failed, unix.EIO) || !errors.Is(busy, unix.EIO) {
					t.Errorf("%s, write %v: %d, %v; of a device that is busy: %d, %v; want EIO", way, write, n, failed, m, busy)
				}
				// The second one is given up by itself when the first one was over by then.
				if n := after.DMATimeouts - before.DMATimeouts; n < 1 || n > 2 || after.Failed-before.Failed != 2 {
					t.Errorf("%s, write %v: %d timeouts, %d failed; want one or two, and 2", way, write, n, after.Failed-before.Failed)
				}
				if !same {
					t.Errorf("%s, write %v: the buffer was changed", way, write)
				}
				break
			}
		}
	}
	waitInFlight(t, d, 0)
}

// RWF_NOWAIT of hardware, which always takes time: who can be told later is queued,
// who would have to wait gets EAGAIN.
func TestEduNowait(t *testing.T) {
	d := edu(t, eduPath)
	noPins(t, d)
	mem, ways := anonymous(t, 1), rwWays(t)
	for _, access := range []int{0, unix.O_DIRECT} {
		fd := eduRaw(t, eduPath, access)
		for way, do := range ways {
			for _, write := range []bool{false, true} {
				before, err := d.Stats()
				if err != nil {
					t.Fatal(err)
				}
				var want error
				moved := uint64(1)
				if way == "preadv2" || access == 0 {
					want, moved = unix.EAGAIN, 0
				}
				n, err := do(fd, write, mem, 0, unix.RWF_NOWAIT)
				if !errors.Is(err, want) || err == nil && n != eduSize {
					t.Errorf("%s, access %#x, write %v: %d, %v, want %v", way, access, write, n, err, want)
				}
				after, err := d.Stats()
				if err != nil {
					t.Fatal(err)
				}
				if n := after.DMASegments - before.DMASegments; n != moved || after.Queued-before.Queued != moved {
					t.Errorf("%s, access %#x, write %v: %d segments moved, %d queued, want %d", way, access, write, n, after.Queued-before.Queued, moved)
				}
			}
		}
	}
}
