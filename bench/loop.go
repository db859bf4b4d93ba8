// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/engine"
)

// loop keeps an API busy on a file. The loops here make the system calls
// themselves, with nothing in between that could be left out: what the engine
// package does for its callers (contexts, wake-ups of Go's scheduler, a check
// of every completion) costs as much as a fast driver does, and isn't what is
// to be measured. They run on a locked thread, with signals blocked, and
// allocate nothing. What they call each time is nosplit: where a function looks
// at its stack, Go's scheduler may step in, every 10 ms. They use syscall, not
// x/sys, for the latter's way to the same call is 30 instructions longer.
type loop interface {
	// run makes so many operations and waits for all of them. With h it looks
	// at the clock around each.
	run(ops int64, h *Histogram) error
	tally() tally
	close() error
}

// tally is what a loop counted since it was opened.
type tally struct {
	calls int64 // system calls, each counted where it is made
	bytes int64 // moved
	short int64 // operations that moved less than a block
}

func (t tally) since(o tally) tally {
	return tally{t.calls - o.calls, t.bytes - o.bytes, t.short - o.short}
}

// job is what a loop is to do.
type job struct {
	file   *engine.File
	write  bool
	block  int
	depth  int
	batch  int // completions to wait for at a time, 1 to depth
	submit int // operations to hand over at a time, 1 or more
	offset offsets
	mem    *memory
}

// opError is an operation that failed.
type opError struct {
	write  bool
	block  int
	offset int64
	err    error
}

func (e *opError) Error() string {
	what := "read"
	if e.write {
		what = "write"
	}
	return fmt.Sprintf("a %s of %d bytes at %d: %v", what, e.block, e.offset, e.err)
}

func (e *opError) Unwrap() error { return e.err }

var errNothing = fmt.Errorf("it moved nothing (is this the end?)")

// check turns an operation's result into an error, or counts it.
func (t *tally) check(j *job, offset, n int64) error {
	if n == int64(j.block) {
		t.bytes += n
		return nil
	}
	if n <= 0 {
		err := errNothing
		if n < 0 {
			err = unix.Errno(-n)
		}
		return &opError{j.write, j.block, offset, err}
	}
	t.bytes += n
	t.short++
	return nil
}

// memory is a block for each operation in flight, page by page apart.
type memory struct {
	all    []byte
	from   int // the first block's place
	stride int
	Huge   int64 // bytes that lie in huge pages
}

// hugePage is the size of a huge page where it matters; others are only
// slower.
const hugePage = 2 << 20

// newMemory maps and populates blocks; huge asks for huge pages.
func newMemory(count, block int, huge bool) (*memory, error) {
	page := unix.Getpagesize()
	m := &memory{stride: (block + page - 1) / page * page}
	size := count * m.stride
	if size/count != m.stride {
		return nil, fmt.Errorf("%d blocks of %d bytes are more than memory can hold", count, block)
	}
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	if huge {
		size = (size+hugePage-1)/hugePage*hugePage + hugePage
	} else {
		flags |= unix.MAP_POPULATE
	}
	var err error
	if m.all, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
		return nil, fmt.Errorf("map %d bytes for buffers: %w", size, err)
	}
	if huge {
		if err := m.makeHuge(); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

func (m *memory) makeHuge() error {
	start := uintptr(unsafe.Pointer(&m.all[0]))
	m.from = int((hugePage - start%hugePage) % hugePage)
	part := m.all[m.from : len(m.all)-hugePage+m.from]
	if err := unix.Madvise(part, unix.MADV_HUGEPAGE); err != nil {
		return fmt.Errorf("ask for huge pages: %w (is CONFIG_TRANSPARENT_HUGEPAGE on?)", err)
	}
	for i := 0; i < len(part); i += unix.Getpagesize() {
		part[i] = 1
	}
	m.Huge = hugeBytes(uintptr(unsafe.Pointer(&part[0])))
	return nil
}

// block is the i-th buffer.
func (m *memory) block(i, size int) []byte {
	at := m.from + i*m.stride
	return m.all[at : at+size : at+size]
}

func (m *memory) close() error { return unix.Munmap(m.all) }

// base is the address of b's first byte.
func base(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
