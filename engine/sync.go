// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// executor is a synchronous API on a file: run makes one operation and waits.
// One executor serves one goroutine at a time.
type executor interface {
	run(op *Op) (n int, err error)
	close() error
}

// openSync makes a queue of a synchronous API: inline for depth 1, so that a
// measurement sees the call and nothing else; with threads above.
func openSync(o Options, newExecutor func() (executor, error)) (Queue, error) {
	if o.Depth == 1 {
		e, err := newExecutor()
		if err != nil {
			return nil, err
		}
		return &inlineQueue{exec: e, stamp: o.Timestamps}, nil
	}
	q := &threadQueue{depth: o.Depth, stamp: o.Timestamps, todo: make(chan *Op, o.Depth), done: make(chan *Op, o.Depth)}
	for range o.Depth {
		e, err := newExecutor()
		if err != nil {
			return nil, errors.Join(err, q.Close())
		}
		q.execs = append(q.execs, e)
	}
	for _, e := range q.execs {
		q.wg.Go(func() { q.work(e) })
	}
	return q, nil
}

// perform runs op and fills its results.
func perform(e executor, op *Op, stamp bool) {
	if stamp {
		op.Submitted = Now()
	}
	op.N, op.Err = e.run(op)
	if stamp {
		op.Completed = Now()
	}
}

// inlineQueue runs each operation within Submit.
type inlineQueue struct {
	exec  executor
	stamp bool
	ready *Op
}

func (q *inlineQueue) Submit(ops []*Op) (int, error) {
	if q.ready != nil || len(ops) == 0 {
		return 0, nil
	}
	perform(q.exec, ops[0], q.stamp)
	q.ready = ops[0]
	return 1, nil
}

func (q *inlineQueue) Reap(_ context.Context, _ int, done []*Op) ([]*Op, error) {
	if q.ready != nil {
		done = append(done, q.ready)
		q.ready = nil
	}
	return done, nil
}

func (q *inlineQueue) InFlight() int {
	if q.ready != nil {
		return 1
	}
	return 0
}

func (q *inlineQueue) Depth() int       { return 1 }
func (q *inlineQueue) Cancel(*Op) error { return ErrNotCancelable }
func (q *inlineQueue) Strays() int      { return 0 }
func (q *inlineQueue) Close() error     { return q.exec.close() }

// threadQueue runs operations on as many threads as it is deep.
type threadQueue struct {
	depth, inFlight int
	stamp           bool
	todo, done      chan *Op
	execs           []executor
	wg              sync.WaitGroup
	closed          bool
}

func (q *threadQueue) work(e executor) {
	for op := range q.todo {
		perform(e, op, q.stamp)
		q.done <- op
	}
}

func (q *threadQueue) Submit(ops []*Op) (int, error) {
	n := min(len(ops), q.depth-q.inFlight)
	for _, op := range ops[:n] {
		q.todo <- op // never blocks: the channel holds depth
	}
	q.inFlight += n
	return n, nil
}

func (q *threadQueue) Reap(ctx context.Context, want int, done []*Op) ([]*Op, error) {
	for got := 0; q.inFlight > 0; got++ {
		if got >= want {
			select {
			case op := <-q.done:
				done = append(done, op)
				q.inFlight--
				continue
			default:
				return done, nil
			}
		}
		select {
		case op := <-q.done:
			done = append(done, op)
			q.inFlight--
		case <-ctx.Done():
			return done, ctx.Err()
		}
	}
	return done, nil
}

func (q *threadQueue) InFlight() int    { return q.inFlight }
func (q *threadQueue) Depth() int       { return q.depth }
func (q *threadQueue) Cancel(*Op) error { return ErrNotCancelable }
func (q *threadQueue) Strays() int      { return 0 }

func (q *threadQueue) Close() error {
	if q.closed {
		return nil
	}
	q.closed = true
	close(q.todo)
	var errs []error
	for _, e := range q.execs {
		if i, ok := e.(interface{ interrupt() }); ok {
			i.interrupt()
		}
	}
	q.wg.Wait() // what was queued still runs: its buffers are in use until then
	for _, e := range q.execs {
		errs = append(errs, e.close())
	}
	return errors.Join(errs...)
}

// errFlags is an operation's error when its API can't carry flags.
var errFlags = unix.EOPNOTSUPP
