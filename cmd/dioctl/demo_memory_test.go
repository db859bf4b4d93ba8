// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

const someSmaps = `55d0c0400000-55d0c0401000 r--p 00000000 08:01 42 /usr/bin/x
Rss:                   4 kB
Private_Clean:         4 kB
VmFlags: rd mr
7f0000001000-7f0000011000 rw-p 00000000 00:00 0
Size:                 64 kB
Rss:                  48 kB
Shared_Clean:          4 kB
Shared_Dirty:          8 kB
Private_Clean:        12 kB
Private_Dirty:        24 kB
Anonymous:            48 kB
Swap:                 16 kB
SwapPss:              16 kB
VmFlags: rd wr mr
7f0000011000-7f0000012000 ---p 00000000 00:00 0
Rss:                   0 kB
Swap:                  0 kB
`

func TestFindSmaps(t *testing.T) {
	got, err := findSmaps(strings.NewReader(someSmaps), 0x7f0000001000)
	if want := (smaps{rss: 48 << 10, clean: 16 << 10, dirty: 32 << 10, swap: 16 << 10}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := findSmaps(strings.NewReader(someSmaps), 0x7f0000002000); err == nil {
		t.Error("an address within a mapping was taken for its start")
	}
}

// A region is a mapping of its own, and the kernel's numbers are about it alone.
func TestRegion(t *testing.T) {
	const size = 64 << 10
	f, err := os.CreateTemp(t.TempDir(), "file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, file := range []int{-1, int(f.Fd())} {
		r, err := newRegion(size, file)
		if err != nil {
			t.Fatal(err)
		}
		pattern := make([]byte, size)
		for i := range pattern {
			pattern[i] = byte(i>>12) + 1
		}
		if n := r.held(pattern); n != 0 {
			t.Errorf("file %d: %d pages of fresh memory hold the pattern", file, n)
		}
		copy(r.mem, pattern)
		if n := r.held(pattern); n != size/os.Getpagesize() {
			t.Errorf("file %d: %d pages hold the pattern", file, n)
		}
		if s, err := r.smaps(); err != nil || s.rss != size || s.dirty != size {
			t.Errorf("file %d: %+v, %v", file, s, err)
		}
		in, err := r.resident()
		if err != nil {
			t.Fatal(err)
		}
		for i, there := range in {
			if !there {
				t.Errorf("file %d: page %d is said to be out", file, i)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSwapHeader(t *testing.T) {
	h := swapHeader(4096, 64<<20)
	version, last, bad := binary.NativeEndian.Uint32(h[1024:]), binary.NativeEndian.Uint32(h[1028:]), binary.NativeEndian.Uint32(h[1032:])
	if len(h) != 4096 || version != 1 || last != 16383 || bad != 0 || string(h[4086:]) != "SWAPSPACE2" {
		t.Errorf("%d bytes: version %d, last page %d, %d bad, %q", len(h), version, last, bad, h[4086:])
	}
}
