// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// maxWindow is how much of a file is mapped at a time: all of any real one
// where addresses have 64 bits.
var maxWindow = func() int64 {
	if bits.UintSize == 32 {
		return 64 << 20
	}
	return 1 << 44
}()

// ErrBusFault is an mmap operation's error when touching the mapping raised
// SIGBUS: the file ends before, or its backing store couldn't give a page.
var ErrBusFault = errors.New("the mapping gave SIGBUS: the file ends before, or no memory or space is left behind it")

func openMmap(f *File, o Options) (Queue, error) {
	if !f.Read {
		return nil, f.unavailable("mmap", unix.EACCES, "a mapping needs the file open for reading, too")
	}
	if f.Size < 0 {
		return nil, f.unavailable("mmap", unix.ENODEV, "it has no size")
	}
	if f.Size > 0 || f.Kind == Regular { // beyond the end will do, and a file of procfs has no size
		m, err := unix.Mmap(f.FD, 0, 1, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, f.unavailable("mmap", err, "the %s can't be mapped: %v", f.Kind, err)
		}
		unix.Munmap(m)
	}
	return openSync(o, func() (executor, error) { return &mmapExec{f: f, max: maxWindow}, nil })
}

// mmapExec copies between buffers and a window on the file, which it moves
// when an operation falls outside of it.
type mmapExec struct {
	f     *File
	max   int64
	win   []byte
	start int64 // the window's place in the file, bytes, a multiple of the page size
}

func (m *mmapExec) run(op *Op) (int, error) {
	if op.Kind == Sync {
		if len(m.win) > 0 && m.f.Write {
			if err := unix.Msync(m.win, unix.MS_SYNC); err != nil {
				return 0, err
			}
		}
		return 0, m.f.fsync() // the parts that other windows wrote
	}
	if op.Flags != 0 {
		return 0, errFlags
	}
	if op.Kind == Write && !m.f.Write {
		return 0, unix.EBADF
	}
	size, err := m.size(op)
	if err != nil {
		return 0, err
	}
	want := min(int64(len(op.Buf)), size-op.Offset)
	if want <= 0 {
		if op.Kind == Write && len(op.Buf) > 0 {
			return 0, unix.ENOSPC
		}
		return 0, nil
	}
	done := int64(0)
	for done < want {
		if err := m.move(op.Offset+done, size); err != nil {
			return int(done), err
		}
		at := op.Offset + done - m.start
		n := min(want-done, int64(len(m.win))-at)
		if err := copyMapped(op, int(done), m.win[at:at+n]); err != nil {
			return int(done), err
		}
		done += n
	}
	return int(done), nil
}

// size is the file's size now; writing grows a regular file first, for a
// mapping can't.
func (m *mmapExec) size(op *Op) (int64, error) {
	if m.f.Kind != Regular {
		return m.f.Size, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(m.f.FD, &st); err != nil {
		return 0, err
	}
	end := op.Offset + int64(len(op.Buf))
	if op.Kind == Read || end <= st.Size {
		return st.Size, nil
	}
	// Another thread of this queue may have grown it further meanwhile, and
	// ftruncate would cut that off: fallocate only ever grows. Where the file
	// system has no fallocate, writing the last byte does the same.
	_, err := ignoreEINTR(func() (int, error) { return 0, unix.Fallocate(m.f.FD, 0, st.Size, end-st.Size) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = unix.Pwrite(m.f.FD, []byte{op.Buf[len(op.Buf)-1]}, end-1)
	}
	return end, err
}

// move makes the window hold the byte at off of a file of the given size.
func (m *mmapExec) move(off, size int64) error {
	if off >= m.start && off < m.start+int64(len(m.win)) {
		return nil
	}
	if err := m.close(); err != nil {
		return err
	}
	start := int64(0)
	if size > m.max {
		start = off / m.max * m.max
	}
	prot := unix.PROT_READ
	if m.f.Write {
		prot |= unix.PROT_WRITE
	}
	win, err := unix.Mmap(m.f.FD, start, int(min(m.max, size-start)), prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map bytes %d to %d: %w", start, start+min(m.max, size-start), err)
	}
	m.win, m.start = win, start
	return nil
}

// copyMapped copies between op's buffer at done and mapped memory. A fault
// there comes as a panic that is turned into an error.
func copyMapped(op *Op, done int, mapped []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(runtime.Error); !ok {
				panic(r)
			}
			err = ErrBusFault
		}
	}()
	buf := op.Buf[done : done+len(mapped)]
	if op.Kind == Read {
		copy(buf, mapped)
	} else {
		copy(mapped, buf)
	}
	return nil
}

func (m *mmapExec) close() error {
	if m.win == nil {
		return nil
	}
	win := m.win
	m.win, m.start = nil, 0
	return unix.Munmap(win)
}
