// SPDX-License-Identifier: GPL-2.0-only

// Package pump copies a stretch of bytes from one file to another, each
// through an engine of its own, with many operations in flight on both sides.
//
// A reader, a hasher and a writer run side by side. Blocks leave the reader in
// order, whatever the order in which their reads completed, so that a hash or
// a stream gets them right; writes may complete in any order again.
package pump

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dio/engine"
)

// End is one side of a copy.
type End struct {
	File   *engine.File
	Engine string // ignored for streams
	Offset int64  // bytes, where the copy begins; ignored for streams

	// Plain is the same file opened without O_DIRECT. What O_DIRECT can't
	// carry goes through it; nil: such a part is an error.
	Plain *engine.File
}

// Options shape a copy.
type Options struct {
	Length    int64               // bytes; -1: to the end of the source
	BlockSize int                 // bytes of an operation, 1 or more
	Depth     int                 // operations in flight on each side, 1 or more
	Hash      hash.Hash           // gets the copy's bytes in order, from one goroutine; nil: none
	Sync      bool                // make the target durable at the end
	Ready     func() error        // called once, when memory and engines are had and before anything is moved; nil: nothing is
	Progress  func(written int64) // called after each block, from one goroutine

	open func(End, engine.Kind, engine.Options) (engine.Queue, error) // nil: openQueue; tests put theirs
}

// Counts are one side's work.
type Counts struct {
	Ops     int64 `json:"ops"`         // operations completed
	Resumed int64 `json:"resumed"`     // operations that moved less than asked and were continued
	Retried int64 `json:"retried"`     // operations that were told EAGAIN and repeated
	Plain   int64 `json:"plain_bytes"` // bytes that O_DIRECT couldn't carry
	Strays  int   `json:"strays"`      // completions of what wasn't in flight
}

// Result is what a copy did, complete or not.
type Result struct {
	Bytes    int64 // written; without a target: read
	Read     Counts
	Write    Counts
	Duration time.Duration
}

// OpError is an operation that failed.
type OpError struct {
	Engine, Path string
	Kind         engine.Kind
	Offset       int64 // bytes
	Length       int   // bytes
	Err          error
}

func (e *OpError) Error() string {
	if e.Kind == engine.Sync {
		return fmt.Sprintf("sync %s through %s: %v", e.Path, e.Engine, errText(e.Err))
	}
	return fmt.Sprintf("%s %d bytes at %d of %s through %s: %v", e.Kind, e.Length, e.Offset, e.Path, e.Engine, errText(e.Err))
}

func (e *OpError) Unwrap() error { return e.Err }

// eiocbqueued is the kernel's own "the completion comes later". It has no
// business in user space.
const eiocbqueued = unix.Errno(529)

func errText(err error) string {
	if errors.Is(err, eiocbqueued) {
		return "EIOCBQUEUED (529) leaked to user space: the driver queued a synchronous request"
	}
	return err.Error()
}

// ErrShortSource says that the source ended before Length bytes.
var ErrShortSource = errors.New("the source ended early")

// block is a filled buffer on its way to the target.
type block struct {
	buf *engine.Buffer
	rel int64 // its place in the copy
	n   int
}

// Run copies from src to dst, or only reads (and hashes) when dst is nil. It
// returns when nothing is in flight any more. Files stay open.
func Run(ctx context.Context, src End, dst *End, o Options) (Result, error) {
	if o.BlockSize < 1 || o.Depth < 1 {
		return Result{}, fmt.Errorf("copy: blocks of %d bytes, %d in flight, make no sense", o.BlockSize, o.Depth)
	}
	align := src.File.OffsetAlign
	if dst != nil {
		align = max(align, dst.File.OffsetAlign)
	}
	// Each side may keep depth buffers; a direct read of the last, odd bytes
	// asks for a whole unit.
	pool, err := engine.NewPool(engine.PoolOptions{Count: 2 * o.Depth, Size: (o.BlockSize + align - 1) / align * align})
	if err != nil {
		return Result{}, err
	}
	defer pool.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var res Result
	var wg sync.WaitGroup
	stage := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				cancel(err)
			}
		})
	}
	opened := &opening{left: 1, ready: o.Ready, all: make(chan struct{})}
	if dst != nil {
		opened.left++
	}
	start := time.Now()
	read := make(chan block, 2*o.Depth)
	stage(func() error {
		defer close(read)
		return runReader(ctx, src, o, firstBlock(src, dst, o.BlockSize), pool, opened, read, &res.Read)
	})
	ready := read
	if o.Hash != nil {
		ready = make(chan block, 2*o.Depth)
		stage(func() error {
			defer close(ready)
			return forward(ctx, read, ready, o.Hash)
		})
	}
	stage(func() error {
		if dst == nil {
			return discard(ctx, ready, pool, o, &res.Bytes)
		}
		return runWriter(ctx, *dst, o, pool, opened, ready, &res.Write, &res.Bytes)
	})
	wg.Wait()
	res.Duration = time.Since(start)
	err = context.Cause(ctx)
	if n := res.Read.Strays + res.Write.Strays; err == nil && n > 0 {
		err = fmt.Errorf("%d completions came for operations that weren't in flight: a driver completes twice", n)
	}
	return res, err
}

// firstBlock is the length of the first block: shorter than the others when
// that brings all later ones to where O_DIRECT can carry them.
func firstBlock(src End, dst *End, size int) int {
	for _, e := range []*End{dst, &src} {
		if e == nil || !e.File.Direct || e.Plain == nil {
			continue
		}
		if odd := int(e.Offset % int64(e.File.OffsetAlign)); odd != 0 {
			return min(size, e.File.OffsetAlign-odd)
		}
	}
	return size
}

// forward hashes what passes.
func forward(ctx context.Context, in <-chan block, out chan<- block, h hash.Hash) error {
	for b := range in {
		_, _ = h.Write(b.buf.Data[:b.n])
		select {
		case out <- b:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// discard is the writer of a copy without a target.
func discard(ctx context.Context, in <-chan block, pool *engine.Pool, o Options, bytes *int64) error {
	for b := range in {
		*bytes += int64(b.n)
		pool.Put(b.buf)
		if o.Progress != nil {
			o.Progress(*bytes)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}
