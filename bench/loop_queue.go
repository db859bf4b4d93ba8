// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"context"

	"dio/engine"
)

// queueLoop drives any engine through its Queue: what the engine package does
// around the calls is measured with them. System calls are counted by the
// kernel where it lets us.
type queueLoop struct {
	job   *job
	pool  *engine.Pool
	queue engine.Queue
	ops   []engine.Op
	free  []*engine.Op
	done  []*engine.Op
	count tally
	calls callCounter
}

// openQueue opens an engine that has no loop of its own.
func openQueue(name string, j *job) (loop, error) {
	pool, err := engine.NewPool(engine.PoolOptions{Count: j.depth, Size: j.block})
	if err != nil {
		return nil, err
	}
	q, err := engine.Open(name, j.file, engine.Options{Depth: j.depth, Pool: pool, LazySubmit: true})
	if err != nil {
		pool.Close()
		return nil, err
	}
	l := &queueLoop{job: j, pool: pool, queue: q, ops: make([]engine.Op, j.depth), calls: -1}
	for i := range l.ops {
		l.ops[i].Buf = pool.TryGet().Data
		if j.write {
			l.ops[i].Kind = engine.Write
		}
	}
	if e, err := engine.Lookup(name); err == nil && (e.Async || j.depth == 1) {
		if l.calls, err = openCallCounter(); err != nil { // of this thread, which makes all calls
			l.calls = -1
		}
	}
	return l, nil
}

func (l *queueLoop) run(ops int64, h *Histogram) error {
	l.free = l.free[:0]
	left := ops
	for i := range l.ops {
		if left > 0 {
			l.free = append(l.free, &l.ops[i])
			left--
		}
	}
	for _, op := range l.free {
		op.Offset = l.job.offset.next()
	}
	for len(l.free) > 0 || l.queue.InFlight() > 0 {
		if h != nil {
			now := engine.Now()
			for _, op := range l.free {
				op.Submitted = now
			}
		}
		n, err := l.queue.Submit(l.free)
		if err != nil {
			return err
		}
		rest := copy(l.free, l.free[n:])
		l.free = l.free[:rest]
		if l.done, err = l.queue.Reap(context.Background(), min(l.job.batch, l.queue.InFlight()), l.done[:0]); err != nil {
			return err
		}
		for _, op := range l.done {
			if h != nil {
				h.Record(int64(engine.Now() - op.Submitted))
			}
			if op.Err != nil {
				return &opError{l.job.write, l.job.block, op.Offset, op.Err}
			}
			if err := l.count.check(l.job, op.Offset, int64(op.N)); err != nil {
				return err
			}
			if left > 0 {
				op.Offset = l.job.offset.next()
				l.free = append(l.free, op)
				left--
			}
		}
	}
	return nil
}

// tally's calls are -1 when nobody counted them.
func (l *queueLoop) tally() tally {
	t := l.count
	t.calls = -1
	if n, ok := l.calls.count(); ok {
		t.calls = n
	}
	return t
}

func (l *queueLoop) close() error {
	l.calls.close()
	err := l.queue.Close()
	if e := l.pool.Close(); err == nil {
		err = e
	}
	return err
}
