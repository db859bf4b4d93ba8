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

	"dio/engine/aio"
)

// pollSlice is how often a wait looks at its context.
const pollSlice = 50 * time.Millisecond

// aioQueue is native AIO.
type aioQueue struct {
	f      *File
	ctx    aio.Context
	stamp  bool
	slots  slots
	iocbs  []aio.IOCB // by slot
	ptrs   []*aio.IOCB
	events []aio.Event
	failed []*Op // refused by io_submit, to be reaped
}

func openAIO(f *File, o Options) (Queue, error) {
	q := &aioQueue{f: f, stamp: o.Timestamps, slots: newSlots(o.Depth), iocbs: make([]aio.IOCB, o.Depth),
		ptrs: make([]*aio.IOCB, 0, o.Depth), events: make([]aio.Event, o.Depth)}
	var err error
	switch q.ctx, err = aio.Setup(o.Depth); err {
	case nil:
		return q, nil
	case unix.ENOSYS:
		return nil, f.unavailable("aio", err, "this kernel was built without native AIO (CONFIG_AIO)")
	case unix.EAGAIN:
		return nil, f.unavailable("aio", err, "the system's limit of AIO requests is reached: raise sysctl fs.aio-max-nr (now %s)",
			sysctl("fs/aio-max-nr"))
	}
	return nil, f.unavailable("aio", err, "io_setup of %d requests: %v", o.Depth, err)
}

// sysctl reads a value below /proc/sys for an error message.
func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func (q *aioQueue) prepare(op *Op) *aio.IOCB {
	slot := q.slots.take(op)
	cb := &q.iocbs[slot]
	*cb = aio.IOCB{Data: q.slots.ticket(slot), FD: uint32(q.f.FD), RWFlags: uint32(op.Flags)}
	switch op.Kind {
	case Sync:
		cb.Opcode, cb.RWFlags = aio.CmdFsync, 0
		return cb
	case Write:
		cb.Opcode = aio.CmdPwrite
	default:
		cb.Opcode = aio.CmdPread
	}
	cb.Buf, cb.Bytes, cb.Offset = uint64(base(op.Buf)), uint64(len(op.Buf)), op.Offset
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
			n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, uintptr(q.ctx), uintptr(len(q.ptrs)), uintptr(unsafe.Pointer(&q.ptrs[0])))
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
			op := q.slots.finish(ev.Data)
			if op == nil {
				continue
			}
			setResult(op, ev.Res)
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
	n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, uintptr(q.ctx), uintptr(min), uintptr(len(q.events)),
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
	var ev aio.Event
	_, _, errno := unix.Syscall(unix.SYS_IO_CANCEL, uintptr(q.ctx), uintptr(unsafe.Pointer(&q.iocbs[op.slot])), uintptr(unsafe.Pointer(&ev)))
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
	if e := q.ctx.Destroy(); e != nil && err == nil {
		err = fmt.Errorf("io_destroy on %s: %w", q.f.Path, e)
	}
	q.ctx = 0
	return err
}
