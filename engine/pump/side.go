// SPDX-License-Identifier: GPL-2.0-only

package pump

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dio/engine"
)

// piece is a block of one side, from its first submission until all of it is
// moved. Its operation may have to be submitted several times.
type piece struct {
	op   engine.Op
	buf  *engine.Buffer
	rel  int64 // its place in the copy
	want int   // bytes to move
	got  int   // bytes moved
	from int   // where in the block the running operation begins
}

// side drives one end of a copy. It belongs to one goroutine.
type side struct {
	end    End
	kind   engine.Kind
	name   string // the engine's, for errors
	q      engine.Queue
	plain  engine.Queue // on end.Plain, opened at need
	counts *Counts

	limit   int          // operations in flight; lowered when the kernel says EAGAIN, and raised again
	moved   int          // operations that moved bytes since limit was as it is
	pending []*engine.Op // to be submitted
	tails   []*piece     // for the plain file, once nothing is in flight
	done    []*engine.Op
	stuck   time.Time // since when nothing but EAGAIN has come
}

// maxStuck is how long EAGAIN is taken for an answer.
const maxStuck = 30 * time.Second

func openSide(end End, kind engine.Kind, o Options, pool *engine.Pool, counts *Counts) (*side, error) {
	s := &side{end: end, kind: kind, name: end.Engine, counts: counts}
	if end.File.Kind == engine.Stream {
		s.name = kind.String()
	}
	open := o.open
	if open == nil {
		open = openQueue
	}
	var err error
	if s.q, err = open(end, kind, engine.Options{Depth: o.Depth, Pool: pool}); err != nil {
		return nil, err
	}
	s.limit = s.q.Depth()
	return s, nil
}

func openQueue(end End, _ engine.Kind, o engine.Options) (engine.Queue, error) {
	if end.File.Kind == engine.Stream {
		return engine.OpenStream(end.File)
	}
	return engine.Open(end.Engine, end.File, o)
}

func (s *side) close() error {
	err := s.q.Close()
	s.counts.Strays = s.q.Strays()
	if s.plain != nil {
		err = errors.Join(err, s.plain.Close())
	}
	return err
}

// room tells how many more pieces may be begun.
func (s *side) room() int {
	if len(s.tails) > 0 {
		return 0
	}
	return s.limit - s.q.InFlight() - len(s.pending)
}

func (s *side) busy() bool { return s.q.InFlight()+len(s.pending)+len(s.tails) > 0 }

// begin queues what is left of p.
func (s *side) begin(p *piece) {
	f := s.end.File
	p.from = p.got
	length := p.want - p.got
	direct := f.Direct && f.Kind != engine.Stream && directMatters(s.name)
	if direct {
		// What came in an odd length goes on from the last place that
		// O_DIRECT can begin at.
		if odd := int((s.end.Offset + p.rel + int64(p.got)) % int64(f.OffsetAlign)); odd <= p.got {
			p.from -= odd
		}
		length = p.want - p.from
		switch whole := length / f.OffsetAlign * f.OffsetAlign; {
		case s.kind == engine.Read:
			length = (length + f.OffsetAlign - 1) / f.OffsetAlign * f.OffsetAlign
		case whole > p.got-p.from && s.end.Plain != nil:
			length = whole // the odd rest comes by itself
		}
	}
	p.op = engine.Op{Kind: s.kind, Buf: p.buf.Data[p.from : p.from+length], Offset: s.end.Offset + p.rel + int64(p.from), User: p}
	if direct && !f.Aligned(p.op.Buf, p.op.Offset) {
		s.tails = append(s.tails, p)
		return
	}
	s.pending = append(s.pending, &p.op)
}

// directMatters tells whether an engine heeds O_DIRECT.
func directMatters(name string) bool {
	e, err := engine.Lookup(name)
	return err == nil && (e.Access == engine.FollowsFlag || e.Access == engine.NeedsDirect)
}

// runPlain moves p's rest through the plain file. Nothing else may be in
// flight: a write through the page cache beside a direct one to the same page
// could bring old bytes back.
func (s *side) runPlain(ctx context.Context, p *piece) error {
	if s.end.Plain == nil {
		return s.fail(&p.op, fmt.Errorf("O_DIRECT needs offsets and lengths that are multiples of %d: %w",
			s.end.File.OffsetAlign, unix.EINVAL))
	}
	if s.plain == nil {
		q, err := engine.Open("preadv", s.end.Plain, engine.Options{})
		if err != nil {
			return err
		}
		s.plain = q
	}
	for {
		p.from = p.got
		p.op.Buf, p.op.Offset = p.buf.Data[p.got:p.want], s.end.Offset+p.rel+int64(p.got)
		if _, err := s.plain.Submit([]*engine.Op{&p.op}); err != nil {
			return err
		}
		if _, err := s.plain.Reap(ctx, 1, nil); err != nil {
			return err
		}
		s.counts.Plain += int64(p.op.N)
		complete, again, err := s.finish(p)
		if complete || err != nil {
			return err
		}
		if again && !s.pause(ctx) {
			return s.fail(&p.op, unix.EAGAIN)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// step hands the kernel what is pending, waits for a completion, and calls
// complete for each piece that is all moved. Others are begun again.
func (s *side) step(ctx context.Context, complete func(*piece)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n := min(len(s.pending), s.limit-s.q.InFlight()); n > 0 {
		n, err := s.q.Submit(s.pending[:n])
		s.pending = append(s.pending[:0], s.pending[n:]...)
		if err != nil {
			return err
		}
	}
	if s.q.InFlight() == 0 {
		return s.runTails(ctx, complete)
	}
	var reapErr error
	s.done, reapErr = s.q.Reap(ctx, 1, s.done[:0])
	again := 0
	for _, op := range s.done {
		p := op.User.(*piece)
		if op.N > 0 {
			s.moved++
		}
		all, eagain, err := s.finish(p)
		switch {
		case err != nil:
			return err
		case eagain:
			again++
			s.pending = append(s.pending, op)
		case all:
			complete(p)
		default:
			s.begin(p)
		}
	}
	if reapErr != nil {
		return reapErr
	}
	if again > 0 {
		// The device takes no more than what is in flight now.
		s.limit, s.moved = max(1, s.q.InFlight()), 0
		if s.q.InFlight() == 0 && !s.pause(ctx) {
			return s.fail(s.pending[0], unix.EAGAIN)
		}
	} else if s.moved >= 4*s.limit && s.limit < s.q.Depth() {
		// Who else used it may have left. Where nobody did, asking costs one
		// EAGAIN in so many operations.
		s.limit, s.moved = s.limit+1, 0
	}
	return nil
}

func (s *side) runTails(ctx context.Context, complete func(*piece)) error {
	for _, p := range s.tails {
		if err := s.runPlain(ctx, p); err != nil {
			return err
		}
		complete(p)
	}
	s.tails = s.tails[:0]
	return nil
}

// pause waits a little for others to leave room; false: it was enough.
func (s *side) pause(ctx context.Context) bool {
	if s.stuck.IsZero() {
		s.stuck = time.Now()
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Millisecond):
	}
	return time.Since(s.stuck) < maxStuck
}

// finish takes an operation's result into its piece.
func (s *side) finish(p *piece) (complete, again bool, err error) {
	op := &p.op
	s.counts.Ops++
	if op.N > 0 {
		s.stuck = time.Time{}
	}
	before := p.got
	p.got = max(p.got, min(p.want, p.from+op.N))
	switch {
	case op.Err != nil && errors.Is(op.Err, unix.EAGAIN) && p.got == before:
		s.counts.Retried++
		return false, true, nil
	case op.Err != nil && errors.Is(op.Err, unix.EAGAIN) && p.got < p.want:
		// A part was moved before: what is left begins anew.
		s.counts.Resumed++
		return false, false, nil
	case op.Err != nil:
		return false, false, s.fail(op, op.Err)
	case p.got == p.want:
		return true, false, nil
	case p.got > before:
		s.counts.Resumed++
		return false, false, nil
	case s.kind == engine.Read:
		return true, false, nil // the end
	}
	return false, false, s.fail(op, errors.New("the kernel took nothing and told no error"))
}

func (s *side) fail(op *engine.Op, err error) error {
	return &OpError{Engine: s.name, Path: s.end.File.Path, Kind: op.Kind, Offset: op.Offset, Length: len(op.Buf), Err: err}
}

// sync makes what was written durable.
func (s *side) sync(ctx context.Context) error {
	op := &engine.Op{Kind: engine.Sync}
	if _, err := s.q.Submit([]*engine.Op{op}); err != nil {
		return err
	}
	if _, err := s.q.Reap(ctx, 1, nil); err != nil {
		return err
	}
	if op.Err != nil {
		return s.fail(op, op.Err)
	}
	return nil
}
