// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// DIO_IOC_TRANSFER's own errors, without a registered buffer, in both directions,
// served at once and queued. (EAGAIN, EINTR and EBADF have tests of their own.)
func TestDriverTransferErrors(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	const most, pos, top = 2 << 12, scratch, 1 << 63
	mem := anonymous(t, 4)
	good, capacity := uint64(uintptr(unsafe.Pointer(&mem[0]))), config.Capacity
	nowhere, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(nowhere)
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionWorker} {
		setConfig(t, d, func(c *ioctlapi.Config) { c.MaxRequest, c.Completion = most, completion })
		for _, c := range []struct {
			name                 string
			addr, length, offset uint64
			read, write          error
			done                 uint64
		}{
			{"all that may be", good, most, pos, nil, nil, most},
			{"odd everything", good + 3, 777, pos + 5, nil, nil, 777},
			{"over max_request", good, most + 1, pos, unix.EINVAL, unix.EINVAL, 0},
			{"pages over max_request", good, most + 4096, pos, unix.EINVAL, unix.EINVAL, 0},
			{"over DIO_REQUEST_MAX", good, 1<<30 + 1, pos, unix.EINVAL, unix.EINVAL, 0},
			{"nothing", good, 0, pos, unix.EINVAL, unix.EINVAL, 0},
			{"addr + length wraps", ^uint64(4095), most, pos, unix.EINVAL, unix.EINVAL, 0},
			{"addr + length is just over", ^uint64(4095), 4097, pos, unix.EINVAL, unix.EINVAL, 0},
			{"the kernel's memory", top, most, pos, unix.EFAULT, unix.EFAULT, 0},
			{"no memory", address(nowhere), 4096, pos, unix.EFAULT, unix.EFAULT, 0},
			{"offset + length wraps", good, most, ^uint64(4095), unix.EINVAL, unix.EINVAL, 0},
			{"offset + length is negative", good, most, top - 4096, unix.EINVAL, unix.EINVAL, 0},
			{"at the capacity", good, 512, capacity, nil, unix.ENOSPC, 0},
			{"far past the capacity", good, 512, top - 4096, nil, unix.ENOSPC, 0},
			{"across the capacity", good, most, capacity - 4096, nil, nil, 4096},
		} {
			for _, flags := range []uint32{0, ioctlapi.TransferWrite} {
				want, direction := c.read, "read"
				if flags != 0 {
					want, direction = c.write, "write"
				}
				r := ioctlapi.Transfer{Flags: flags, Addr: c.addr, Length: c.length, Offset: c.offset}
				if err := d.Transfer(&r); !errors.Is(err, want) || r.Done != c.done {
					t.Errorf("%v, %s, %s: %v, %d bytes, want %v, %d", completion, c.name, direction, err, r.Done, want, c.done)
				}
			}
		}
	}
}
