// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pointer is p as a system call takes it; p must not be Go memory that moves
// or goes, which a local variable of the caller's makes sure of.
func pointer(p *byte) uintptr { return uintptr(unsafe.Pointer(p)) }

// region is memory of whole pages whose fate in reclaim is watched. It has an
// unreadable page on either side, so that the kernel keeps it a mapping of its
// own, and speaks of it alone.
type region struct {
	all  []byte // with the pages on either side
	mem  []byte
	file int // the file that is mapped, shared; -1: none, anonymous memory
}

// newRegion maps size bytes (whole pages) of a file from its start, shared,
// or anonymous ones for file -1.
func newRegion(size, file int) (*region, error) {
	page := unix.Getpagesize()
	all, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of memory: %w", size, err)
	}
	r := &region{all: all, mem: all[page : page+size : page+size], file: file}
	flags := uintptr(unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED)
	if file >= 0 {
		flags = unix.MAP_SHARED | unix.MAP_FIXED
	}
	_, err = unix.MmapPtr(file, 0, unsafe.Pointer(&r.mem[0]), uintptr(size), unix.PROT_READ|unix.PROT_WRITE, int(flags))
	if err == nil && file < 0 {
		// One page at a time is what the tour counts. A kernel without huge
		// pages says EINVAL, and makes none.
		if err = unix.Madvise(r.mem, unix.MADV_NOHUGEPAGE); errors.Is(err, unix.EINVAL) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map %d bytes: %w", size, err), unix.Munmap(all))
	}
	return r, nil
}

func (r *region) Close() error {
	if err := unix.Munmap(r.all); err != nil {
		return fmt.Errorf("unmap the tour's memory: %w", err)
	}
	return nil
}

// resident tells of each page whether it is in memory: mapped, or in the page
// or swap cache.
func (r *region) resident() ([]bool, error) {
	vec := make([]byte, len(r.mem)/unix.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, pointer(&r.mem[0]), uintptr(len(r.mem)), pointer(&vec[0])); errno != 0 {
		return nil, fmt.Errorf("mincore: %w", errno)
	}
	in := make([]bool, len(vec))
	for i, b := range vec {
		in[i] = b&1 != 0
	}
	return in, nil
}

// touch reads a byte of each page that is resident, or of all.
func (r *region) touch(all bool) error {
	in, err := r.resident()
	if err != nil {
		return err
	}
	page, sum := unix.Getpagesize(), byte(0)
	for i, there := range in {
		if all || there {
			sum += r.mem[i*page]
		}
	}
	runtime.KeepAlive(sum)
	return nil
}

// evictTries bounds the attempts at a page that another CPU's lists, or
// writeback, still hold.
const evictTries = 100

// evict asks the kernel to reclaim the pages, until none is in memory.
func (r *region) evict() error {
	left := 0
	for range evictTries {
		if err := unix.Madvise(r.mem, unix.MADV_PAGEOUT); err != nil {
			return fmt.Errorf("MADV_PAGEOUT: %w", err)
		}
		if r.file >= 0 {
			if err := unix.Fadvise(r.file, 0, int64(len(r.mem)), unix.FADV_DONTNEED); err != nil {
				return fmt.Errorf("POSIX_FADV_DONTNEED: %w", err)
			}
		}
		in, err := r.resident()
		if err != nil {
			return err
		}
		left = 0
		for _, there := range in {
			if there {
				left++
			}
		}
		if left == 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
		// MADV_PAGEOUT finds mapped pages only. A read maps a cached one
		// again, and changes nothing of it.
		if err := r.touch(false); err != nil {
			return err
		}
	}
	return fmt.Errorf("the kernel kept %d of %d pages in memory", left, len(r.mem)/unix.Getpagesize())
}

// smaps is what the kernel tells of a mapping, in bytes.
type smaps struct {
	rss, clean, dirty, swap int64
}

// smaps asks it.
func (r *region) smaps() (smaps, error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return smaps{}, err
	}
	defer f.Close()
	return findSmaps(f, uint64(pointer(&r.mem[0])))
}

// findSmaps picks the mapping that begins at an address.
func findSmaps(r io.Reader, start uint64) (s smaps, err error) {
	found := false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var from, to uint64
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			if found {
				break
			}
			found = from == start
			continue
		}
		name, rest, _ := strings.Cut(lines.Text(), ":")
		var kib int64
		if n, _ := fmt.Sscanf(rest, "%d kB", &kib); !found || n != 1 {
			continue
		}
		switch name {
		case "Rss":
			s.rss = kib << 10
		case "Shared_Clean", "Private_Clean":
			s.clean += kib << 10
		case "Shared_Dirty", "Private_Dirty":
			s.dirty += kib << 10
		case "Swap":
			s.swap = kib << 10
		}
	}
	if err := lines.Err(); err != nil {
		return s, fmt.Errorf("read smaps: %w", err)
	}
	if !found {
		return s, fmt.Errorf("smaps: no mapping begins at %#x", start)
	}
	return s, nil
}

// held counts the pages of the region that hold a pattern's.
func (r *region) held(pattern []byte) (n int) {
	page := unix.Getpagesize()
	for at := 0; at < len(r.mem); at += page {
		if bytes.Equal(r.mem[at:at+page], pattern[at:at+page]) {
			n++
		}
	}
	return n
}

// stayOnCPU keeps the calling goroutine on one CPU, and so the pages that it
// touches on that CPU's lists, where the kernel's reclaim of its own asking
// finds them. undo ends that.
func stayOnCPU() (undo func() error, err error) {
	runtime.LockOSThread()
	var before, one unix.CPUSet
	cpu := 0
	if err = unix.SchedGetaffinity(0, &before); err == nil {
		for !before.IsSet(cpu) { // one is: this runs on it
			cpu++
		}
		one.Set(cpu)
		err = unix.SchedSetaffinity(0, &one)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("stay on one CPU: %w", err)
	}
	return func() error {
		err := unix.SchedSetaffinity(0, &before)
		runtime.UnlockOSThread()
		return err
	}, nil
}
