// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

func openPreadv(f *File, o Options) (Queue, error) {
	return openSync(o, func() (executor, error) { return &preadvExec{f: f}, nil })
}

func openPreadv2(f *File, o Options) (Queue, error) {
	// Zero bytes: finds out whether the kernel has the call, moves nothing.
	probe := preadvExec{f: f, v2: true}
	op := Op{Kind: Read}
	if !f.Read {
		op.Kind = Write
	}
	if _, err := probe.run(&op); errors.Is(err, unix.ENOSYS) {
		return nil, f.unavailable("preadv2", err, "this kernel has no preadv2 (4.6 or newer has)")
	}
	return openSync(o, func() (executor, error) { return &preadvExec{f: f, v2: true}, nil })
}

// preadvExec makes the vectored calls; an Op with flags needs the second
// version of them.
type preadvExec struct {
	f   *File
	v2  bool
	iov unix.Iovec // here, so that a call allocates nothing
}

func (p *preadvExec) run(op *Op) (int, error) {
	if op.Kind == Sync {
		return 0, p.f.fsync()
	}
	v2 := p.v2 || op.Flags != 0
	var nr uintptr = unix.SYS_PREADV
	switch {
	case op.Kind == Write && v2:
		nr = unix.SYS_PWRITEV2
	case op.Kind == Write:
		nr = unix.SYS_PWRITEV
	case v2:
		nr = unix.SYS_PREADV2
	}
	p.iov.Base = unsafe.SliceData(op.Buf)
	p.iov.SetLen(len(op.Buf))
	for {
		// The offset goes in two halves; a 64-bit kernel shifts the second out.
		n, _, errno := unix.Syscall6(nr, uintptr(p.f.FD), uintptr(unsafe.Pointer(&p.iov)), 1,
			uintptr(op.Offset), uintptr(uint64(op.Offset)>>32), uintptr(op.Flags))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

func (p *preadvExec) close() error { return nil }
