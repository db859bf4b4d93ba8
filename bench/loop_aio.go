// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/engine/aio"
)

// aioLoop submits all that is free in one io_submit(2) and takes what is done
// by io_getevents(2).
type aioLoop struct {
	job    *job
	ctx    aio.Context
	iocbs  []aio.IOCB // by slot
	ptrs   []*aio.IOCB
	events []aio.Event
	begun  []time.Duration // by slot
	count  tally
}

func openAIO(j *job) (loop, error) {
	l := &aioLoop{job: j, iocbs: make([]aio.IOCB, j.depth), ptrs: make([]*aio.IOCB, 0, j.depth),
		events: make([]aio.Event, j.depth), begun: make([]time.Duration, j.depth)}
	var err error
	switch l.ctx, err = aio.Setup(j.depth); err {
	case nil:
	case unix.EAGAIN:
		now, _ := os.ReadFile("/proc/sys/fs/aio-max-nr")
		return nil, fmt.Errorf("the system's limit of AIO requests is reached: raise sysctl fs.aio-max-nr (now %s)", strings.TrimSpace(string(now)))
	default:
		return nil, fmt.Errorf("io_setup of %d requests: %w", j.depth, err)
	}
	for i := range l.iocbs {
		cb := &l.iocbs[i]
		*cb = aio.IOCB{Data: uint64(i), Opcode: aio.CmdPread, FD: uint32(j.file.FD),
			Buf: uint64(base(j.mem.block(i, j.block))), Bytes: uint64(j.block)}
		if j.write {
			cb.Opcode = aio.CmdPwrite
		}
	}
	return l, nil
}

// prepare puts a slot's next operation in line.
//
//go:nosplit
func (l *aioLoop) prepare(slot uint64, stamp bool) {
	cb := &l.iocbs[slot]
	cb.Offset = l.job.offset.next()
	if stamp {
		l.begun[slot] = engine.Now()
	}
	l.ptrs = append(l.ptrs, cb)
}

func (l *aioLoop) run(ops int64, h *Histogram) error {
	l.ptrs = l.ptrs[:0]
	left := ops
	for i := 0; i < len(l.iocbs) && left > 0; i++ {
		l.prepare(uint64(i), h != nil)
		left--
	}
	inFlight := 0
	for len(l.ptrs) > 0 || inFlight > 0 {
		for next := 0; next < len(l.ptrs); {
			n, _, errno := syscall.RawSyscall(unix.SYS_IO_SUBMIT, uintptr(l.ctx), uintptr(min(len(l.ptrs)-next, l.job.submit)), uintptr(unsafe.Pointer(&l.ptrs[next])))
			l.count.calls++
			if errno != 0 {
				cb := l.ptrs[next]
				return l.give(inFlight, &opError{l.job.write, l.job.block, cb.Offset, errno})
			}
			next += int(n)
			inFlight += int(n)
		}
		l.ptrs = l.ptrs[:0]
		n, _, errno := syscall.RawSyscall6(unix.SYS_IO_GETEVENTS, uintptr(l.ctx), uintptr(min(l.job.batch, inFlight)), uintptr(len(l.events)),
			uintptr(unsafe.Pointer(&l.events[0])), 0, 0)
		l.count.calls++
		if errno != 0 {
			return fmt.Errorf("io_getevents: %w", errno)
		}
		inFlight -= int(n)
		var now time.Duration
		if h != nil {
			now = engine.Now()
		}
		for i := range l.events[:n] {
			ev := &l.events[i]
			if ev.Data >= uint64(len(l.iocbs)) {
				return fmt.Errorf("the kernel told the completion of an operation that there isn't: %d", ev.Data)
			}
			if h != nil {
				h.Record(int64(now - l.begun[ev.Data]))
			}
			if ev.Res == int64(l.job.block) {
				l.count.bytes += ev.Res
			} else if err := l.count.check(l.job, l.iocbs[ev.Data].Offset, ev.Res); err != nil {
				return l.give(inFlight, err)
			}
			if left > 0 {
				l.prepare(ev.Data, h != nil)
				left--
			}
		}
	}
	runtime.KeepAlive(l.iocbs)
	return nil
}

// give waits for what is in flight, for its memory is about to go.
func (l *aioLoop) give(inFlight int, err error) error {
	if inFlight > 0 {
		_, _, _ = unix.Syscall6(unix.SYS_IO_GETEVENTS, uintptr(l.ctx), uintptr(inFlight), uintptr(len(l.events)),
			uintptr(unsafe.Pointer(&l.events[0])), 0, 0)
	}
	return err
}

func (l *aioLoop) tally() tally { return l.count }

func (l *aioLoop) close() error {
	if err := l.ctx.Destroy(); err != nil {
		return fmt.Errorf("io_destroy: %w", err)
	}
	return nil
}
