// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// The store's limit: what fits is written, then ENOSPC; what is there stays writable.
func TestDriverStoreLimit(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	page := os.Getpagesize()
	mem := fill(anonymous(t, 8), 5)
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionWorker} {
		for _, flags := range []int{0, unix.O_DIRECT} {
			pos := int64(scratch + 1<<20 + int(completion)*1<<18 + flags)
			hole(t, d, pos, 9*page)
			stats, err := d.Stats()
			if err != nil {
				t.Fatal(err)
			}
			config, err := d.Config()
			if err != nil {
				t.Fatal(err)
			}
			small := config
			small.Completion, small.StoreLimit = completion, (stats.StorePages+3)*uint64(page)
			if err := d.SetConfig(small); err != nil {
				t.Fatal(err)
			}
			fd := openRaw(t, flags)
			if n, err := unix.Pwrite(fd, mem, pos); n != 3*page || err != nil {
				t.Errorf("completion %v, flags %#x: 8 pages where 3 fit: %d, %v", completion, flags, n, err)
			}
			if n, err := unix.Pwrite(fd, mem, pos+int64(3*page)); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("completion %v, flags %#x: full: %d, %v, want ENOSPC", completion, flags, n, err)
			}
			if n, err := unix.Pwrite(fd, mem[:page], pos+int64(page)); n != page || err != nil {
				t.Errorf("completion %v, flags %#x: again where there is a page: %d, %v", completion, flags, n, err)
			}
			if err := d.SetConfig(config); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// readable reads a byte of a mapping; false: SIGBUS.
func readable(p *byte) (alive bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { alive = recover() == nil }()
	seen.Store(uint32(*p))
	return
}

// seen takes what was read, or it mightn't be read at all.
var seen atomic.Uint32

// Through a mapping a hole wants a page even to be read: past the limit that is
// SIGBUS, until there is room. What is there goes on working.
func TestDriverStoreLimitMapped(t *testing.T) {
	d := openDevice(t)
	page := os.Getpagesize()
	const pos, pages = scratch + 25<<20, 4
	hole(t, d, pos, pages*page)
	fd := openRaw(t, 0)
	m, err := unix.Mmap(fd, pos, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	m[0] = 7
	held := storePages(t, d)
	setConfig(t, d, func(c *ioctlapi.Config) { c.StoreLimit = held * uint64(page) })
	if readable(&m[page]) {
		t.Error("a hole was read past the limit")
	}
	if touch(&m[2*page]) {
		t.Error("a hole was written past the limit")
	}
	for _, flags := range []int{0, unix.O_DIRECT} {
		if n, err := unix.Pwrite(openRaw(t, flags), m[page:2*page], pos); !errors.Is(err, unix.EFAULT) {
			t.Errorf("flags %#x: a hole as the source of a write: %d, %v, want EFAULT", flags, n, err)
		}
	}
	if !touch(&m[0]) || m[0] != 8 {
		t.Errorf("a page that is there: %d, want 8", m[0])
	}
	if n := storePages(t, d); n != held {
		t.Errorf("the store has %d pages, want %d", n, held)
	}
	setConfig(t, d, func(c *ioctlapi.Config) { c.StoreLimit = (held + 1) * uint64(page) })
	if !readable(&m[page]) || m[page] != 0 {
		t.Error("with room again the hole isn't zero, or not there")
	}
	if touch(&m[2*page]) || storePages(t, d) != held+1 {
		t.Errorf("one page has room, and there came %d", storePages(t, d)-held)
	}
}

// Two that write the page that the store's last room is for: it is both's.
func TestDriverStoreLimitRace(t *testing.T) {
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.SetConfig(config); err != nil {
			t.Error(err)
		}
	})
	const pos, rounds = scratch + 12<<20, 400
	hole(t, d, pos, 8192)
	fds := [2]int{openRaw(t, 0), openRaw(t, 0)}
	small := config
	small.Completion, small.StoreLimit = ioctlapi.CompletionAuto, (storePages(t, d)+1)*4096
	if err := d.SetConfig(small); err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		var errs [2]error
		var ready, done sync.WaitGroup
		begin := make(chan struct{})
		for i, fd := range fds {
			ready.Add(1)
			done.Go(func() {
				ready.Done()
				<-begin
				_, errs[i] = unix.Pwrite(fd, []byte{1}, pos+int64(i))
			})
		}
		ready.Wait()
		close(begin)
		done.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if _, err := unix.Pwrite(fds[0], []byte{1}, pos+4096); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("round %d: a page more: %v, want ENOSPC", round, err)
		}
		if _, err := d.Discard(pos, 4096); err != nil {
			t.Fatal(err)
		}
	}
}

// Shrinking takes what is past the new end, and only from an idle device.
func TestDriverShrink(t *testing.T) {
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	fd := openRaw(t, 0)
	last := int64(config.Capacity) - 4096
	if _, err := unix.Pwrite(fd, []byte("gone"), last); err != nil {
		t.Fatal(err)
	}
	small := config
	small.Capacity -= 4096
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetConfig(small); !errors.Is(err, unix.EBUSY) {
		t.Errorf("while it is mapped: %v, want EBUSY", err)
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	if err := d.SetConfig(small); err != nil {
		t.Fatal(err)
	}
	if err := d.SetConfig(config); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if n, err := unix.Pread(fd, got, last); n != 4 || err != nil || !bytes.Equal(got, make([]byte, 4)) {
		t.Errorf("after shrinking and growing: %d, %v, %q, want zeros", n, err, got)
	}
}
