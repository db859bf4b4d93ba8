// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// The other ways in which a command ends without having done all: for the store's
// limit, for an injected error, on hardware, without the buffer that it names.
func TestDriverCommandEnds(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	noPins(t, d)
	page := os.Getpagesize()
	const pos = scratch + 13<<20
	fd, mem := openRaw(t, 0), fill(anonymous(t, 4), 3)
	for _, latency := range []time.Duration{0, time.Millisecond} {
		for _, flags := range []uint32{0, uringIOPoll} {
			t.Run(fmt.Sprintf("%v/flags=%d", latency, flags), func(t *testing.T) {
				ring := newUring(t, 8, flags)
				check := func(what string, e uringEntry, want int32) {
					t.Helper()
					ring.submit(e)
					if v := ring.wait(20 * time.Second); v.res != want {
						t.Errorf("%s: %d, want %d", what, v.res, want)
					}
				}
				read, write := command(ioctlapi.URingRead, fd, mem, pos), command(ioctlapi.URingWrite, fd, mem, pos)
				fixed := func(e uringEntry, index uint16) uringEntry {
					e.opFlags, e.buffer = uringCommandFixed, index
					return e
				}
				check("fixed, and no buffer is registered", fixed(read, 0), -int32(unix.EFAULT))
				iov := iovecs(mem)
				if err := ring.register(uringRegisterBuffers, unsafe.Pointer(&iov[0]), 1); err != nil {
					t.Fatal(err)
				}
				check("fixed", fixed(read, 0), int32(len(mem)))
				check("fixed read, and no such buffer", fixed(read, 1), -int32(unix.EFAULT))
				check("fixed write, and no such buffer", fixed(write, 65535), -int32(unix.EFAULT))

				// Room for three pages of four.
				hole(t, d, pos, 2*len(mem))
				setConfig(t, d, func(c *ioctlapi.Config) {
					c.Completion, c.LatencyNS = ioctlapi.CompletionAuto, uint64(latency)
					c.StoreLimit = (storePages(t, d) + 3) * uint64(page)
				})
				check("write of four pages where three fit", write, int32(3*page))
				check("write where none fits", command(ioctlapi.URingWrite, fd, mem, pos+int64(len(mem))), -int32(unix.ENOSPC))
				check("write of what is there", command(ioctlapi.URingWrite, fd, mem[:3*page], pos), int32(3*page))

				inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1, Count: 1, Flags: ioctlapi.InjectReads, Offset: pos, Length: 4096})
				check("write, and an error for reads", command(ioctlapi.URingWrite, fd, mem[:page], pos), int32(page))
				check("read, and an error", read, -int32(unix.EIO))
				check("read after it", read, int32(len(mem)))
				inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectShort, Every: 1, Count: 2, Offset: pos, Length: 4096})
				check("read cut short", read, int32(len(mem)/2))
				check("write cut short", command(ioctlapi.URingWrite, fd, mem[:3*page], pos), int32(3*page/2))
				check("read after that", read, int32(len(mem)))
			})
		}
	}
	hole(t, d, pos, 2*len(mem))

	for _, e := range []uint8{0, uringAsync} {
		hardware, ring := eduRaw(t, eduPath, 0), newUring(t, 8, 0)
		discard := command(ioctlapi.URingDiscard, hardware, nil, 0)
		discard.command[1] |= 512
		discard.flags = e
		ring.submit(discard)
		if v := ring.wait(20 * time.Second); v.res != -int32(unix.EOPNOTSUPP) {
			t.Errorf("discard of hardware: %d, want EOPNOTSUPP", v.res)
		}
	}
}

// Who submitted a command goes while it waits, and the ring stays, with others. By
// the end of a thread nothing changes. A program that is replaced by another has its
// commands cancelled from 6.7 on; before, exec waits for their end.
func TestDriverCommandTaskGoes(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	noPins(t, d)
	page := int32(os.Getpagesize())

	t.Run("thread", func(t *testing.T) {
		const latency = 700 * time.Millisecond
		slow(t, d, latency)
		fd, ring, mem := openRaw(t, 0), newUring(t, 4, 0), anonymous(t, 1)
		begin := time.Now()
		submitted := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
			submitted <- ring.hand(command(ioctlapi.URingRead, fd, mem, scratch))
		}()
		if err := <-submitted; err != nil {
			t.Fatal(err)
		}
		if v := ring.wait(30 * time.Second); v.res != page || time.Since(begin) < latency {
			t.Errorf("told %d after %v, want %d, and not before %v", v.res, time.Since(begin), page, latency)
		}
		ring.none()
	})

	t.Run("exec", func(t *testing.T) {
		latency, want := 2*time.Second, page
		if kernelAtLeast(t, 6, 7) {
			latency, want = 50*time.Second, -int32(unix.ECANCELED)
		}
		slow(t, d, latency)
		before, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		ring := newUring(t, 4, 0)
		shared, err := unix.Dup(ring.fd)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(shared), "ring")
		h := startHelper(t, "submit-and-exec", []*os.File{file})
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		var fd int
		var addr uint64
		if _, err := fmt.Sscan(h.line(t), &fd, &addr); err != nil {
			t.Fatal(err)
		}
		// The entry is made here, of that process's file and memory, and handed in there.
		e := command(ioctlapi.URingRead, fd, nil, scratch)
		e.command[0], e.command[1] = addr, e.command[1]|uint64(page)
		ring.place(e)
		begin := time.Now()
		h.tell(t, "submit")
		v := ring.wait(45 * time.Second)
		if took := time.Since(begin); v.res != want || want > 0 && took < latency {
			t.Errorf("told %d after %v, want %d", v.res, took, want)
		}
		ring.none()
		if after, err := d.Stats(); err != nil || after.InFlight != before.InFlight || (after.Cancelled > before.Cancelled) != (want < 0) {
			t.Errorf("%+v, %v", after, err)
		}
		if said := h.line(t); said != "another program" {
			t.Errorf("the helper said %q", said)
		}
		h.in.Close()
		if err := h.Wait(); err != nil {
			t.Error("the helper:", err)
		}
	})
}

// place puts an entry into the ring for whoever hands it over.
func (r *uring) place(e uringEntry) {
	slot := r.slot(0)
	*r.at(slot) = e
	tail := r.word(r.setup.sq.tail)
	*r.word(r.setup.sq.c + 4*(*tail&*r.word(r.setup.sq.mask))) = slot
	*tail++
}

// helperSubmitAndExec submits what is in the ring that it was given, as its file 3,
// and becomes another program.
func helperSubmitAndExec([]string) error {
	runtime.LockOSThread()
	fd, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	fmt.Println(fd, address(mem))
	if line, err := bufio.NewReader(os.Stdin).ReadBytes('\n'); err != nil || !bytes.Equal(line, []byte("submit\n")) {
		return errors.New("not told to submit")
	}
	if n, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, 3, 1, 0, 0, 0, 0); n != 1 || e != 0 {
		return fmt.Errorf("io_uring_enter: %d, %w", n, e)
	}
	return unix.Exec("/bin/sh", []string{"sh", "-c", "echo another program; read wait; exit 0"}, os.Environ())
}
