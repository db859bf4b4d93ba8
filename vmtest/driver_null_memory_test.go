// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// soil has the kernel's next free pages full of bytes that aren't zero.
func soil(t *testing.T) {
	t.Helper()
	const n = 8 << 20
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	// Page by page, or a huge one is given back as a whole. EINVAL: there are none.
	_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	for i := range mem {
		mem[i] = 0xA5
	}
	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
}

// Spliced out of null come zeros, and never what was in the kernel's pages before. A
// kernel that zeroes all that it gives out (init_on_alloc) would hide it.
func TestDriverNullSplice(t *testing.T) {
	words, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(words), "init_on_alloc=0") {
		t.Log("this kernel may zero pages by itself: boot it with init_on_alloc=0, as scripts/guest-test does")
	}
	d := openDevice(t)
	const size = 64 << 10
	r, w := pipe(t, size)
	in, zero := make([]byte, size), make([]byte, size)
	for _, latency := range []time.Duration{0, 2 * time.Millisecond} {
		model(t, d, func(c *ioctlapi.Config) { c.Model, c.LatencyNS = ioctlapi.ModelNull, uint64(latency) })
		for _, access := range []int{0, unix.O_DIRECT} {
			fd := openRaw(t, access)
			for round := range 4 {
				soil(t)
				pos := int64(scratch)
				if n, err := spliceAll(fd, &pos, w, nil, size); n != size || err != nil {
					t.Fatalf("latency %v, access %#x: %d, %v", latency, access, n, err)
				}
				if n, err := io.ReadFull(fdReader(r), in); err != nil || !bytes.Equal(in, zero) {
					t.Errorf("latency %v, access %#x, round %d: %d bytes, %v, of which some aren't zero", latency, access, round, n, err)
					break
				}
			}
		}
	}
}

// A read of null leaves the buffer as it was, and counts as one that wrote it.
func TestDriverNullRead(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const pages = 20
	for _, latency := range []time.Duration{0, 2 * time.Millisecond} {
		model(t, d, func(c *ioctlapi.Config) { c.Model, c.LatencyNS = ioctlapi.ModelNull, uint64(latency) })
		for _, access := range []int{0, unix.O_DIRECT} {
			fd, mem := openRaw(t, access), fill(anonymous(t, pages), 0x5A)
			want := bytes.Clone(mem)
			before, err := d.ResetStats()
			if err != nil {
				t.Fatal(err)
			}
			pread(t, fd, mem, scratch)
			if !bytes.Equal(mem, want) {
				t.Errorf("latency %v, access %#x: the buffer was changed", latency, access)
			}
			var dirtied, copied uint64 = pages, 0
			if access == 0 {
				dirtied, copied = 0, uint64(len(mem)) // the kernel's copy does the marking
			}
			s, err := d.Stats()
			if err != nil || s.Reads != 1 || s.BytesRead != uint64(len(mem)) || s.BytesCopied != copied || s.PagesDirtied != dirtied {
				t.Errorf("latency %v, access %#x: %d reads of %d bytes, %d copied, %d pages dirtied, %v; want 1 of %d, %d, %d (before: %+v)", latency, access,
					s.Reads, s.BytesRead, s.BytesCopied, s.PagesDirtied, err, len(mem), copied, dirtied, before)
			}
		}
	}
}

// Neither a write nor a discard of null changes what the store has.
func TestDriverNullKeepsStore(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const pos, pages = scratch + 22<<20, 4
	fd, direct := openRaw(t, 0), openRaw(t, unix.O_DIRECT)
	stored, other, in := fill(anonymous(t, pages), 7), fill(anonymous(t, pages), 8), anonymous(t, pages)
	pwrite(t, fd, stored, pos)
	model(t, d, func(c *ioctlapi.Config) { c.Model = ioctlapi.ModelNull })
	had := storePages(t, d)
	pwrite(t, fd, other, pos)
	pwrite(t, direct, other, pos)
	pwrite(t, direct, other, pos+1<<20) // where there's no page
	if n, err := d.Discard(pos, uint64(len(stored))); n != uint64(len(stored)) || err != nil {
		t.Errorf("discard: %d, %v", n, err)
	}
	if n, err := d.Discard(pos+100, 200); n != 200 || err != nil {
		t.Errorf("discard of a part: %d, %v", n, err)
	}
	if n := storePages(t, d); n != had {
		t.Errorf("the store has %d pages, it was %d", n, had)
	}
	model(t, d, func(c *ioctlapi.Config) { c.Model = ioctlapi.ModelRAM })
	pread(t, fd, in, pos)
	if !bytes.Equal(in, stored) {
		t.Error("the bytes of the store were changed")
	}
}
