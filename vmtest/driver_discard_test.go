// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// A discarded range is zero, to the byte, and nothing beside it; its memory is
// given back by an idle device, and stays while it's mapped or in use.
func TestDriverDiscard(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	fd, direct := openRaw(t, 0), openRaw(t, unix.O_DIRECT)
	const pos, first, length = scratch + 5<<20, 100, 3*4096 + 50
	want, got := fill(anonymous(t, 5), 21), anonymous(t, 5)
	pages := func() uint64 {
		s, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s.StorePages
	}
	round := func(name string, freed uint64) {
		t.Helper()
		if _, err := unix.Pwrite(fd, fill(want, 21), pos); err != nil {
			t.Fatal(err)
		}
		before := pages()
		if n, err := d.Discard(pos+first, length); n != length || err != nil {
			t.Fatalf("%s: %d, %v", name, n, err)
		}
		clear(want[first : first+length])
		if n, err := unix.Pread(fd, got, pos); n != len(got) || err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: read %d, %v, as expected: %v", name, n, err, bytes.Equal(got, want))
		}
		if after := pages(); before-after != freed {
			t.Errorf("%s: %d pages were given back, want %d", name, before-after, freed)
		}
	}
	round("idle", 2)

	m, err := unix.Mmap(fd, pos, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	round("mapped", 0)
	if !bytes.Equal(m, want) {
		t.Error("the mapping shows something else")
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}

	aio := newAIO(t, 1)
	slow(t, d, time.Second)
	mem := anonymous(t, 1)
	if err := aio.submit(control(aioRead, direct, mem, pos)); err != nil {
		t.Fatal(err)
	}
	before := pages()
	if n, err := d.Discard(pos, 4096*5); n != 4096*5 || err != nil || pages() != before {
		t.Errorf("with a request in flight: %d, %v, %d pages of %d left", n, err, pages(), before)
	}
	if e := aio.wait(10 * time.Second); e.res != 4096 || !bytes.Equal(mem, make([]byte, 4096)) {
		t.Errorf("the request in flight: %d, zero: %v", e.res, bytes.Equal(mem, make([]byte, 4096)))
	}

	if n, err := d.Discard(config.Capacity-512, 4096); n != 512 || err != nil {
		t.Errorf("across the capacity: %d, %v, want 512", n, err)
	}
	if _, err := d.Discard(config.Capacity, 512); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("at the capacity: %v, want ENOSPC", err)
	}
	readOnly, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(readOnly)
	if _, err := ioctlapi.FromFD(ioctlapi.Linux{}, readOnly, "read-only").Discard(0, 512); !errors.Is(err, unix.EBADF) {
		t.Errorf("read-only: %v, want EBADF", err)
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096); !errors.Is(err, unix.ENODEV) {
		t.Errorf("fallocate: %v, want ENODEV", err)
	}
}

// Who reads the zeros of a discard that hasn't returned yet and writes there: that
// stays, whether the memory was given back or zeroed in place.
func TestDriverDiscardRace(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	// Without a mapping the reader, who is in now and then, decides what is done.
	const pos, pages, rounds, most = scratch + 13<<20, 64, 60, 600
	fd, full, got := openRaw(t, 0), fill(anonymous(t, pages), 3), make([]byte, 1)
	gone, inPlace := 0, 0
	for round := 0; round < rounds || round < most && (gone == 0 || inPlace == 0); round++ {
		var mapped []byte
		if round%2 == 1 {
			var err error
			if mapped, err = unix.Mmap(fd, pos, 4096, unix.PROT_READ, unix.MAP_SHARED); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := unix.Pwrite(fd, full, pos); err != nil {
			t.Fatal(err)
		}
		before := storePages(t, d)
		discarded := make(chan error, 1)
		go func() {
			// Begins and ends within pages.
			_, err := d.Discard(pos+100, pages*4096-200)
			discarded <- err
		}()
		const at = pos + 4096*7 + 5
		for got[0] = 1; got[0] != 0; {
			if n, err := unix.Pread(fd, got, at); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if n, err := unix.Pwrite(fd, []byte{77}, at); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if err := <-discarded; err != nil {
			t.Fatal(err)
		}
		if storePages(t, d) < before {
			gone++
			if mapped != nil {
				t.Errorf("round %d: memory was given back while the device was mapped", round)
			}
		} else {
			inPlace++
		}
		if mapped != nil {
			if err := unix.Munmap(mapped); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := unix.Pread(fd, got, at); n != 1 || err != nil || got[0] != 77 {
			t.Fatalf("round %d: what was written after the zeros were seen: %d (%d, %v), want 77", round, got[0], n, err)
		}
	}
	t.Logf("memory was given back in %d rounds, and zeroed in place in %d", gone, inPlace)
	if gone == 0 || inPlace == 0 {
		t.Error("want both")
	}
}
