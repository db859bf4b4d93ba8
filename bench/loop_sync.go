// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/engine"
)

// call makes one operation at an offset: bytes moved, or a negative errno.
type call func(offset int64) int64

// syncLoop makes one operation after the other.
type syncLoop struct {
	job   *job
	at    offsets
	call  call
	count tally
	per   int64 // system calls of each operation; a call that varies adds its own
	end   func() error

	mapped bool // call touches a mapping, which may fault
}

func (l *syncLoop) run(ops int64, h *Histogram) (err error) {
	if l.mapped {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("touching the mapping: %v", r)
			}
		}()
	}
	l.count.calls += l.per * ops
	if h == nil {
		for range ops {
			offset := l.at.next()
			if n := l.call(offset); n == int64(l.job.block) {
				l.count.bytes += n
			} else if err := l.count.check(l.job, offset, n); err != nil {
				return err
			}
		}
		return nil
	}
	for range ops {
		offset := l.at.next()
		start := engine.Now()
		n := l.call(offset)
		h.Record(int64(engine.Now() - start))
		if err := l.count.check(l.job, offset, n); err != nil {
			return err
		}
	}
	return nil
}

func (l *syncLoop) tally() tally { return l.count }

func (l *syncLoop) close() error {
	if l.end == nil {
		return nil
	}
	return l.end()
}

// threadLoop is a synchronous API kept busy by several threads.
type threadLoop struct {
	loops []*syncLoop
	hists []*Histogram
	work  []chan int64 // operations to make; negative: with the clock
	done  chan error
	wg    sync.WaitGroup
}

// maxThreads is how many threads keep a synchronous API busy at most.
const maxThreads = 256

// openSync makes the loops of a synchronous API, one a thread. Of the file
// position each thread has its own part.
func openSync(j *job, open func(j *job, buf []byte, l *syncLoop) error) (loop, error) {
	t := &threadLoop{done: make(chan error, j.depth)}
	for i := range j.depth {
		l := &syncLoop{job: j, at: j.offset, per: 1}
		l.at.begin(i, j.depth)
		l.at.state += uint64(i) * 0x9e3779b97f4a7c16 // even: the state stays odd
		if err := open(j, j.mem.block(i, j.block), l); err != nil {
			return nil, errors.Join(err, t.close())
		}
		t.loops = append(t.loops, l)
	}
	if j.depth == 1 {
		return t.loops[0], nil
	}
	for _, l := range t.loops {
		work, h := make(chan int64, 1), new(Histogram)
		t.work, t.hists = append(t.work, work), append(t.hists, h)
		t.wg.Go(func() { t.thread(l, work, h) })
	}
	return t, nil
}

func (t *threadLoop) thread(l *syncLoop, work <-chan int64, h *Histogram) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer blockSignals()()
	for ops := range work {
		if ops < 0 {
			t.done <- l.run(-ops, h)
		} else {
			t.done <- l.run(ops, nil)
		}
	}
}

func (t *threadLoop) run(ops int64, h *Histogram) error {
	n := int64(len(t.loops))
	begun := 0
	for i, work := range t.work {
		part := ops * int64(i+1) / n
		part -= ops * int64(i) / n
		if part == 0 {
			continue
		}
		if h != nil {
			part = -part
		}
		work <- part
		begun++
	}
	var errs []error
	for range begun {
		errs = append(errs, <-t.done)
	}
	if h != nil {
		for _, own := range t.hists {
			h.Merge(own)
			*own = Histogram{}
		}
	}
	return errors.Join(errs...)
}

func (t *threadLoop) tally() tally {
	var sum tally
	for _, l := range t.loops {
		sum = sum.since(tally{}.since(l.count))
	}
	return sum
}

func (t *threadLoop) close() error {
	for _, work := range t.work {
		close(work)
	}
	t.wg.Wait()
	var errs []error
	for _, l := range t.loops {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// result is a raw call's, as a loop wants it.
func result(n uintptr, errno unix.Errno) int64 {
	if errno != 0 {
		return -int64(errno)
	}
	return int64(n)
}

// openPsync is pread(2) and pwrite(2): what fio calls psync.
func openPsync(j *job) (loop, error) {
	return openSync(j, func(j *job, buf []byte, l *syncLoop) error {
		var nr uintptr = unix.SYS_PREAD64
		if j.write {
			nr = unix.SYS_PWRITE64
		}
		fd, addr, size := uintptr(j.file.FD), base(buf), uintptr(len(buf))
		l.call = func(offset int64) int64 {
			// 32-bit kernels take the offset in two halves, others ignore the second.
			n, _, errno := syscall.RawSyscall6(nr, fd, addr, size, uintptr(offset), uintptr(uint64(offset)>>32), 0)
			return result(n, errno)
		}
		return nil
	})
}

func openPreadv(j *job) (loop, error)  { return openVectored(j, unix.SYS_PREADV, unix.SYS_PWRITEV) }
func openPreadv2(j *job) (loop, error) { return openVectored(j, unix.SYS_PREADV2, unix.SYS_PWRITEV2) }

func openVectored(j *job, nr, writeNr uintptr) (loop, error) {
	if j.write {
		nr = writeNr
	}
	return openSync(j, func(j *job, buf []byte, l *syncLoop) error {
		iov := &unix.Iovec{Base: &buf[0]}
		iov.SetLen(len(buf))
		fd := uintptr(j.file.FD)
		l.call = func(offset int64) int64 {
			n, _, errno := syscall.RawSyscall6(nr, fd, uintptr(unsafe.Pointer(iov)), 1, uintptr(offset), uintptr(uint64(offset)>>32), 0)
			return result(n, errno)
		}
		return nil
	})
}

// openSplice moves blocks through a pipe that holds one: splice(2) between
// file and pipe, read(2) or write(2) between pipe and buffer.
func openSplice(j *job) (loop, error) {
	return openSync(j, func(j *job, buf []byte, l *syncLoop) error {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("make a pipe: %w", err)
		}
		l.end = func() error { return errors.Join(unix.Close(p[0]), unix.Close(p[1])) }
		// A write at an odd place of a page takes one slot more.
		if n, err := unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, len(buf)+unix.Getpagesize()); err != nil || n < len(buf) {
			return fmt.Errorf("a pipe can't hold a block of %d bytes: %w (sysctl fs.pipe-max-size)", len(buf), err)
		}
		s := &splicer{fd: uintptr(j.file.FD), r: uintptr(p[0]), w: uintptr(p[1]), addr: base(buf), size: uintptr(len(buf)), calls: &l.count.calls}
		l.per, l.call = 0, s.read
		if j.write {
			l.call = s.write
		}
		return nil
	})
}

type splicer struct {
	fd, r, w, addr, size uintptr
	offset               int64 // the kernel reads and writes it
	calls                *int64
}

func (s *splicer) read(offset int64) int64 {
	s.offset = offset
	for done := uintptr(0); done < s.size; {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, s.fd, uintptr(unsafe.Pointer(&s.offset)), s.w, 0, s.size-done, 0)
		*s.calls++
		if errno != 0 || n == 0 {
			return ended(done, errno)
		}
		for n > 0 {
			m, _, errno := syscall.RawSyscall(unix.SYS_READ, s.r, s.addr+done, n)
			*s.calls++
			if errno != 0 {
				return ended(done, errno)
			}
			done += m
			n -= m
		}
	}
	return int64(s.size)
}

func (s *splicer) write(offset int64) int64 {
	s.offset = offset
	for done := uintptr(0); done < s.size; {
		n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, s.w, s.addr+done, s.size-done)
		*s.calls++
		if errno != 0 {
			return ended(done, errno)
		}
		for n > 0 {
			m, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, s.r, 0, s.fd, uintptr(unsafe.Pointer(&s.offset)), n, 0)
			*s.calls++
			if errno != 0 || m == 0 {
				return -int64(max(errno, unix.Errno(1)))
			}
			done += m
			n -= m
		}
	}
	return int64(s.size)
}

// ended is the result of an operation that stopped after done bytes.
func ended(done uintptr, errno unix.Errno) int64 {
	if done > 0 {
		return int64(done)
	}
	return -int64(errno)
}
