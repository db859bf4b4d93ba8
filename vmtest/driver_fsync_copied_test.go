// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

const uffdMissing = 1 << 0 // UFFDIO_REGISTER_MODE_MISSING

// stopTouches stops who touches a page of mem that isn't there, the kernel too, until
// the file that it gives is closed: then it's a page of zeros.
func stopTouches(mem []byte) (fd int, err error) {
	r, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if e != 0 {
		return -1, fmt.Errorf("userfaultfd: %w", e)
	}
	fd = int(r)
	api, area := [3]uint64{uffdVersion}, [4]uint64{address(mem), uint64(len(mem)), uffdMissing}
	if err := errors.Join(rawCommand(fd, uffdAPI, unsafe.Pointer(&api)), rawCommand(fd, uffdRegister, unsafe.Pointer(&area))); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("userfaultfd: %w", err)
	}
	return fd, nil
}

// awaitTouch waits until somebody is stopped.
func awaitTouch(fd int) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		if n, err := unix.Poll(poll, 1000); n == 1 {
			return nil
		} else if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return errors.New("nobody touches the page")
}

// inFlight is how many requests are.
func inFlight(t *testing.T, d *ioctlapi.Device) uint64 {
	t.Helper()
	s, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s.InFlight
}

// called runs a call that may wait; its error comes when it's over.
func called(call func() error) <-chan error {
	over := make(chan error, 1)
	go func() { over <- call() }()
	return over
}

// still fails the test when the call is over after a moment.
func still(t *testing.T, what string, over <-chan error) {
	t.Helper()
	select {
	case err := <-over:
		t.Fatalf("%s didn't wait: %v", what, err)
	case <-time.After(300 * time.Millisecond):
	}
}

// ends fails the test when the call isn't over soon, and well.
func ends(t *testing.T, what string, over <-chan error) {
	t.Helper()
	select {
	case err := <-over:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("%s hangs", what)
	}
}

// whole is a read or write that must do all of it.
func whole(call func(int, []byte, int64) (int, error), fd int, mem []byte, pos int64) func() error {
	return func() error {
		if n, err := call(fd, mem, pos); n != len(mem) || err != nil {
			return fmt.Errorf("%d of %d, %w", n, len(mem), err)
		}
		return nil
	}
}

// Without O_DIRECT a call that serves a latency is in flight until its bytes are
// moved, and fsync waits for that: when it ends, they're there.
func TestDriverFsyncCopied(t *testing.T) {
	d := openDevice(t)
	const pos, page = scratch + 17<<20, 4096
	fd := openRaw(t, 0)
	m, err := unix.Mmap(fd, pos, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	for _, c := range []struct {
		name  string
		model ioctlapi.Model
		call  func(int, []byte, int64) (int, error)
	}{
		{"write", ioctlapi.ModelRAM, unix.Pwrite}, {"read", ioctlapi.ModelRAM, unix.Pread},
		{"write to a disk", ioctlapi.ModelDisk, unix.Pwrite},
	} {
		model(t, d, func(f *ioctlapi.Config) { f.Model, f.LatencyNS = c.model, uint64(20*time.Millisecond) })
		fill(m, 5)
		// The call is stopped at its first page, after its latency.
		mem := anonymous(t, 2)
		fill(mem[page:], 9)
		stop, err := stopTouches(mem[:page])
		if err != nil {
			t.Fatal(err)
		}
		call := called(whole(c.call, fd, mem, pos))
		if err := awaitTouch(stop); err != nil {
			t.Fatal(err)
		}
		if n := inFlight(t, d); n != 1 {
			t.Errorf("%s: %d in flight while bytes are moved, want 1", c.name, n)
		}
		fsync := called(func() error { return unix.Fsync(fd) })
		still(t, c.name+": fsync", fsync)
		if err := unix.Close(stop); err != nil {
			t.Fatal(err)
		}
		ends(t, c.name+": fsync", fsync)
		if !bytes.Equal(mem, m) {
			t.Errorf("%s: fsync ended before the bytes were moved", c.name)
		}
		ends(t, c.name, call)
		if n := inFlight(t, d); n != 0 {
			t.Errorf("%s: %d in flight afterwards", c.name, n)
		}
	}
}

// helperCopied writes without O_DIRECT, from memory that never comes if so asked.
func helperCopied(args []string) error {
	fd, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	write := func() error { return whole(unix.Pwrite, fd, mem, scratch)() }
	if !slices.Contains(args, "stopped") {
		fmt.Println("begins")
		return write()
	}
	stop, err := stopTouches(mem)
	if err != nil {
		return err
	}
	over := called(write)
	if err := awaitTouch(stop); err != nil {
		return err
	}
	fmt.Println("stopped")
	return <-over
}

// Who copies can be killed, in its sleep and while its bytes are moved, and who waits
// for it in fsync waits no longer.
func TestDriverFsyncCopiedKilled(t *testing.T) {
	d := openDevice(t)
	fd := openRaw(t, 0)
	for _, c := range []struct {
		how     string
		latency time.Duration
	}{{"asleep", time.Minute}, {"stopped", 20 * time.Millisecond}} {
		slow(t, d, c.latency)
		h := startHelper(t, "copied", nil, c.how)
		h.line(t)
		waitInFlight(t, d, 1)
		fsync := called(func() error { return unix.Fsync(fd) })
		still(t, c.how+": fsync", fsync)
		killed := time.Now()
		if err := h.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		ends(t, c.how+": fsync", fsync)
		_ = h.Wait()
		if took := time.Since(killed); took > 30*time.Second || h.ProcessState.Exited() {
			t.Errorf("%s: it took %v to die: %v", c.how, took, h.ProcessState)
		}
		if n := inFlight(t, d); n != 0 {
			t.Errorf("%s: %d in flight afterwards", c.how, n)
		}
	}
}

// A device that is removed waits for nobody: whose bytes are being moved right now
// succeeds all the same, and who waits for that in fsync is not forgotten.
func TestRemovalCopied(t *testing.T) {
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	waiting := config
	waiting.Completion, waiting.LatencyNS = ioctlapi.CompletionAuto, uint64(20*time.Millisecond)
	if err := d.SetConfig(waiting); err != nil {
		t.Fatal(err)
	}
	fd, mem := openRaw(t, 0), anonymous(t, 1)
	stop, err := stopTouches(mem)
	if err != nil {
		t.Fatal(err)
	}
	write := called(whole(unix.Pwrite, fd, mem, scratch))
	if err := awaitTouch(stop); err != nil {
		t.Fatal(err)
	}
	fsync := called(func() error { return unix.Fsync(fd) })
	still(t, "fsync", fsync)
	ends(t, "removal", called(func() error { return os.WriteFile(driverFolder+"unbind", []byte(softwareName), 0) }))
	defer bind(t, config)
	still(t, "fsync after the removal", fsync)
	if n := inFlight(t, d); n != 1 {
		t.Errorf("%d in flight, want the one whose bytes are moved", n)
	}
	if err := unix.Close(stop); err != nil {
		t.Fatal(err)
	}
	ends(t, "fsync", fsync)
	ends(t, "the write", write)
	if err := unix.Fsync(fd); !errors.Is(err, unix.ENODEV) {
		t.Errorf("fsync afterwards: %v, want ENODEV", err)
	}
}

// Hardware: a read is in flight until it's in the caller's memory, and counts once.
func TestEduFsyncCopied(t *testing.T) {
	d, fd := edu(t, eduPath), eduRaw(t, eduPath, 0)
	setConfig(t, d, func(c *ioctlapi.Config) { c.MaxInFlight, c.MaxInFlightFile = 1, 1 })
	want := fill(make([]byte, 512), 6)
	if err := whole(unix.Pwrite, fd, want, 0)(); err != nil {
		t.Fatal("write:", err)
	}
	mem := anonymous(t, 1)
	stop, err := stopTouches(mem)
	if err != nil {
		t.Fatal(err)
	}
	read := called(whole(unix.Pread, fd, mem[:512], 0))
	if err := awaitTouch(stop); err != nil {
		t.Fatal(err)
	}
	if n := inFlight(t, d); n != 1 {
		t.Errorf("%d in flight while bytes are copied, want 1", n)
	}
	if _, err := unix.Pread(fd, make([]byte, 512), 0); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("one more than may be in flight: %v, want EAGAIN", err)
	}
	fsync := called(func() error { return unix.Fsync(fd) })
	still(t, "fsync", fsync)
	if err := unix.Close(stop); err != nil {
		t.Fatal(err)
	}
	ends(t, "fsync", fsync)
	if !bytes.Equal(mem[:512], want) {
		t.Error("fsync ended before the bytes were there")
	}
	ends(t, "read", read)
	if s, err := d.Stats(); err != nil || s.InFlight != 0 {
		t.Errorf("%d in flight afterwards, %v", s.InFlight, err)
	}
}
