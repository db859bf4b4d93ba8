// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// More than the limits allow is EAGAIN at submission; what ends makes room.
func TestDriverInFlightLimits(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	setConfig(t, d, func(c *ioctlapi.Config) {
		c.LatencyNS, c.Completion = uint64(700*time.Millisecond), ioctlapi.CompletionAuto
		c.MaxInFlightFile, c.MaxInFlight = 2, 3
	})
	a, b, aio, mem := openRaw(t, unix.O_DIRECT), openRaw(t, unix.O_DIRECT), newAIO(t, 8), anonymous(t, 1)
	for i, c := range []struct {
		fd   int
		want error
	}{{a, nil}, {a, nil}, {a, unix.EAGAIN}, {b, nil}, {b, unix.EAGAIN}} {
		err := aio.submit(control(aioRead, c.fd, mem, 0))
		if c.want == nil && err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		// aio tells a request's error by its event, unless it never began.
		if c.want != nil && err == nil {
			if e := aio.wait(500 * time.Millisecond); e.res != -int64(unix.EAGAIN) {
				t.Errorf("request %d ended with %d, want EAGAIN", i, e.res)
			}
		} else if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("request %d: %v, want %v", i, err, c.want)
		}
	}
	for range 3 {
		if e := aio.wait(10 * time.Second); e.res != int64(len(mem)) {
			t.Errorf("result %d", e.res)
		}
	}
	if err := aio.submit(control(aioRead, a, mem, 0)); err != nil {
		t.Error("with room again:", err)
	}
	aio.wait(10 * time.Second)
	aio.none()
}

// Only what really waits counts as queued: not what fails before, nor a try that
// isn't to wait.
func TestDriverQueuedCount(t *testing.T) {
	d := openDevice(t)
	slow(t, d, 10*time.Millisecond)
	mem := anonymous(t, 1)
	queued := func() uint64 {
		s, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s.Queued
	}
	nowhere, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(nowhere)
	fd, before := openRaw(t, unix.O_DIRECT), queued()
	if n, err := unix.Pread(fd, nowhere, scratch); !errors.Is(err, unix.EFAULT) {
		t.Errorf("to nowhere: %d, %v, want EFAULT", n, err)
	}
	for _, access := range []int{unix.O_DIRECT, 0} {
		if n, err := vectored(unix.SYS_PREADV2, openRaw(t, access), iovecs(mem), scratch, unix.RWF_NOWAIT); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("access %#x, RWF_NOWAIT: %d, %v, want EAGAIN", access, n, err)
		}
	}
	if n := queued() - before; n != 0 {
		t.Errorf("%d requests that never waited count as queued", n)
	}
	for i, access := range []int{unix.O_DIRECT, 0} {
		if n, err := unix.Pread(openRaw(t, access), mem, scratch); n != len(mem) || err != nil {
			t.Errorf("access %#x: %d, %v", access, n, err)
		}
		if n := queued() - before; n != uint64(i+1) {
			t.Errorf("access %#x: %d requests count as queued, want %d", access, n, i+1)
		}
	}
}

// Counters are never below zero, also when they're reset while a call is counted
// that turns out not to have begun.
func TestDriverResetUnderRetries(t *testing.T) {
	d := openDevice(t)
	slow(t, d, time.Second)
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 1)
	stop, done, tries := make(chan struct{}), make(chan error, 1), 0
	go func() {
		for ; ; tries++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if n, err := vectored(unix.SYS_PREADV2, fd, iovecs(mem), 0, unix.RWF_NOWAIT); !errors.Is(err, unix.EAGAIN) {
				done <- fmt.Errorf("%d, %w, want EAGAIN", n, err)
				return
			}
		}
	}()
	readings := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); readings++ {
		s, err := d.ResetStats()
		if err != nil {
			t.Fatal(err)
		}
		if s.Reads > 1<<32 {
			t.Errorf("reading %d: %d reads", readings, s.Reads)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%d tries, %d readings", tries, readings)
}

// Over the limits every path is told EAGAIN, also one that would sleep in the
// call; io_uring may try again by itself. What waits for nothing isn't limited.
func TestDriverLimitsEveryPath(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency = 400 * time.Millisecond
	for name, limit := range map[string]func(*ioctlapi.Config){
		"of the file":   func(c *ioctlapi.Config) { c.MaxInFlightFile = 1 },
		"of the device": func(c *ioctlapi.Config) { c.MaxInFlight = 1 },
	} {
		setConfig(t, d, func(c *ioctlapi.Config) {
			c.LatencyNS, c.Completion = uint64(latency), ioctlapi.CompletionAuto
			c.MaxInFlightFile, c.MaxInFlight = 64, 64
			limit(c)
		})
		aio, ring, mem := newAIO(t, 1), newUring(t, 2, 0), anonymous(t, 2)
		r, w := pipe(t, 4096)
		for way, try := range map[string]func(fd int) (int, error){
			"pread":  func(fd int) (int, error) { return unix.Pread(fd, mem[4096:], scratch) },
			"pwrite": func(fd int) (int, error) { return unix.Pwrite(fd, mem[4096:], scratch) },
			"ioctl": func(fd int) (int, error) {
				return ioctlapi.FromFD(ioctlapi.Linux{}, fd, "").ReadAt(mem[4096:], scratch)
			},
			"splice": func(fd int) (int, error) {
				pos := int64(scratch)
				n, err := unix.Splice(fd, &pos, w, nil, 4096, 0)
				return int(n), err
			},
			"io_uring": func(fd int) (int, error) {
				ring.submit(entry(uringRead, fd, mem[4096:], scratch))
				v := ring.wait(20 * time.Second)
				if v.res < 0 {
					return 0, unix.Errno(-v.res)
				}
				return int(v.res), nil
			},
		} {
			for _, access := range []int{unix.O_DIRECT, 0} {
				fd := openRaw(t, unix.O_DIRECT)
				if err := aio.submit(control(aioRead, fd, mem[:4096], scratch)); err != nil {
					t.Fatal(err)
				}
				// Of the same open file, whose flag changes and whose count stays.
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, access); err != nil {
					t.Fatal(err)
				}
				n, err := try(fd)
				if again := way == "io_uring" && err == nil && n == 4096; !errors.Is(err, unix.EAGAIN) && !again {
					t.Errorf("%s, %s, access %#x: %d, %v, want EAGAIN", name, way, access, n, err)
				}
				if e := aio.wait(20 * time.Second); e.res != 4096 {
					t.Errorf("%s, %s, access %#x: the one in flight ended with %d", name, way, access, e.res)
				}
				if n, err := try(fd); n != 4096 || err != nil {
					t.Errorf("%s, %s, access %#x: with room again: %d, %v", name, way, access, n, err)
				}
				if way == "splice" {
					drain(t, r)
				}
			}
		}
		ring.none()
		setConfig(t, d, func(c *ioctlapi.Config) { c.LatencyNS = 0 })
		for range 3 {
			if n, err := unix.Pread(openRaw(t, unix.O_DIRECT), mem, scratch); n != len(mem) || err != nil {
				t.Errorf("%s: without a latency: %d, %v", name, n, err)
			}
		}
	}
}
