// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/ioctlapi"
)

const (
	asyncLatency = 250 * time.Millisecond // long beside what a busy, emulated machine adds
	asyncOps     = 6
	asyncBlock   = 16 << 10
)

// demoAsync shows the life of requests that wait.
func demoAsync(d *demo) error {
	d.tour.Name, d.tour.Title = "async", fmt.Sprintf("what happens to requests, on a device with a latency of %v", asyncLatency)
	if err := d.set(ioctlapi.FamilyPin, asyncLatency); err != nil {
		return err
	}
	if err := d.syncStep(); err != nil {
		return err
	}
	out, in := d.buffers()
	_, _ = rand.Read(out[:asyncOps*asyncBlock])
	clear(in[:asyncOps*asyncBlock])
	if err := d.asyncStep("aio", "native AIO", engine.Write, out); err != nil {
		return err
	}
	if err := d.asyncStep("io_uring", "io_uring", engine.Read, in); err != nil {
		return err
	}
	if n := len(d.tour.Steps); n > 0 && len(d.tour.Steps[n-1].Rows) > 0 {
		d.sameBytes(out[:asyncOps*asyncBlock], in[:asyncOps*asyncBlock])
	}
	for _, name := range []string{"aio", "io_uring"} {
		if err := d.fsyncStep(name, out); err != nil {
			return err
		}
	}
	return d.cancelStep(in)
}

// unavailableStep notes what this kernel doesn't have; other errors end the tour.
func (d *demo) unavailableStep(s *stepView, err error) error {
	var no *engine.Unavailable
	if !errors.As(err, &no) {
		return err
	}
	s.line("not here: %s", no.Reason)
	return nil
}

// syncStep shows a synchronous kiocb.
func (d *demo) syncStep() error {
	s := d.step("A synchronous request (preadv): it waits, and is never told -EIOCBQUEUED")
	out, _ := d.buffers()
	op := &engine.Op{Kind: engine.Read, Buf: out[:asyncBlock], Offset: d.base}
	w, err := d.watch(func() error {
		_, err := d.engine("preadv", d.direct, op)
		return err
	})
	if err != nil {
		return err
	}
	took := op.Completed - op.Submitted
	s.row("is_sync_kiocb", "is_sync_kiocb", "%d request of the kind sync", countWord(&w, "dio_queue", "sync"))
	s.row("wait_on_sync_kiocb", "wait_for_completion_killable", "the call took %v", took.Round(100*time.Microsecond))
	s.check(op.Err == nil && op.N == asyncBlock, "the call returned its %d bytes (EIOCBQUEUED would be error 529)", asyncBlock)
	s.check(countWord(&w, "dio_queue", "sync") == 1 && w.after.Submitted == w.before.Submitted, "it was queued as synchronous, not as asynchronous")
	s.check(took >= asyncLatency, "the caller slept for the latency")
	return nil
}

// countWord counts the events of a name that hold a word.
func countWord(w *seen, name, word string) (n int) {
	for _, e := range w.of(name) {
		if e.Has(word) {
			n++
		}
	}
	return n
}

// asyncStep puts several requests in flight at once.
func (d *demo) asyncStep(name, label string, kind engine.Kind, buf []byte) error {
	s := d.step(fmt.Sprintf("%s: %d %ss of %s at once", label, asyncOps, kind, formatSize(asyncBlock)))
	ops := make([]*engine.Op, asyncOps)
	for i := range ops {
		ops[i] = &engine.Op{Kind: kind, Buf: buf[i*asyncBlock : (i+1)*asyncBlock], Offset: d.base + int64(i*asyncBlock), User: i + 1}
	}
	var done []*engine.Op
	w, err := d.watch(func() (err error) {
		done, err = d.engine(name, d.direct, ops...)
		return err
	})
	if err != nil {
		return d.unavailableStep(s, err)
	}
	first, last := done[0].Completed, done[len(done)-1].Completed
	method, complete := "read_iter", "aio_complete"
	if kind == engine.Write {
		method = "write_iter"
	}
	s.row("aio_"+kind.String(), method+" with a kiocb", "%d requests submitted", len(w.of("dio_submit")))
	s.row("-EIOCBQUEUED", "-EIOCBQUEUED", "%d queued as async", countWord(&w, "dio_queue", "async"))
	s.row(complete, "kiocb->ki_complete", "%d completed", len(w.of("dio_complete")))
	s.requestTable(&w)
	var order []string
	failed := 0
	for _, op := range done {
		order = append(order, fmt.Sprint(op.User))
		if op.Err != nil || op.N != asyncBlock {
			failed++
		}
	}
	s.line("submitted 1 to %d; told in this order: %s", asyncOps, strings.Join(order, " "))
	took := last - ops[0].Submitted
	s.line("all done after %v; one at a time would take %v", took.Round(100*time.Microsecond), asyncOps*asyncLatency)
	s.check(failed == 0, "every request moved its %d bytes", asyncBlock)
	s.check(oncePerRequest(&w), "every request completed exactly once, after its pages were released")
	s.check(ops[len(ops)-1].Submitted < first, "all %d were submitted before the first completed", asyncOps)
	s.check(w.sum("dio_queue", "in_flight") > asyncOps, "several were in flight at a time")
	pages := uint64(asyncOps*asyncBlock) / uint64(d.info.PageSize)
	s.pageChecks(kind, &w, pages, asyncOps*asyncBlock)
	return nil
}

// requestTable shows when each step of each request came.
func (s *stepView) requestTable(w *seen) {
	submits := w.of("dio_submit")
	if len(submits) == 0 {
		return
	}
	zero := submits[0].Time
	s.line("%-9s %10s %10s %10s %10s %10s", "request", "submitted", "queued", "moved", "released", "completed")
	for i, e := range submits {
		req := e.Uint("req")
		cells := []any{i + 1}
		for _, name := range []string{"dio_submit", "dio_queue", "dio_move", "dio_release", "dio_complete"} {
			cell := "-"
			if at := w.at(name, req); at > 0 {
				cell = fmt.Sprintf("%.2f ms", float64(at-zero)/1e6)
			}
			cells = append(cells, cell)
		}
		s.line("%-9d %10s %10s %10s %10s %10s", cells...)
	}
}

// oncePerRequest tells whether each submitted request has one completion,
// after its release.
func oncePerRequest(w *seen) bool {
	completions := map[uint64]int{}
	for _, e := range w.of("dio_complete") {
		completions[e.Uint("req")]++
	}
	submits := w.of("dio_submit")
	for _, e := range submits {
		req := e.Uint("req")
		if completions[req] != 1 || w.at("dio_release", req) > w.at("dio_complete", req) {
			return false
		}
	}
	return len(completions) == len(submits) && len(submits) > 0
}

// fsyncStep shows that fsync waits for what was in flight when it began.
func (d *demo) fsyncStep(name string, buf []byte) error {
	call := map[string]string{"aio": "IOCB_CMD_FSYNC", "io_uring": "IORING_OP_FSYNC"}[name]
	s := d.step(fmt.Sprintf("fsync through %s (%s), behind 3 writes", name, call))
	var ops []*engine.Op
	for i := range 3 {
		ops = append(ops, &engine.Op{Kind: engine.Write, Buf: buf[i*asyncBlock : (i+1)*asyncBlock], Offset: d.base + int64(i*asyncBlock), User: fmt.Sprintf("write %d", i+1)})
	}
	ops = append(ops, &engine.Op{Kind: engine.Sync, User: "fsync"})
	var done []*engine.Op
	_, err := d.watch(func() (err error) {
		done, err = d.engine(name, d.direct, ops...)
		return err
	})
	if err != nil {
		return d.unavailableStep(s, err)
	}
	var order []string
	for _, op := range done {
		order = append(order, fmt.Sprint(op.User))
		if op.Err != nil {
			return fmt.Errorf("%v: %w", op.User, op.Err)
		}
	}
	fsync := ops[len(ops)-1]
	took := fsync.Completed - fsync.Submitted
	s.row("aio_fsync", ".fsync", "took %v", took.Round(100*time.Microsecond))
	s.line("told in this order: %s", strings.Join(order, ", "))
	// The order doesn't tell it: io_uring of kernel 6.1 tells what it finds at
	// one go newest first.
	s.check(took > asyncLatency/2, "fsync waited for the writes in flight")
	idle := &engine.Op{Kind: engine.Sync}
	if _, err := d.engine(name, d.direct, idle); err != nil {
		return err
	}
	s.line("with nothing in flight it took %v", (idle.Completed - idle.Submitted).Round(100*time.Microsecond))
	s.check(idle.Err == nil, "an fsync with nothing in flight succeeds, too")
	return nil
}

// cancelStep cancels a queued request of native AIO.
func (d *demo) cancelStep(buf []byte) error {
	s := d.step("io_cancel on a queued request: it ends at once, its pages are given back")
	if !d.info.Features.Has(ioctlapi.FeatureCancel) {
		s.line("not here: this driver doesn't offer it")
		return nil
	}
	const latency = 5 * time.Second
	if err := d.set(ioctlapi.FamilyPin, latency); err != nil {
		return err
	}
	op := &engine.Op{Kind: engine.Read, Buf: buf[:asyncBlock], Offset: d.base}
	w, err := d.watch(func() error {
		q, err := engine.Open("aio", d.direct, engine.Options{Depth: 1, Timestamps: true})
		if err != nil {
			return err
		}
		defer q.Close()
		if _, err := q.Submit([]*engine.Op{op}); err != nil {
			return err
		}
		if err := q.Cancel(op); err != nil {
			return err
		}
		// It comes back all the same, and soon: the context only bounds the wait.
		ctx, stop := context.WithTimeout(d.ctx, 2*latency)
		defer stop()
		_, err = q.Reap(ctx, 1, nil)
		return err
	})
	if err != nil {
		return d.unavailableStep(s, err)
	}
	took := op.Completed - op.Submitted
	s.row("ki_cancel", "kiocb_set_cancel_fn", "told %v after %v", op.Err, took.Round(100*time.Microsecond))
	s.check(errors.Is(op.Err, unix.ECANCELED), "the request was told cancelled")
	s.check(took < latency, "it didn't wait for the latency of %v", latency)
	s.check(len(w.of("dio_cancel")) == 1 && len(w.of("dio_complete")) == 1, "one cancel, one completion")
	s.check(w.sum("dio_pin", "pages") > 0 && w.sum("dio_pin", "pages") == w.sum("dio_release", "pages"), "all %d pages that were pinned were released", w.sum("dio_pin", "pages"))
	s.check(w.sum("dio_move", "bytes") == 0, "no byte was moved")
	return nil
}
