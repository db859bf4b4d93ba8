// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eduRange is a range of physical addresses, the end excluded.
type eduRange struct{ from, to uint64 }

// eduChunk is how much memory eduPages takes at a time.
const eduChunk = 2 << 20

// eduPages is a page of memory from each of the ranges. A guest that wasn't given
// such memory fails the test.
func eduPages(t *testing.T, ranges []eduRange) [][]byte {
	t.Helper()
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer pagemap.Close()
	var found [][]byte
	where := make([]uint64, len(ranges))
	for range ranges {
		found = append(found, nil)
	}
	// The kernel gives the highest memory first: what is taken is kept until lower is had.
	const most = 2 << 10 // MiB
	taken := 0
	for ; slices.ContainsFunc(found, func(b []byte) bool { return b == nil }); taken += eduChunk >> 20 {
		if taken == most {
			t.Fatalf("no memory in each of %x after %d MiB, only at %x: boot the guest with 4G, as scripts/guest-test does", ranges, taken, where)
		}
		mem, err := unix.Mmap(-1, 0, eduChunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Munmap(mem) })
		entries := make([]byte, eduChunk/eduSize*8)
		if _, err := pagemap.ReadAt(entries, int64(uintptr(unsafe.Pointer(&mem[0]))/eduSize*8)); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(entries); i += 8 {
			at := binary.LittleEndian.Uint64(entries[i:]) << 9 >> 9 * eduSize
			for n, r := range ranges {
				if found[n] == nil && at >= r.from && at < r.to {
					found[n], where[n] = mem[i/8*eduSize:][:eduSize], at
				}
			}
		}
	}
	t.Logf("pages at %x, of %d MiB", where, taken)
	return found
}

// eduRebind binds the device whose mask is open with a DMA mask of so many bits;
// at the test's end it's as it was.
func eduRebind(t *testing.T, bits int) {
	t.Helper()
	_, name := eduFunction(t, eduOpenPath)
	again := func() {
		eduWrite(t, eduFolder+"unbind", name)
		eduBind(t, name, eduOpenPath)
	}
	t.Cleanup(again) // after the parameter's own
	eduParameter(t, "edu_dma_bits", fmt.Sprint(bits))
	again()
}
