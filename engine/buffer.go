// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"context"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PoolOptions shape a Pool.
type PoolOptions struct {
	Count    int // buffers, 1 or more
	Size     int // bytes of each, 1 or more
	Misalign int // bytes past a page boundary at which each begins, 0 to a page - 1
}

// Buffer is one piece of a Pool.
type Buffer struct {
	Data  []byte // all of it; slices of it may be given to an Op
	Index int    // 0 to the pool's count - 1
}

// Pool is memory for I/O: outside Go's heap, so that the kernel may use it
// while no Go code runs; page-aligned unless asked otherwise; populated, so
// that first touches don't show up in what is measured. Get and Put may be
// called from several goroutines.
type Pool struct {
	mem  []byte
	all  []Buffer
	free chan *Buffer
}

// NewPool maps the memory; Close gives it back.
func NewPool(o PoolOptions) (*Pool, error) {
	page := unix.Getpagesize()
	if o.Count < 1 || o.Size < 1 || o.Misalign < 0 || o.Misalign >= page {
		return nil, fmt.Errorf("buffers: %d of %d bytes at %d past a page make no sense", o.Count, o.Size, o.Misalign)
	}
	if o.Size > math.MaxInt-2*page || (o.Size+o.Misalign+page-1)/page > math.MaxInt/page/o.Count {
		return nil, fmt.Errorf("buffers: %d of %d bytes are more than an address can reach", o.Count, o.Size)
	}
	stride := (o.Size + o.Misalign + page - 1) / page * page
	mem, err := unix.Mmap(-1, 0, o.Count*stride, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %d buffers of %d bytes: %w", o.Count, o.Size, err)
	}
	p := &Pool{mem: mem, all: make([]Buffer, o.Count), free: make(chan *Buffer, o.Count)}
	for i := range p.all {
		at := i*stride + o.Misalign
		p.all[i] = Buffer{Data: mem[at : at+o.Size : at+o.Size], Index: i}
		p.free <- &p.all[i]
	}
	return p, nil
}

// Get takes a free buffer, waiting for one until ctx ends.
func (p *Pool) Get(ctx context.Context) (*Buffer, error) {
	select {
	case b := <-p.free:
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TryGet takes a free buffer, or returns nil.
func (p *Pool) TryGet() *Buffer {
	select {
	case b := <-p.free:
		return b
	default:
		return nil
	}
}

// Put gives a buffer back.
func (p *Pool) Put(b *Buffer) { p.free <- b }

// contains tells whether all of b lies in the pool.
func (p *Pool) contains(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	start, at := uintptr(unsafe.Pointer(&p.mem[0])), uintptr(unsafe.Pointer(&b[0]))
	return at >= start && at+uintptr(len(b)) <= start+uintptr(len(p.mem))
}

// Close unmaps the memory. No queue may still use it: close those first. An error
// wraps munmap(2)'s errno. Closing again does nothing.
func (p *Pool) Close() error {
	if p.mem == nil {
		return nil
	}
	mem := p.mem
	p.mem, p.all = nil, nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap the buffers: %w", err)
	}
	return nil
}

// base is the address of b's first byte, or 0.
func base(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
