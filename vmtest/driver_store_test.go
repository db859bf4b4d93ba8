// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"os"
	"sync"
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
			pos := int64(scratch + 1<<20 + int(completion)*1<<18 + flags) // fresh each time
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
