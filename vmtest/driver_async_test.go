// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Native AIO, straight from the ABI, so that what the kernel says is seen as it
// is: struct iocb and struct io_event, the same for 32-bit callers.
type aioControl struct {
	data         uint64
	key, rwFlags uint32
	opcode       uint16
	prio         int16
	fd           uint32
	buf, n       uint64
	offset       int64
	_            uint64
	flags, resfd uint32
}

type aioEvent struct {
	data, obj uint64
	res, res2 int64
}

const (
	aioRead, aioWrite, aioFsync = 0, 1, 2
)

type aioContext struct {
	t  *testing.T
	id uintptr
}

func newAIO(t *testing.T, depth int) *aioContext {
	t.Helper()
	c := &aioContext{t: t}
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&c.id)), 0); e != 0 {
		t.Fatal("io_setup:", e)
	}
	t.Cleanup(c.close)
	return c
}

func (c *aioContext) close() {
	if c.id != 0 {
		unix.Syscall(unix.SYS_IO_DESTROY, c.id, 0, 0)
		c.id = 0
	}
}

func (c *aioContext) submit(control *aioControl) error {
	list := [1]*aioControl{control}
	if _, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, c.id, 1, uintptr(unsafe.Pointer(&list))); e != 0 {
		return e
	}
	return nil
}

// next waits for an event, however often a signal of Go's runtime interrupts it.
func (c *aioContext) next(limit time.Duration) (aioEvent, bool) {
	c.t.Helper()
	for deadline := time.Now().Add(limit); ; {
		var e aioEvent
		ts := unix.NsecToTimespec(int64(max(time.Until(deadline), 0)))
		n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, c.id, 1, 1, uintptr(unsafe.Pointer(&e)), uintptr(unsafe.Pointer(&ts)), 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			c.t.Fatal("io_getevents:", errno)
		default:
			return e, n == 1
		}
	}
}

// wait gives the next event, or fails the test after a while.
func (c *aioContext) wait(limit time.Duration) aioEvent {
	c.t.Helper()
	e, ok := c.next(limit)
	if !ok {
		c.t.Fatalf("no completion within %v", limit)
	}
	return e
}

// none fails the test when there is one event more.
func (c *aioContext) none() {
	c.t.Helper()
	if e, ok := c.next(100 * time.Millisecond); ok {
		c.t.Errorf("a completion too many: %+v", e)
	}
}

func control(op uint16, fd int, buf []byte, offset int64) *aioControl {
	return &aioControl{opcode: op, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))), n: uint64(len(buf)), offset: offset}
}

func slow(t *testing.T, d *ioctlapi.Device, latency time.Duration) {
	t.Helper()
	setConfig(t, d, func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = uint64(latency), ioctlapi.CompletionAuto })
}

// A queued request returns at once, is served after its latency, told once.
func TestDriverAsyncLatency(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	fd, aio := openRaw(t, unix.O_DIRECT), newAIO(t, 4)
	out, in := fill(anonymous(t, 4), 9), anonymous(t, 4)
	const latency = 300 * time.Millisecond
	slow(t, d, latency)
	for _, op := range []*aioControl{control(aioWrite, fd, out, scratch), control(aioRead, fd, in, scratch)} {
		begin := time.Now()
		if err := aio.submit(op); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > latency/2 {
			t.Errorf("io_submit took %v", took)
		}
		if e := aio.wait(10 * time.Second); e.res != int64(len(out)) {
			t.Errorf("result %d, want %d", e.res, len(out))
		}
		if took := time.Since(begin); took < latency {
			t.Errorf("done after %v, the latency is %v", took, latency)
		}
	}
	aio.none()
	if !bytes.Equal(in, out) {
		t.Error("what was read isn't what was written")
	}
}

// io_cancel(2): the request ends at once with ECANCELED, its pages given back,
// nothing moved; a second cancel, and one after the end, find nothing.
func TestDriverCancel(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionTimer} {
		for _, op := range []uint16{aioRead, aioWrite} {
			setConfig(t, d, func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = uint64(30*time.Second), completion })
			fd, aio, mem := openRaw(t, unix.O_DIRECT), newAIO(t, 4), fill(anonymous(t, 3), 1)
			before := append([]byte(nil), mem...)
			one := control(op, fd, mem, scratch+1<<22)
			if err := aio.submit(one); err != nil {
				t.Fatal(err)
			}
			var e aioEvent
			_, _, errno := unix.Syscall(unix.SYS_IO_CANCEL, aio.id, uintptr(unsafe.Pointer(one)), uintptr(unsafe.Pointer(&e)))
			if errno != unix.EINPROGRESS {
				t.Fatalf("io_cancel: %v, want EINPROGRESS", errno)
			}
			if e := aio.wait(5 * time.Second); e.res != -int64(unix.ECANCELED) {
				t.Errorf("the cancelled request ended with %d", e.res)
			}
			if _, _, errno := unix.Syscall(unix.SYS_IO_CANCEL, aio.id, uintptr(unsafe.Pointer(one)), uintptr(unsafe.Pointer(&e))); errno != unix.EINVAL {
				t.Errorf("io_cancel of what has ended: %v, want EINVAL", errno)
			}
			aio.none()
			if !bytes.Equal(mem, before) {
				t.Error("the buffer changed")
			}
			if s, err := d.Stats(); err != nil || s.InFlight != 0 || s.PagesPinned != s.PagesReleased {
				t.Errorf("after the cancel: %+v, %v", s, err)
			}
		}
	}
}

// A process that ends with requests in flight: AIO's are cancelled, so it ends
// at once; io_uring's end after their latency. Nothing stays pinned.
func TestDriverExitInFlight(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	slow(t, d, 6*time.Second)
	for _, engine := range []string{"aio", "io_uring"} {
		t.Run(engine, func(t *testing.T) {
			cmd := exec.Command("dioctl", "read", "--engine", engine, "--direct", "--depth", "4", "--block-size", "64k", "--length", "1M",
				ioctlapi.DefaultPath)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			waitInFlight(t, d, 4)
			killed := time.Now()
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if took := time.Since(killed); engine == "aio" && took > 3*time.Second {
				t.Errorf("it took %v to die", took)
			}
			waitInFlight(t, d, 0)
		})
	}
}

// The store mapped: shared with what read and write see, private not; holes are
// zero; a touch past the end is SIGBUS (by process_vm_readv's EFAULT).
func TestDriverMmap(t *testing.T) {
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	fd, direct := openRaw(t, 0), openRaw(t, unix.O_DIRECT)
	const pos = scratch + 3<<20
	m, err := unix.Mmap(fd, pos, 4*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	if !bytes.Equal(m, make([]byte, len(m))) {
		t.Error("a hole isn't zero")
	}
	copy(m[page-3:], "mapped")
	got := make([]byte, 6)
	if _, err := unix.Pread(fd, got, pos+int64(page)-3); err != nil || string(got) != "mapped" {
		t.Errorf("written through the mapping, read %q, %v", got, err)
	}
	private, err := unix.Mmap(fd, pos, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(private)
	private[0] = 'p'
	if m[0] != 0 {
		t.Error("a private write is seen by others")
	}
	// The device's own pages as the buffer of a direct request on it.
	if n, err := unix.Pwrite(direct, m[:page], pos+int64(2*page)); n != page || err != nil || !bytes.Equal(m[2*page:3*page], m[:page]) {
		t.Errorf("from the mapping to the device: %d, %v", n, err)
	}
	if n, err := unix.Pread(direct, m[3*page:], pos+int64(2*page)); n != page || err != nil || !bytes.Equal(m[3*page:], m[:page]) {
		t.Errorf("from the device to the mapping: %d, %v", n, err)
	}

	end, err := unix.Mmap(fd, int64(config.Capacity)-int64(page), 2*page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(end)
	if n, err := unix.Pwrite(fd, end[page:], pos); !errors.Is(err, unix.EFAULT) {
		t.Errorf("a touch past the end: %d, %v, want EFAULT", n, err)
	}
	if n, err := unix.Pwrite(fd, end[:page], pos); n != page || err != nil {
		t.Errorf("the last page: %d, %v", n, err)
	}
	readOnly, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(readOnly)
	if _, err := unix.Mmap(readOnly, 0, page, unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EACCES) {
		t.Errorf("a writable mapping of a read-only file: %v, want EACCES", err)
	}
}
