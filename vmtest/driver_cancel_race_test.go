// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// io_cancel(2) at any instant, before, amid and after a request's end: what it says is
// what becomes of the request, which is told once, and moved whole or not at all.
func TestDriverCancelRace(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	fd, random := openRaw(t, unix.O_DIRECT), rand.New(rand.NewPCG(15, 3))
	stored, mem := fill(anonymous(t, 3), 201), anonymous(t, 3)
	const latency = time.Millisecond
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionTimer} {
		for _, op := range []uint16{aioRead, aioWrite} {
			setConfig(t, d, func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = 0, ioctlapi.CompletionAuto })
			pwrite(t, fd, stored, scratch)
			setConfig(t, d, func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = uint64(latency), completion })
			aio := newAIO(t, 1)
			var cancelled, ended int
			// The wait before the cancel grows while cancels win, and shrinks while they
			// lose: so it stays about the end, however slow this machine is.
			wait := latency / 2
			for range 400 {
				clear(mem)
				one := control(op, fd, mem, scratch+30<<20)
				if op == aioRead {
					one.offset = scratch
				}
				if err := aio.submit(one); err != nil {
					t.Fatal(err)
				}
				pause := time.Duration(random.Int64N(int64(2*wait + 1)))
				for begin := time.Now(); time.Since(begin) < pause; {
				}
				var e aioEvent
				_, _, errno := unix.Syscall(unix.SYS_IO_CANCEL, aio.id, uintptr(unsafe.Pointer(one)), uintptr(unsafe.Pointer(&e)))
				e = aio.wait(10 * time.Second)
				switch {
				case errno == unix.EINPROGRESS && e.res == -int64(unix.ECANCELED):
					cancelled++
					wait += wait/16 + time.Microsecond
					if op == aioRead && bytes.Count(mem, []byte{0}) != len(mem) {
						t.Fatalf("%v: a cancelled read changed its buffer", completion)
					}
				case (errno == unix.EAGAIN || errno == unix.EINVAL) && e.res == int64(len(mem)):
					ended++
					wait -= wait / 16
					if op == aioRead && !bytes.Equal(mem, stored) {
						t.Fatalf("%v: a read that was too late to be cancelled isn't whole", completion)
					}
				default:
					t.Fatalf("%v: io_cancel says %v, and the request ended with %d", completion, errno, e.res)
				}
			}
			aio.none()
			t.Logf("%v, operation %d: %d cancelled, %d ended first", completion, op, cancelled, ended)
			if cancelled < 20 || ended < 20 {
				t.Errorf("%v: %d cancelled, %d ended first: no race", completion, cancelled, ended)
			}
			if s, err := d.Stats(); err != nil || s.InFlight != 0 || s.PagesPinned != s.PagesReleased {
				t.Errorf("%v: left over: %+v, %v", completion, s, err)
			}
		}
	}
}
