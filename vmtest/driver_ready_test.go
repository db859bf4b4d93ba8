// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The device is always ready, as a file or a disk is: poll and select say so at
// once, whatever is in flight, and epoll, which is for those that aren't, EPERM.
func TestDriverPoll(t *testing.T) {
	d := openDevice(t)
	slow(t, d, 500*time.Millisecond)
	aio := newAIO(t, 1)
	for _, access := range []int{0, unix.O_DIRECT} {
		fd := openRaw(t, access)
		if access != 0 {
			if err := aio.submit(control(aioRead, fd, anonymous(t, 1), 0)); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT | unix.POLLPRI}}
		if n, err := unix.Poll(p, 10_000); n != 1 || err != nil || p[0].Revents != unix.POLLIN|unix.POLLOUT {
			t.Errorf("poll: %d, %v, events %#x", n, err, p[0].Revents)
		}
		var r, w, e unix.FdSet
		r.Set(fd)
		w.Set(fd)
		e.Set(fd)
		if n, err := unix.Select(fd+1, &r, &w, &e, &unix.Timeval{Sec: 10}); n != 2 || err != nil || !r.IsSet(fd) || !w.IsSet(fd) || e.IsSet(fd) {
			t.Errorf("select: %d, %v", n, err)
		}
		epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(epoll)
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); !errors.Is(err, unix.EPERM) {
			t.Errorf("epoll_ctl: %v, want EPERM", err)
		}
		ring := newUring(t, 2, 0)
		ring.submit(uringEntry{opcode: uringPol, fd: int32(fd), opFlags: unix.POLLIN})
		if v := ring.wait(5 * time.Second); v.res&unix.POLLIN == 0 || v.res < 0 {
			t.Errorf("io_uring's poll: %d, want POLLIN", v.res)
		}
		if took := time.Since(begin); took > 400*time.Millisecond {
			t.Errorf("it took %v to be told that it is ready", took)
		}
	}
	aio.wait(10 * time.Second)
}

// eventfd makes one, and a way to wait for it with epoll: its count, 0 after limit.
func eventfd(t *testing.T) (fd int, count func(limit time.Duration) uint64) {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd); unix.Close(epoll) })
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	return fd, func(limit time.Duration) uint64 {
		t.Helper()
		for deadline := time.Now().Add(limit); ; {
			var e [1]unix.EpollEvent
			n, err := unix.EpollWait(epoll, e[:], int(max(time.Until(deadline), 0)/time.Millisecond))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				t.Fatal("epoll_wait:", err)
			}
			if n == 0 {
				return 0
			}
			var b [8]byte
			if _, err := unix.Read(fd, b[:]); err != nil {
				t.Fatal("read the eventfd:", err)
			}
			return binary.NativeEndian.Uint64(b[:])
		}
	}
}

// Completions tell an eventfd, so that a loop around epoll learns of them: once
// each, when the request has ended and not before, and with the result in place.
func TestDriverEventfd(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency = 300 * time.Millisecond
	slow(t, d, latency)
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 1)

	t.Run("aio", func(t *testing.T) {
		aio := newAIO(t, 4)
		event, count := eventfd(t)
		for range 2 {
			c := control(aioRead, fd, mem, scratch)
			c.flags, c.resfd = 1, uint32(event) // IOCB_FLAG_RESFD
			if err := aio.submit(c); err != nil {
				t.Fatal(err)
			}
		}
		if n := count(latency / 2); n != 0 {
			t.Errorf("told of %d before the latency was over", n)
		}
		for told := uint64(0); told < 2; {
			n := count(10 * time.Second)
			if n == 0 {
				t.Fatalf("told of %d of 2", told)
			}
			for range n {
				if e, ok := aio.next(0); !ok || e.res != int64(len(mem)) {
					t.Errorf("told, and the event: %+v, %v", e, ok)
				}
			}
			told += n
		}
		if n := count(50 * time.Millisecond); n != 0 {
			t.Errorf("told of %d too many", n)
		}
		aio.none()
	})

	t.Run("io_uring", func(t *testing.T) {
		ring := newUring(t, 4, 0)
		event, count := eventfd(t)
		number := int32(event)
		if err := ring.register(uringRegisterEventfd, unsafe.Pointer(&number), 1); err != nil {
			t.Fatal("register the eventfd:", err)
		}
		ring.submit(entry(uringRead, fd, mem, scratch), entry(uringRead, fd, mem, scratch))
		if n := count(latency / 2); n != 0 {
			t.Errorf("told of %d before the latency was over", n)
		}
		for ended := 0; ended < 2; {
			// Told once or twice, for io_uring may tell of both at one go.
			if n := count(10 * time.Second); n == 0 {
				t.Fatalf("%d of 2 ended, and nothing is told", ended)
			}
			for {
				v, ok := ring.next(0)
				if !ok {
					break
				}
				if v.res != int32(len(mem)) {
					t.Errorf("result %d", v.res)
				}
				ended++
			}
		}
		ring.none()
	})
}
