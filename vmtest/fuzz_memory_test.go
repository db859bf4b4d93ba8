// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fuzzMemory is memory of every kind, shared by all threads: 64 pages whose
// protection stays, 64 where it changes, and an end at which every access stops,
// for what comes behind is somebody else's.
type fuzzMemory struct {
	all  []byte
	page int
	bad  []uint64 // addresses at which there is nothing
}

func newFuzzMemory(t *testing.T) *fuzzMemory {
	t.Helper()
	m := &fuzzMemory{page: os.Getpagesize()}
	// Far from all else: an address with a bit or two changed must not be one of Go's
	// runtime, which the device would write to.
	const pages = 144
	far := uint64(0x2000_8000_0000)
	at, err := unix.MmapPtr(-1, 0, unsafe.Add(nil, far), uintptr(pages*m.page), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE)
	if err != nil {
		t.Fatal(err)
	}
	m.all = unsafe.Slice((*byte)(at), pages*m.page)
	t.Cleanup(func() { unix.MunmapPtr(at, uintptr(len(m.all))) })
	readOnly, none, end := m.all[40*m.page:48*m.page], m.all[56*m.page:64*m.page], m.all[128*m.page:]
	if err := errors.Join(unix.Mprotect(readOnly, unix.PROT_READ), unix.Mprotect(none, unix.PROT_NONE), unix.Mprotect(end, unix.PROT_NONE)); err != nil {
		t.Fatal(err)
	}
	// The program and its heap lie below, what it maps above 64 GiB.
	m.bad = []uint64{0, 1, 8, uint64(m.page) - 4, address(none), 1 << 36, 1 << 47, 1<<47 - 4096, 1<<63 - 1, 0xffff_8880_0000_0000, 0xffff_ffff_8000_0000,
		^uint64(0), ^uint64(7), ^uint64(4095)}
	return m
}

// address is a buffer's address for n bytes: mostly good; else misaligned, at an
// edge, read-only, or nowhere.
func (f *fuzzThread) address(n int) uint64 {
	m := f.mem
	base := address(m.all)
	switch f.IntN(10) {
	case 0:
		return pick(f.Rand, m.bad...)
	case 1: // across an edge
		edge := pick(f.Rand, 40, 48, 56, 64, 128)
		return base + uint64(edge*m.page-f.IntN(n+1))
	case 2:
		return base + uint64(f.IntN(32*m.page)) // any alignment
	case 3: // where the protection changes all the time
		return base + uint64(64*m.page+512*f.IntN(56*m.page/512))
	default:
		return base + 512*uint64(f.IntN(24*m.page/512))
	}
}

// disturb changes the second half's memory under everybody's hands.
func (m *fuzzMemory) disturb(r *rand.Rand) error {
	part := m.all[(64+r.IntN(60))*m.page:][:(1+r.IntN(4))*m.page]
	switch r.IntN(4) {
	case 0:
		return unix.Mprotect(part, pick(r, unix.PROT_NONE, unix.PROT_READ))
	case 1:
		return unix.Madvise(part, unix.MADV_DONTNEED)
	default:
		return unix.Mprotect(part, unix.PROT_READ|unix.PROT_WRITE)
	}
}
