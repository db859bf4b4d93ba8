// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Registrar is the part of a dio device that keeps registered buffers.
type Registrar interface {
	Transferer
	RegisterBuffer(mem []byte, writable bool) (id uint32, err error)
	UnregisterBuffer(id uint32) error
}

// openIoctlBuffer registers the pool: its transfers name it instead of pinning.
func openIoctlBuffer(f *File, o Options) (Queue, error) {
	if f.dev == nil {
		return nil, f.unavailable("ioctl-buffer", unix.ENOTTY, "it is a %s, not a dio device", f.Kind)
	}
	r, err := registerPool(f.dev, f, o.Pool)
	if err != nil {
		return nil, err
	}
	q, err := openSync(o, func() (executor, error) {
		return &ioctlExec{dev: f.dev, fsync: f.fsync, registered: r}, nil
	})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return &bufferQueue{q, r}, nil
}

// registeredPool is a pool that a device has pinned.
type registeredPool struct {
	dev  Registrar
	pool *Pool
	id   uint32
}

func registerPool(dev Registrar, f *File, pool *Pool) (*registeredPool, error) {
	if pool == nil {
		return nil, errors.New("engine ioctl-buffer: it needs a buffer pool to register (Options.Pool)")
	}
	if len(pool.mem) > ioctlapi.BufferMax {
		return nil, fmt.Errorf("engine ioctl-buffer: %d bytes of buffers are over the driver's limit of %d: a smaller depth or block size helps",
			len(pool.mem), ioctlapi.BufferMax)
	}
	id, err := dev.RegisterBuffer(pool.mem, f.Read)
	if err != nil {
		err = errnoOf(err)
		return nil, f.unavailable("ioctl-buffer", err, "registering %d bytes of buffers: %v (ENOMEM: raise the limit of locked memory, ulimit -l; "+
			"ENOTTY: the driver is older)", len(pool.mem), err)
	}
	return &registeredPool{dev, pool, id}, nil
}

// place makes t's address the one within the registered buffer.
func (r *registeredPool) place(t *ioctlapi.Transfer, buf []byte) error {
	if !r.pool.contains(buf) {
		return fmt.Errorf("the buffer isn't of the registered pool: %w", unix.EFAULT)
	}
	t.Flags |= ioctlapi.TransferBuffer
	t.Addr, t.Buffer = uint64(base(buf)-base(r.pool.mem)), r.id
	return nil
}

func (r *registeredPool) close() error { return r.dev.UnregisterBuffer(r.id) }

// bufferQueue gives the registration back after its queue's last operation.
type bufferQueue struct {
	Queue
	registered *registeredPool
}

func (q *bufferQueue) Close() error {
	err := q.Queue.Close()
	if q.registered != nil {
		err = errors.Join(err, q.registered.close())
		q.registered = nil
	}
	return err
}
