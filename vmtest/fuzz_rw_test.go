// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawSegment is a struct iovec whose address may be anything.
type rawSegment struct{ addr, n uintptr }

// fuzzVectorRoom is how many segments fuzzRW makes.
const fuzzVectorRoom = 24

// Errors that reading and writing may give.
var rwErrors = []error{nil, unix.EINVAL, unix.EFAULT, unix.EBADF, unix.ENOSPC, unix.EAGAIN, unix.EOPNOTSUPP, unix.EIO}

// fuzzRW makes preadv2(2) and pwritev2(2) with random vectors, places and flags,
// in front of a device that changes between its models.
func fuzzRW(f *fuzzThread) (call, end func() error) {
	v := make([]rawSegment, fuzzVectorRoom)
	call = func() error {
		if err := f.remodel(); err != nil {
			return err
		}
		n, sum := f.IntN(fuzzVectorRoom), uint64(0)
		for i := range n {
			length := pick(f.Rand, 0, 512, 1024, 4096, 4096, 9*512, 32<<10)
			if f.IntN(40) == 0 {
				length = int(f.number() >> 1)
			}
			sum += uint64(length)
			v[i] = rawSegment{uintptr(f.address(min(length, 64<<10))), uintptr(length)}
		}
		// An odd address or length spoils all of a direct request: not always.
		if f.IntN(2) == 0 {
			for i := range n {
				v[i].addr &^= 511
			}
		}
		flags := 0
		if f.IntN(3) == 0 {
			flags = pick(f.Rand, unix.RWF_NOWAIT, unix.RWF_DSYNC, unix.RWF_HIPRI, unix.RWF_APPEND, unix.RWF_SYNC|unix.RWF_NOWAIT, int(f.Uint32()))
		}
		trap := pick[uintptr](f.Rand, unix.SYS_PREADV2, unix.SYS_PWRITEV2)
		fd, pos := pick(f.Rand, f.files...), int64(f.place()&^511)
		if f.IntN(8) == 0 {
			pos = int64(f.place())
		}
		if pos == -1 {
			pos = -2 // the file's position
		}
		moved, _, e := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(n), uintptr(pos), uintptr(uint64(pos)>>32), uintptr(flags))
		var err error
		if e != 0 {
			moved, err = 0, e
		}
		f.told[err]++
		if !slices.Contains(rwErrors, err) || err == nil && uint64(moved) > sum {
			return fmt.Errorf("call %d on file %d, %d segments %v, %d bytes at %d, flags %#x: %d, %v", trap, slices.Index(f.files, fd), n, v[:n], sum, pos, flags, moved, err)
		}
		return nil
	}
	return call, func() error { return nil }
}
