// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// openIoctl is the dio driver's own transfer, through the ABI package: its
// call is a normal system call of Go's, some 200 instructions dearer.
func openIoctl(j *job) (loop, error) {
	return openTransfer(j, func(buf []byte) ioctlapi.Transfer { return ioctlapi.Transfer{Addr: uint64(base(buf))} })
}

// openIoctlBuffer is the same on memory that was registered before.
func openIoctlBuffer(j *job) (loop, error) {
	dev := j.file.Device()
	if dev == nil {
		return nil, fmt.Errorf("it is a %s, not a dio device", j.file.Kind)
	}
	id, err := dev.RegisterBuffer(j.mem.all, true)
	if err != nil {
		return nil, fmt.Errorf("register %d buffers of %d bytes: %w (ENOMEM: raise the limit of locked memory, ulimit -l)", j.depth, j.block, err)
	}
	l, err := openTransfer(j, func(buf []byte) ioctlapi.Transfer {
		return ioctlapi.Transfer{Flags: ioctlapi.TransferBuffer, Addr: uint64(base(buf) - base(j.mem.all)), Buffer: id}
	})
	if err != nil {
		return nil, errors.Join(err, dev.UnregisterBuffer(id))
	}
	return &registeredLoop{l, func() error { return dev.UnregisterBuffer(id) }}, nil
}

type registeredLoop struct {
	loop
	unregister func() error
}

func (r *registeredLoop) close() error { return errors.Join(r.loop.close(), r.unregister()) }

func openTransfer(j *job, describe func(buf []byte) ioctlapi.Transfer) (loop, error) {
	return openSync(j, func(j *job, buf []byte, l *syncLoop) error {
		dev := j.file.Device()
		if dev == nil {
			return fmt.Errorf("it is a %s, not a dio device", j.file.Kind)
		}
		t := describe(buf)
		t.Length = uint64(len(buf))
		if j.write {
			t.Flags |= ioctlapi.TransferWrite
		}
		l.call = func(offset int64) int64 {
			t.Offset = uint64(offset)
			if err := dev.Transfer(&t); err != nil {
				var errno unix.Errno
				if errors.As(err, &errno) {
					return -int64(errno)
				}
				return 0
			}
			return int64(t.Done)
		}
		return nil
	})
}

// openMmap maps the whole range once and copies; the pages that are touched
// first in the warm-up don't fault again.
func openMmap(j *job) (loop, error) {
	size := j.offset.end
	if int64(int(size)) != size {
		return nil, fmt.Errorf("a range of %d bytes is more than an address can reach: --size", size)
	}
	prot := unix.PROT_READ
	if j.write {
		prot |= unix.PROT_WRITE
	}
	mapped, err := unix.Mmap(j.file.FD, 0, int(size), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	l, err := openSync(j, func(j *job, buf []byte, l *syncLoop) error {
		l.per, l.mapped = 0, true
		l.call = func(offset int64) int64 { return int64(copy(buf, mapped[offset:])) }
		if j.write {
			l.call = func(offset int64) int64 { return int64(copy(mapped[offset:offset+int64(len(buf))], buf)) }
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(mapped))
	}
	return &mmapLoop{l, mapped}, nil
}

type mmapLoop struct {
	loop
	mapped []byte
}

func (m *mmapLoop) close() error { return errors.Join(m.loop.close(), unix.Munmap(m.mapped)) }
