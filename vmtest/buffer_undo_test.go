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

// userfaultfd's ABI, as far as it's needed: who writes to a page is stopped.
const (
	uffdAPI, uffdRegister, uffdWriteProtect = 0xC018AA3F, 0xC020AA00, 0xC018AA06

	uffdVersion   = 0xAA
	uffdWPFeature = 1 << 0 // UFFD_FEATURE_PAGEFAULT_FLAG_WP
	uffdWPRange   = 1 << 1 // UFFDIO_REGISTER_MODE_WP
	uffdWPOn      = 1 << 0 // UFFDIO_WRITEPROTECT_MODE_WP
)

// stopWrites stops who writes to mem until the caller closes the file descriptor;
// from it a message can be read then.
func stopWrites(t *testing.T, mem []byte) (fd int) {
	t.Helper()
	r, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if e != 0 {
		t.Fatal("userfaultfd:", e)
	}
	fd = int(r)
	addr, n := address(mem), uint64(len(mem))
	api, area, protect := [3]uint64{uffdVersion, uffdWPFeature}, [4]uint64{addr, n, uffdWPRange}, [3]uint64{addr, n, uffdWPOn}
	if err := errors.Join(rawCommand(fd, uffdAPI, unsafe.Pointer(&api)), rawCommand(fd, uffdRegister, unsafe.Pointer(&area)),
		rawCommand(fd, uffdWriteProtect, unsafe.Pointer(&protect))); err != nil {
		t.Fatal("userfaultfd:", err)
	}
	return fd
}

// A registration whose id can't be told is undone; not another one, which got the
// same id because somebody took it away meanwhile.
func TestBufferIDTaken(t *testing.T) {
	d := openDevice(t)
	noBuffers(t, d)
	mem := fill(anonymous(t, 2), 1)
	for _, stolen := range []bool{false, true} {
		arg, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			t.Fatal(err)
		}
		r := copyRegister(arg, mem[:4096])
		fd := stopWrites(t, arg)
		done := make(chan error, 1)
		go func() { done <- rawIoctl(d.FD(), nrBufferRegister, r) }()

		// The driver is about to tell the id: it's there already.
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 10000); n != 1 || err != nil {
			t.Fatalf("nobody tells the id: %d, %v", n, err)
		}
		if n := bufferStats(t, d)[0]; n != 1 {
			t.Errorf("%d buffers, want 1", n)
		}
		if stolen {
			if err := d.UnregisterBuffer(1); err != nil {
				t.Fatal(err)
			}
			if id := register(t, d, mem[4096:], true); id != 1 {
				t.Fatalf("the next one has the id %d, want 1", id)
			}
		}
		if err := errors.Join(unix.Munmap(arg), unix.Close(fd)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if !errors.Is(err, unix.EFAULT) {
				t.Errorf("the id can't be told: %v, want EFAULT", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the registration hangs")
		}
		if stolen {
			if n, err := move(d, 1, 0, 4096, scratch, 0); n != 4096 || err != nil {
				t.Errorf("the buffer that has the id now: %d, %v", n, err)
			}
			if err := d.UnregisterBuffer(1); err != nil {
				t.Error(err)
			}
		} else if err := d.UnregisterBuffer(1); !errors.Is(err, unix.ENOENT) {
			t.Errorf("what couldn't be told is there: %v, want ENOENT", err)
		}
	}
}

// copyRegister puts the struct that registers mem into arg.
func copyRegister(arg, mem []byte) []byte {
	r := poke(arg[:32], 0, 32)
	poke(r, 4, 1) // DIO_BUFFER_WRITABLE
	binary.LittleEndian.PutUint64(r[8:], address(mem))
	binary.LittleEndian.PutUint64(r[16:], uint64(len(mem)))
	return r
}
