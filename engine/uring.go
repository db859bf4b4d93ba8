// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/engine/uring"
	"dio/ioctlapi"
)

// ownTicket marks requests of the queue itself (cancels): their completions
// are nobody's.
const ownTicket = 1 << 63

// uringQueue is io_uring in its three variants.
type uringQueue struct {
	name string
	f    *File
	ring *uring.Ring
	pool *Pool // registered as buffer 0, or nil
	uringVariant
	lazy   bool
	stamp  bool
	slots  slots
	ready  []*Op // done without the ring
	closed bool
	noRoom int // times in a row that the kernel had no room
}

// uringVariant is what an engine of the ring asks of it.
type uringVariant struct {
	fixed   bool // registered buffers and file
	poll    bool // IOPOLL
	command bool // IORING_OP_URING_CMD
}

func openUring(f *File, o Options) (Queue, error) { return newUring("io_uring", f, o, uringVariant{}) }

func openUringFixed(f *File, o Options) (Queue, error) {
	return newUring("io_uring-fixed", f, o, uringVariant{fixed: true})
}

func openUringPoll(f *File, o Options) (Queue, error) {
	return newUring("io_uring-iopoll", f, o, uringVariant{poll: true})
}

func openUringCmd(f *File, o Options) (Queue, error) {
	return newUring("uring_cmd", f, o, uringVariant{command: true})
}

func openUringCmdFixed(f *File, o Options) (Queue, error) {
	return newUring("uring_cmd-fixed", f, o, uringVariant{command: true, fixed: true})
}

func openUringCmdPoll(f *File, o Options) (Queue, error) {
	return newUring("uring_cmd-iopoll", f, o, uringVariant{command: true, poll: true})
}

func newUring(name string, f *File, o Options, v uringVariant) (Queue, error) {
	if err := v.check(name, f); err != nil {
		return nil, err
	}
	var must uint32
	if v.poll {
		must = uring.SetupIOPoll
	}
	// The ring belongs to the thread that makes it: with DEFER_TASKRUN nobody
	// else may wait on it, and when that thread ends its requests are cancelled.
	runtime.LockOSThread()
	r, err := uring.New(o.Depth, must)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, uringUnavailable(name, f, err)
	}
	q := &uringQueue{name: name, f: f, ring: r, pool: o.Pool, uringVariant: v, lazy: o.LazySubmit,
		stamp: o.Timestamps, slots: newSlots(o.Depth)}
	if err := q.prepareFile(); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

// check refuses commands where nobody takes them.
func (v uringVariant) check(name string, f *File) error {
	if !v.command {
		return nil
	}
	if f.dev == nil {
		return f.unavailable(name, unix.EOPNOTSUPP, "it is a %s, not a dio device", f.Kind)
	}
	info, err := f.dev.Info()
	if err != nil {
		return err
	}
	if !info.Features.Has(ioctlapi.FeatureURingCmd) {
		return f.unavailable(name, unix.EOPNOTSUPP, "the driver has no io_uring commands on this kernel (6.1 and newer have them)")
	}
	return nil
}

// uringUnavailable says why there is no ring.
func uringUnavailable(name string, f *File, err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return f.unavailable(name, err, "this kernel has no io_uring (5.4 or newer, built with CONFIG_IO_URING)")
	case errors.Is(err, unix.EPERM):
		return f.unavailable(name, err, "io_uring is switched off: sysctl kernel.io_uring_disabled is %s, or a seccomp filter forbids it",
			sysctl("kernel/io_uring_disabled"))
	case errors.Is(err, unix.ENOMEM):
		return f.unavailable(name, err, "no memory for the rings: a smaller depth, or a higher limit of locked memory (ulimit -l), helps")
	}
	return f.unavailable(name, err, "io_uring_setup: %v", err)
}

// prepareFile registers what is to be registered, and tries out what only a
// try can tell.
func (q *uringQueue) prepareFile() error {
	ok, err := q.ring.Supports(uring.OpRead, uring.OpWrite, uring.OpReadFixed, uring.OpWriteFixed, uring.OpFsync)
	if err != nil || !ok {
		return q.f.unavailable(q.name, err, "this kernel's io_uring lacks read and write operations (5.6 or newer has them)")
	}
	if q.fixed {
		return q.registerBuffers()
	}
	if q.poll {
		return q.tryPoll()
	}
	return nil
}

// maxRegistered is the kernel's limit on one registered buffer.
const maxRegistered = 1 << 30

func (q *uringQueue) registerBuffers() error {
	if q.pool == nil {
		return fmt.Errorf("engine %s: it needs a buffer pool to register (Options.Pool)", q.name)
	}
	if len(q.pool.mem) > maxRegistered {
		return fmt.Errorf("engine %s: %d bytes of buffers are over the kernel's limit of %d: a smaller depth or block size helps",
			q.name, len(q.pool.mem), maxRegistered)
	}
	iov := unix.Iovec{Base: &q.pool.mem[0]}
	iov.SetLen(len(q.pool.mem))
	if err := q.ring.Register(uring.RegisterBuffers, unsafe.Pointer(&iov), 1); err != nil {
		return q.f.unavailable(q.name, err, "registering %d bytes of buffers: %v (ENOMEM: raise the limit of locked memory, ulimit -l)",
			len(q.pool.mem), err)
	}
	fd := int32(q.f.FD)
	if err := q.ring.Register(uring.RegisterFiles, unsafe.Pointer(&fd), 1); err != nil {
		return q.f.unavailable(q.name, err, "registering the file: %v", err)
	}
	return nil
}

// tryPoll makes an operation of zero bytes, which a file that can't be polled
// refuses. A file system has iopoll whatever the disk below it can do: there
// only a real read tells.
func (q *uringQueue) tryPoll() error {
	op := &Op{Kind: Read}
	if !q.f.Read {
		op.Kind = Write
	}
	unit := max(q.f.MemAlign, q.f.OffsetAlign)
	if q.f.Read && q.f.Kind != DioDevice && q.f.Size >= int64(unit) {
		pool, err := NewPool(PoolOptions{Count: 1, Size: unit})
		if err != nil {
			return err
		}
		defer pool.Close()
		op.Buf = pool.all[0].Data
	}
	if _, err := q.Submit([]*Op{op}); err != nil {
		return err
	}
	if _, err := q.Reap(context.Background(), 1, nil); err != nil {
		return err
	}
	switch {
	case errors.Is(op.Err, unix.EOPNOTSUPP):
		return q.f.unavailable(q.name, op.Err, "its driver, file system or disk can't be polled")
	case op.Err != nil:
		return q.f.unavailable(q.name, op.Err, "a polled operation fails: %v", op.Err)
	}
	return nil
}

func (q *uringQueue) Submit(ops []*Op) (int, error) {
	ops = ops[:min(len(ops), q.Depth()-q.InFlight())]
	var sqe uring.SQE
	taken := 0
	for _, op := range ops {
		if q.stamp {
			op.Submitted = Now()
		}
		if q.withoutRing(op) {
			if q.stamp {
				op.Completed = Now()
			}
			q.ready = append(q.ready, op)
			taken++
			continue
		}
		q.slots.take(op)
		q.fill(&sqe, op)
		if !q.ring.Push(&sqe) {
			q.slots.release(op.slot)
			break
		}
		taken++
	}
	if q.lazy || q.ring.Pending() == 0 {
		return taken, nil
	}
	return taken, q.handOver(false, 0, 0)
}

// handOver gives the kernel what is pending, and waits when asked to. What it
// has no room for now stays pending.
func (q *uringQueue) handOver(wait bool, want int, timeout time.Duration) error {
	err := q.ring.Enter(wait, want, timeout)
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) {
		q.noRoom = 0
		if err != nil {
			return fmt.Errorf("io_uring_enter on %s: %w", q.f.Path, err)
		}
		return nil
	}
	if q.noRoom++; q.noRoom > 10000 {
		return fmt.Errorf("io_uring_enter on %s: the kernel finds no room: %w", q.f.Path, err)
	}
	if q.noRoom > 10 {
		time.Sleep(time.Millisecond)
	}
	return nil
}

// collect takes finished operations off the ring.
func (q *uringQueue) collect(done []*Op) []*Op {
	var now time.Duration
	for {
		cqe, ok := q.ring.Pop()
		if !ok {
			return done
		}
		if cqe.UserData&ownTicket != 0 {
			continue
		}
		op := q.slots.finish(cqe.UserData)
		if op == nil {
			continue
		}
		setResult(op, int64(cqe.Res))
		if op.Err == unix.ECANCELED && !op.cancel {
			op.Err = noThread{}
		}
		if q.stamp {
			if now == 0 {
				now = Now()
			}
			op.Completed = now
		}
		done = append(done, op)
	}
}

func (q *uringQueue) Reap(ctx context.Context, want int, done []*Op) ([]*Op, error) {
	before := len(done)
	done = append(done, q.ready...)
	q.ready = q.ready[:0]
	if q.ring.Pending() == 0 {
		done = q.collect(done)
	}
	// Even with nothing to wait for the kernel is entered once: it finishes
	// deferred completions, and polls, only in there.
	if q.slots.used > 0 && (q.ring.Pending() > 0 || want == 0 && len(done) == before) {
		missing := max(0, min(want-(len(done)-before), q.slots.used))
		if err := q.handOver(true, missing, waitSlice(ctx, missing)); err != nil {
			return done, err
		}
		done = q.collect(done)
	}
	for {
		missing := min(want-(len(done)-before), q.slots.used)
		if missing <= 0 {
			return done, nil
		}
		if err := ctx.Err(); err != nil {
			return done, err
		}
		if err := q.handOver(true, missing, waitSlice(ctx, missing)); err != nil {
			return done, err
		}
		done = q.collect(done)
	}
}

// noThread is what became of an operation that nobody cancelled: io_uring was to do it
// in a thread, which it gives up starting after some tries that signals interrupted
// (and Go's runtime sends some). Whoever tries again may have it.
type noThread struct{}

func (noThread) Error() string {
	return "operation canceled: io_uring could start no thread for it"
}

// Is makes it an EAGAIN for those who try again, and the ECANCELED that it was.
func (noThread) Is(target error) bool { return target == unix.EAGAIN || target == unix.ECANCELED }

// waitSlice is how long a wait may last before its context is looked at; 0:
// for ever.
func waitSlice(ctx context.Context, missing int) time.Duration {
	if ctx.Done() == nil || missing == 0 {
		return 0
	}
	return pollSlice
}

func (q *uringQueue) InFlight() int { return q.slots.used + len(q.ready) }

func (q *uringQueue) Depth() int { return len(q.slots.ops) }

func (q *uringQueue) Strays() int { return q.slots.strays }

func (q *uringQueue) Cancel(op *Op) error {
	if !q.slots.holds(op) || q.poll { // IOPOLL rings can't cancel what a driver has
		return ErrNotCancelable
	}
	op.cancel = true
	sqe := uring.SQE{Opcode: uring.OpAsyncCancel, FD: -1, Addr: q.slots.ticket(op.slot), UserData: ownTicket}
	if !q.ring.Push(&sqe) {
		if err := q.handOver(false, 0, 0); err != nil {
			return err
		}
		if !q.ring.Push(&sqe) {
			return ErrNotCancelable
		}
	}
	return q.handOver(false, 0, 0)
}

func (q *uringQueue) Close() error {
	if q.closed {
		return nil
	}
	q.closed = true
	defer runtime.UnlockOSThread()
	for _, op := range q.slots.ops {
		if op != nil {
			_ = q.Cancel(op) // those that can't be are waited for
		}
	}
	_, err := q.Reap(context.Background(), q.InFlight(), nil)
	if e := q.ring.Close(); e != nil && err == nil {
		err = fmt.Errorf("close the ring on %s: %w", q.f.Path, e)
	}
	return err
}
