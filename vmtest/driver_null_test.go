// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// A read of null into memory of nobody, here the store's own that io_uring has
// registered, zeroes what was asked for and not a byte beside it.
func TestDriverNullRegisteredMapping(t *testing.T) {
	d := openDevice(t)
	const pos, pages = scratch + 7<<20, 4
	m, err := unix.Mmap(openRaw(t, 0), pos, pages<<12, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	fill(m, 9)
	ring := newUring(t, 4, 0)
	iov := iovecs(m)
	if err := ring.register(uringRegisterBuffers, unsafe.Pointer(&iov[0]), 1); err != nil {
		// io_uring takes a driver's mapping from 6.5 on.
		if kernelAtLeast(t, 6, 5) || !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatal("register the mapping:", err)
		}
		return
	}
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionWorker} {
		setConfig(t, d, func(c *ioctlapi.Config) { c.Model, c.Completion = ioctlapi.ModelNull, completion })
		fd := openRaw(t, unix.O_DIRECT)
		for _, part := range [][2]int{{1024, 512}, {3584, 1024}, {512, 3 << 12}} {
			want := bytes.Clone(fill(m, 9))
			clear(want[part[0]:][:part[1]])
			e := entry(uringReadFixed, fd, m[part[0]:][:part[1]], scratch)
			ring.submit(e)
			if v := ring.wait(10 * time.Second); v.res != int32(part[1]) {
				t.Errorf("%v: %d bytes at %d: %d", completion, part[1], part[0], v.res)
			}
			if !bytes.Equal(m, want) {
				t.Errorf("%v: %d bytes at %d: other bytes than these were zeroed, or these weren't", completion, part[1], part[0])
			}
		}
	}
	if err := ring.register(uringUnregisterBuffers, nil, 0); err != nil {
		t.Error("unregister the mapping:", err)
	}
}
