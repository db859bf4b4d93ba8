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
)

// iocb is struct iocb of linux/aio_abi.h, as little-endian machines have it.
type iocb struct {
	data   uint64
	_      uint32 // key
	_      uint32 // rwFlags
	opcode uint16
	_      int16 // reqprio
	fildes uint32
	buf    uint64
	nbytes uint64
	offset int64
	_      uint64 // reserved2
	_      uint32 // flags
	_      uint32 // resfd
}

// ioEvent is struct io_event.
type ioEvent struct {
	data, obj uint64
	res, res2 int64
}

const (
	iocbCmdPread  = 0
	iocbCmdPwrite = 1
)

// aioLoop submits all that is free in one io_submit(2) and takes what is done
// by io_getevents(2).
type aioLoop struct {
	job    *job
	ctx    uintptr
	iocbs  []iocb // by slot
	ptrs   []*iocb
	events []ioEvent
	begun  []time.Duration // by slot
	count  tally
}

func openAIO(j *job) (loop, error) {
	l := &aioLoop{job: j, iocbs: make([]iocb, j.depth), ptrs: make([]*iocb, 0, j.depth),
		events: make([]ioEvent, j.depth), begun: make([]time.Duration, j.depth)}
	_, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(j.depth), uintptr(unsafe.Pointer(&l.ctx)), 0)
	if errno == unix.EAGAIN {
		now, _ := os.ReadFile("/proc/sys/fs/aio-max-nr")
		return nil, fmt.Errorf("the system's limit of AIO requests is reached: raise sysctl fs.aio-max-nr (now %s)", strings.TrimSpace(string(now)))
	}
	if errno != 0 {
		return nil, fmt.Errorf("io_setup of %d requests: %w", j.depth, errno)
	}
	for i := range l.iocbs {
		cb := &l.iocbs[i]
		*cb = iocb{data: uint64(i), opcode: iocbCmdPread, fildes: uint32(j.file.FD),
			buf: uint64(base(j.mem.block(i, j.block))), nbytes: uint64(j.block)}
		if j.write {
			cb.opcode = iocbCmdPwrite
		}
	}
	return l, nil
}

// prepare puts a slot's next operation in line.
//
//go:nosplit
func (l *aioLoop) prepare(slot uint64, stamp bool) {
	cb := &l.iocbs[slot]
	cb.offset = l.job.offset.next()
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
			n, _, errno := syscall.RawSyscall(unix.SYS_IO_SUBMIT, l.ctx, uintptr(min(len(l.ptrs)-next, l.job.submit)), uintptr(unsafe.Pointer(&l.ptrs[next])))
			l.count.calls++
			if errno != 0 {
				cb := l.ptrs[next]
				return l.give(inFlight, &opError{l.job.write, l.job.block, cb.offset, errno})
			}
			next += int(n)
			inFlight += int(n)
		}
		l.ptrs = l.ptrs[:0]
		n, _, errno := syscall.RawSyscall6(unix.SYS_IO_GETEVENTS, l.ctx, uintptr(min(l.job.batch, inFlight)), uintptr(len(l.events)),
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
			if ev.data >= uint64(len(l.iocbs)) {
				return fmt.Errorf("the kernel told the completion of an operation that there isn't: %d", ev.data)
			}
			if h != nil {
				h.Record(int64(now - l.begun[ev.data]))
			}
			if ev.res == int64(l.job.block) {
				l.count.bytes += ev.res
			} else if err := l.count.check(l.job, l.iocbs[ev.data].offset, ev.res); err != nil {
				return l.give(inFlight, err)
			}
			if left > 0 {
				l.prepare(ev.data, h != nil)
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
		_, _, _ = unix.Syscall6(unix.SYS_IO_GETEVENTS, l.ctx, uintptr(inFlight), uintptr(len(l.events)),
			uintptr(unsafe.Pointer(&l.events[0])), 0, 0)
	}
	return err
}

func (l *aioLoop) tally() tally { return l.count }

func (l *aioLoop) close() error {
	if _, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, l.ctx, 0, 0); errno != 0 {
		return fmt.Errorf("io_destroy: %w", errno)
	}
	return nil
}
