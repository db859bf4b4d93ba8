// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"errors"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Transferer is the part of a dio device that the ioctl engine needs.
type Transferer interface {
	Transfer(*ioctlapi.Transfer) error
}

func openIoctl(f *File, o Options) (Queue, error) {
	if f.dev == nil {
		return nil, f.unavailable("ioctl", unix.ENOTTY, "it is a %s, not a dio device", f.Kind)
	}
	return openSync(o, func() (executor, error) { return &ioctlExec{dev: f.dev, fsync: f.fsync}, nil })
}

// ioctlExec makes DIO_IOC_TRANSFER calls, with or without a registered buffer.
type ioctlExec struct {
	dev   Transferer
	fsync func() error
	t     ioctlapi.Transfer // here, so that a call allocates nothing

	registered *registeredPool // nil: each transfer pins its buffer
}

func (x *ioctlExec) run(op *Op) (int, error) {
	if op.Kind == Sync {
		return 0, x.fsync()
	}
	if op.Flags != 0 {
		return 0, errFlags
	}
	if len(op.Buf) == 0 {
		return 0, nil
	}
	x.t = ioctlapi.Transfer{Addr: uint64(base(op.Buf)), Length: uint64(len(op.Buf)), Offset: uint64(op.Offset)}
	if op.Kind == Write {
		x.t.Flags = ioctlapi.TransferWrite
	}
	if x.registered != nil {
		if err := x.registered.place(&x.t, op.Buf); err != nil {
			return 0, err
		}
	}
	err := errnoOf(x.dev.Transfer(&x.t)) // the caller names engine and file, as for every engine
	return int(x.t.Done), err
}

// errnoOf is the errno behind err, or err where there is none.
func errnoOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func (x *ioctlExec) close() error { return nil }
