// SPDX-License-Identifier: GPL-2.0-only

package pump

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"dio/engine"
)

// opening holds the stages until each has its engine.
type opening struct {
	mu    sync.Mutex
	left  int
	ready func() error // Options'
	all   chan struct{}
}

// arrive waits for the other stages. The last one's call makes ready.
func (o *opening) arrive(ctx context.Context) error {
	o.mu.Lock()
	o.left--
	last := o.left == 0
	o.mu.Unlock()
	if last {
		if o.ready != nil {
			if err := o.ready(); err != nil {
				return err
			}
		}
		close(o.all)
	}
	select {
	case <-o.all:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// runReader reads the source and sends its blocks in order.
func runReader(ctx context.Context, end End, o Options, first int, pool *engine.Pool, opened *opening, out chan<- block, counts *Counts) (err error) {
	s, err := openSide(end, engine.Read, o, pool, counts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := opened.arrive(ctx); err != nil {
		return err
	}

	next := int64(0)           // where the next piece begins
	sent := int64(0)           // what was sent on
	ended := false             // a piece came back short
	early := map[int64]block{} // done before those in front of them
	size := first

	// The channel holds all buffers there are: sending never blocks.
	complete := func(p *piece) {
		ended = ended || p.got < p.want
		early[p.rel] = block{p.buf, p.rel, p.got}
		for {
			b, ok := early[sent]
			if !ok {
				return
			}
			delete(early, sent)
			if b.n == 0 {
				pool.Put(b.buf)
				return
			}
			sent += int64(b.n)
			out <- b
		}
	}
	more := func() bool { return !ended && (o.Length < 0 || next < o.Length) }
	begin := func(buf *engine.Buffer) {
		p := &piece{buf: buf, rel: next, want: size}
		if o.Length >= 0 {
			p.want = int(min(int64(size), o.Length-next))
		}
		next += int64(p.want)
		size = o.BlockSize
		s.begin(p)
	}
	for more() || s.busy() {
		for more() && s.room() > 0 {
			buf := pool.TryGet()
			if buf == nil && !s.busy() {
				if buf, err = pool.Get(ctx); err != nil {
					return err
				}
			}
			if buf == nil {
				break
			}
			begin(buf)
		}
		if err := s.step(ctx, complete); err != nil {
			return err
		}
	}
	if o.Length >= 0 && sent < o.Length {
		return fmt.Errorf("%s: %w: after %d of %d bytes", end.File.Path, ErrShortSource, sent, o.Length)
	}
	return nil
}

// runWriter writes the blocks that come.
func runWriter(ctx context.Context, end End, o Options, pool *engine.Pool, opened *opening, in <-chan block, counts *Counts, bytes *int64) (err error) {
	s, err := openSide(end, engine.Write, o, pool, counts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := opened.arrive(ctx); err != nil {
		return err
	}

	complete := func(p *piece) {
		*bytes += int64(p.got)
		pool.Put(p.buf)
		if o.Progress != nil {
			o.Progress(*bytes)
		}
	}
	open := true
	for open || s.busy() {
		for open && s.room() > 0 {
			b, got := block{}, false
			b, got, open = receive(ctx, in, !s.busy())
			if !got {
				break
			}
			s.begin(&piece{buf: b.buf, rel: b.rel, want: b.n})
		}
		if err := s.step(ctx, complete); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil // the cause is told by whoever cancelled
		}
	}
	if o.Sync {
		return s.sync(ctx)
	}
	return nil
}

// receive takes a block, waiting for one if told to. open: more may come.
func receive(ctx context.Context, in <-chan block, wait bool) (b block, got, open bool) {
	if !wait {
		select {
		case b, open = <-in:
			return b, open, open
		default:
			return b, false, true
		}
	}
	select {
	case b, open = <-in:
		return b, open, open
	case <-ctx.Done():
		return b, false, false
	}
}
