// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iocb is struct iocb of linux/aio_abi.h, as little-endian machines have it.
type iocb struct {
	data      uint64
	key       uint32
	rwFlags   uint32
	opcode    uint16
	reqprio   int16
	fildes    uint32
	buf       uint64
	nbytes    uint64
	offset    int64
	reserved2 uint64
	flags     uint32
	resfd     uint32
}

// ioEvent is struct io_event.
type ioEvent struct {
	data, obj uint64
	res, res2 int64
}

const (
	iocbCmdPread  = 0
	iocbCmdPwrite = 1
	iocbCmdFsync  = 2
)

// pollSlice is how often a wait looks at its context.
const pollSlice = 50 * time.Millisecond

// aioQueue is native AIO. The kernel reads an iocb during io_submit and again,
// by its address, during io_cancel; it keeps the buffers' addresses.
type aioQueue struct {
	f      *File
	ctx    uintptr // aio_context_t
	stamp  bool
	slots  slots
	iocbs  []iocb // by slot
	ptrs   []*iocb
	events []ioEvent
	failed []*Op // refused by io_submit, to be reaped
}

func openAIO(f *File, o Options) (Queue, error) {
	q := &aioQueue{f: f, stamp: o.Timestamps, slots: newSlots(o.Depth), iocbs: make([]iocb, o.Depth),
		ptrs: make([]*iocb, 0, o.Depth), events: make([]ioEvent, o.Depth)}
	_, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(o.Depth), uintptr(unsafe.Pointer(&q.ctx)), 0)
	switch errno {
	case 0:
		return q, nil
	case unix.ENOSYS:
		return nil, f.unavailable("aio", errno, "this kernel was built without native AIO (CONFIG_AIO)")
	case unix.EAGAIN:
		return nil, f.unavailable("aio", errno, "the system's limit of AIO requests is reached: raise sysctl fs.aio-max-nr (now %s)",
			sysctl("fs/aio-max-nr"))
	}
	return nil, f.unavailable("aio", errno, "io_setup of %d requests: %v", o.Depth, errno)
}

// sysctl reads a value below /proc/sys for an error message.
func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func (q *aioQueue) prepare(op *Op) *iocb {
	slot := q.slots.take(op)
	cb := &q.iocbs[slot]
	*cb = iocb{data: q.slots.ticket(slot), fildes: uint32(q.f.FD), rwFlags: uint32(op.Flags)}
	switch op.Kind {
	case Sync:
		cb.opcode, cb.rwFlags = iocbCmdFsync, 0
		return cb
	case Write:
		cb.opcode = iocbCmdPwrite
	default:
		cb.opcode = iocbCmdPread
	}
	cb.buf, cb.nbytes, cb.offset = uint64(base(op.Buf)), uint64(len(op.Buf)), op.Offset
	return cb
}

func (q *aioQueue) Submit(ops []*Op) (int, error) {
	ops = ops[:min(len(ops), q.Depth()-q.InFlight())]
	taken := 0
	for taken < len(ops) {
		q.ptrs = q.ptrs[:0]
		for _, op := range ops[taken:] {
			if q.stamp {
				op.Submitted = Now()
			}
			q.ptrs = append(q.ptrs, q.prepare(op))
		}
		n, err := ignoreEINTR(func() (int, error) {
			n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, q.ctx, uintptr(len(q.ptrs)), uintptr(unsafe.Pointer(&q.ptrs[0])))
			if errno != 0 {
				return 0, errno
			}
			return int(n), nil
		})
		runtime.KeepAlive(q.ptrs)
		rest := ops[taken+n:]
		for _, op := range rest { // not taken by the kernel
			q.slots.release(op.slot)
		}
		taken += n
		if err == nil && n > 0 {
			continue // a shorter count hides an error, which the next round meets
		}
		if errors.Is(err, unix.EAGAIN) && (q.InFlight() > 0 || taken > 0) {
			return taken, nil
		}
		// The first iocb was refused for what it says.
		rest[0].N, rest[0].Err = 0, err
		if q.stamp {
			rest[0].Completed = Now()
		}
		q.failed = append(q.failed, rest[0])
		taken++
	}
	return taken, nil
}

func (q *aioQueue) Reap(ctx context.Context, want int, done []*Op) ([]*Op, error) {
	got := len(q.failed)
	done = append(done, q.failed...)
	q.failed = q.failed[:0]
	for first := true; q.slots.used > 0 && (first || got < want); first = false {
		n, err := q.getEvents(max(0, min(want-got, q.slots.used)), ctx.Done() != nil)
		if err != nil {
			return done, fmt.Errorf("io_getevents on %s: %w", q.f.Path, err)
		}
		var now time.Duration
		if q.stamp && n > 0 {
			now = Now()
		}
		for _, ev := range q.events[:n] {
			op := q.slots.finish(ev.data)
			if op == nil {
				continue
			}
			setResult(op, ev.res)
			op.Completed = now
			done = append(done, op)
			got++
		}
		if err := ctx.Err(); err != nil && got < want {
			return done, err
		}
	}
	return done, nil
}

// setResult turns a kernel's result into an Op's.
func setResult(op *Op, res int64) {
	op.N, op.Err = int(res), nil
	if res < 0 {
		op.N, op.Err = 0, unix.Errno(-res)
	}
}

// getEvents waits for min events: for ever, or for a slice of time.
func (q *aioQueue) getEvents(min int, sliced bool) (int, error) {
	var timeout *unix.Timespec
	if sliced && min > 0 {
		ts := unix.NsecToTimespec(int64(pollSlice))
		timeout = &ts
	}
	n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, q.ctx, uintptr(min), uintptr(len(q.events)),
		uintptr(unsafe.Pointer(&q.events[0])), uintptr(unsafe.Pointer(timeout)), 0)
	if errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (q *aioQueue) InFlight() int { return q.slots.used + len(q.failed) }
func (q *aioQueue) Depth() int    { return len(q.iocbs) }
func (q *aioQueue) Strays() int   { return q.slots.strays }

func (q *aioQueue) Cancel(op *Op) error {
	if !q.slots.holds(op) {
		return ErrNotCancelable
	}
	var ev ioEvent
	_, _, errno := unix.Syscall(unix.SYS_IO_CANCEL, q.ctx, uintptr(unsafe.Pointer(&q.iocbs[op.slot])), uintptr(unsafe.Pointer(&ev)))
	switch errno {
	case 0, unix.EINPROGRESS: // under way; the event comes through the ring
		return nil
	case unix.EINVAL, unix.EAGAIN, unix.ENOSYS:
		return ErrNotCancelable
	}
	return fmt.Errorf("io_cancel on %s: %w", q.f.Path, errno)
}

func (q *aioQueue) Close() error {
	if q.ctx == 0 {
		return nil
	}
	for _, op := range q.slots.ops {
		if op != nil {
			_ = q.Cancel(op) // those that can't be are waited for
		}
	}
	_, err := q.Reap(context.Background(), q.InFlight(), nil)
	// io_destroy waits, too; by now there is nothing to wait for.
	if _, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, q.ctx, 0, 0); errno != 0 && err == nil {
		err = fmt.Errorf("io_destroy on %s: %w", q.f.Path, errno)
	}
	q.ctx = 0
	return err
}
