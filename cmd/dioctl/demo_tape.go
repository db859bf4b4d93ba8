// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"dio/engine"
	"dio/ioctlapi"
)

// The tape, and the program that writes to it. What counts is how the times
// compare: each is long beside what a busy, emulated machine adds.
const (
	tapeBlocks     = 16
	tapeBlock      = demoSize / tapeBlocks
	tapeBlockTime  = 10 * time.Millisecond // to pass one block by the head
	tapeBandwidth  = int64(tapeBlock) * int64(time.Second) / int64(tapeBlockTime)
	tapeReposition = 30 * time.Millisecond
	tapeDeepest    = 8 // requests in flight
	tapeElsewhere  = 8 // blocks of the run that seeks
	tapeTries      = 4 // a machine that is late itself makes a run slower, never faster
)

// tapeThink is how long the program takes to have a block ready, in hundredths
// of tapeBlockTime: less than the tape on average, but now and then it is late.
var tapeThink = [...]int{25, 25, 25, 160, 25, 25, 25, 330}

// thinkTime is the program's time for a block.
func thinkTime(block int) time.Duration {
	return tapeBlockTime * time.Duration(tapeThink[block%len(tapeThink)]) / 100
}

// tapeRun is one way to write the blocks, and what became of it.
type tapeRun struct {
	Engine    string  `json:"engine"`
	Depth     int     `json:"depth"`    // requests in flight at most
	Requests  int     `json:"requests"` // one block each
	Bytes     uint64  `json:"bytes"`    // that the device wrote, by its own count
	ElapsedNS int64   `json:"elapsed_ns"`
	Rate      float64 `json:"bytes_per_second"`
	Stalls    uint64  `json:"stalls"` // requests that found the tape run dry
	Seeks     uint64  `json:"seeks"`  // requests that the head had to go elsewhere for
	Tries     int     `json:"tries"`  // the fastest of so many
}

// demoTape shows why a tape wants its next request before the last has ended.
func demoTape(d *demo) error {
	d.tour.Name, d.tour.Title = "tape", "a device that must not run dry: one request at a time against several in flight"
	out, in := d.buffers()
	_, _ = rand.Read(out)
	one, err := d.tapeOneStep(out)
	if err != nil {
		return err
	}
	for _, name := range []string{"aio", "io_uring"} {
		if err := d.tapeDeepStep(name, one, out); err != nil {
			return err
		}
	}
	if err := d.tapeSeekStep(out); err != nil {
		return err
	}
	return d.tapeKept(out, in)
}

// tape sets the model up, which rewinds it.
func (d *demo) tape() error {
	return d.dev.SetConfig(ioctlapi.Config{
		Fields: ioctlapi.ConfigModel | ioctlapi.ConfigFamily | ioctlapi.ConfigCompletion | ioctlapi.ConfigLatency |
			ioctlapi.ConfigBandwidth | ioctlapi.ConfigReposition,
		Model: ioctlapi.ModelTape, Family: ioctlapi.FamilyPin, Completion: ioctlapi.CompletionAuto,
		Bandwidth: uint64(tapeBandwidth), RepositionNS: uint64(tapeReposition)})
}

// tapeRun writes blocks of buf to their places, in the given order: waits for
// room, thinks, submits.
func (d *demo) tapeRun(name string, depth int, buf []byte, order []int) (r tapeRun, err error) {
	if err := d.tape(); err != nil {
		return r, err
	}
	q, err := engine.Open(name, d.direct, engine.Options{Depth: depth})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	var done []*engine.Op
	reap := func(want int) (err error) {
		done, err = q.Reap(d.ctx, want, done)
		return err
	}
	before, err := d.dev.Stats()
	if err != nil {
		return r, err
	}
	start := time.Now()
	for i, block := range order {
		if q.InFlight() == depth {
			if err := reap(1); err != nil {
				return r, err
			}
		}
		time.Sleep(thinkTime(i))
		op := &engine.Op{Kind: engine.Write, Buf: buf[block*tapeBlock : (block+1)*tapeBlock], Offset: d.base + int64(block)*tapeBlock}
		if n, err := q.Submit([]*engine.Op{op}); err != nil || n != 1 {
			return r, fmt.Errorf("block %d: %s took %d of 1 operation: %w", block, name, n, err)
		}
	}
	if err := reap(q.InFlight()); err != nil {
		return r, err
	}
	elapsed := time.Since(start)
	after, err := d.dev.Stats()
	if err != nil {
		return r, err
	}
	for _, op := range done {
		if op.Err != nil || op.N != tapeBlock {
			return r, fmt.Errorf("%s wrote %d of %d bytes at %d: %w", name, op.N, tapeBlock, op.Offset, op.Err)
		}
	}
	bytes := after.BytesWritten - before.BytesWritten
	return tapeRun{Engine: name, Depth: depth, Requests: len(order), Bytes: bytes, ElapsedNS: int64(elapsed),
		Rate:   float64(bytes) / elapsed.Seconds(),
		Stalls: after.Stalls - before.Stalls, Seeks: after.Seeks - before.Seeks, Tries: 1}, nil
}

// inOrder is the blocks as they lie on the tape.
func inOrder(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

// tapeTable shows runs below each other, and keeps those that are new.
func (d *demo) tapeTable(s *stepView, known int, runs ...tapeRun) {
	s.line("%-10s %9s %10s %12s %10s %7s %6s", "API", "in flight", "time", "throughput", "of tape's", "stalls", "seeks")
	for _, r := range runs {
		s.line("%-10s %9d %7.0f ms %6.2f MiB/s %9.0f%% %7d %6d", r.Engine, r.Depth, float64(r.ElapsedNS)/1e6, r.Rate/(1<<20),
			100*r.Rate/float64(tapeBandwidth), r.Stalls, r.Seeks)
	}
	if slices.ContainsFunc(runs, func(r tapeRun) bool { return r.Tries > 1 }) {
		s.line("The machine was late itself now and then: such a run was made again, the fastest counts.")
	}
	d.tour.Tape = append(d.tour.Tape, runs[known:]...)
}

// tapeOneStep has the program wait for each block.
func (d *demo) tapeOneStep(buf []byte) (tapeRun, error) {
	s := d.step("One at a time (pwritev): the tape stops for each block")
	var think time.Duration
	for i := range tapeBlocks {
		think += thinkTime(i)
	}
	s.line("The tape takes %v for a block of %s; it can't wait: if the next one isn't there, it must", tapeBlockTime, formatSize(tapeBlock))
	s.line("stop, go back and gain speed again (a stall), %v. The program needs %v for a block on", tapeReposition, think/tapeBlocks)
	s.line("average, less than the tape: but now and then it is late, up to %v.", thinkTime(len(tapeThink)-1))
	r, err := d.tapeRun("preadv", 1, buf, inOrder(tapeBlocks))
	if err != nil {
		return r, err
	}
	r.Engine = "pwritev"
	d.tapeTable(s, 0, r)
	s.line("The one seek brings the rewound tape to where the blocks belong.")
	s.Checks = append(s.Checks, judgeTapeOne(r)...)
	return r, nil
}

// tapeBest runs until the run has gained on the last, less deep one, but not
// for ever.
func (d *demo) tapeBest(name string, depth int, buf []byte, last tapeRun) (best tapeRun, err error) {
	for tries := 1; ; tries++ {
		r, err := d.tapeRun(name, depth, buf, inOrder(tapeBlocks))
		if err != nil {
			return r, err
		}
		if r.Rate > best.Rate {
			best = r
		}
		best.Tries = tries
		calmer, faster := best.gained(last)
		if calmer && faster && (depth < tapeDeepest || best.streamed()) || tries == tapeTries {
			return best, nil
		}
	}
}

// tapeDeepStep has the program work ahead, with more and more requests in flight.
func (d *demo) tapeDeepStep(name string, one tapeRun, buf []byte) error {
	label := map[string]string{"aio": "native AIO", "io_uring": "io_uring"}[name]
	s := d.step(label + ": the program works ahead while the tape writes")
	s.row("aio_write", "write_iter with a kiocb", "up to %d in flight", tapeDeepest)
	runs := []tapeRun{one}
	for _, depth := range []int{2, 4, tapeDeepest} {
		r, err := d.tapeBest(name, depth, buf, runs[len(runs)-1])
		if err != nil {
			return d.unavailableStep(s, err)
		}
		runs = append(runs, r)
	}
	d.tapeTable(s, 1, runs...)
	s.Checks = append(s.Checks, judgeTapeDepths(runs)...)
	return nil
}

// tapeSeekStep shows what no depth helps against.
func (d *demo) tapeSeekStep(buf []byte) error {
	s := d.step(fmt.Sprintf("%d in flight, but each block elsewhere: no depth helps against seeks", tapeDeepest))
	order := make([]int, tapeElsewhere)
	for i := range order {
		order[i] = len(order) - 1 - i // backwards
	}
	r, err := d.tapeRun("aio", tapeDeepest, buf, order)
	if err != nil {
		return d.unavailableStep(s, err)
	}
	d.tapeTable(s, 0, r)
	s.check(r.Seeks == uint64(r.Requests), "each of the %d requests was a seek", r.Requests)
	s.check(time.Duration(r.ElapsedNS) >= time.Duration(r.Requests)*(tapeReposition+tapeBlockTime),
		"it took %d times %v and more: repositioning, and the block", r.Requests, tapeReposition+tapeBlockTime)
	return nil
}

// tapeKept reads back what the last runs left.
func (d *demo) tapeKept(out, in []byte) error {
	if err := d.set(ioctlapi.FamilyPin, 0); err != nil {
		return err
	}
	clear(in)
	op := &engine.Op{Kind: engine.Read, Buf: in, Offset: d.base}
	if _, err := d.engine("preadv", d.direct, op); err != nil {
		return err
	}
	if op.Err != nil {
		return op.Err
	}
	d.sameBytes(out, in)
	return nil
}

// judgeTapeOne draws the conclusions from the run that waits for each request.
func judgeTapeOne(r tapeRun) []checkView {
	var s stepView
	s.check(r.Bytes == uint64(r.Requests)*tapeBlock && r.Seeks == 1, "all %d blocks were written, one behind the other", r.Requests)
	s.check(r.Stalls == uint64(r.Requests-1), "each of the %d requests after the first found the tape run dry", r.Requests-1)
	s.check(r.Rate < float64(tapeBandwidth)/2, "less than half of the tape's speed was reached")
	return s.Checks
}

// gained compares a run with one that had fewer in flight.
func (r *tapeRun) gained(last tapeRun) (calmer, faster bool) {
	// Two depths that stall as often differ by chance alone.
	alike := last.Depth > 1 && r.Stalls == last.Stalls && r.Rate > last.Rate*0.8
	return r.Stalls <= last.Stalls, r.Rate > last.Rate || alike
}

// streamed tells whether the tape hardly ever ran dry.
func (r *tapeRun) streamed() bool { return r.Stalls <= uint64(r.Requests/8) }

// judgeTapeDepths draws them from runs of growing depth, the first of which
// waits for each request.
func judgeTapeDepths(runs []tapeRun) []checkView {
	var s stepView
	one, deepest := runs[0], runs[len(runs)-1]
	whole, calmer, faster := true, true, true
	for i, r := range runs {
		whole = whole && r.Bytes == uint64(r.Requests)*tapeBlock && r.Seeks == 1
		if i > 0 {
			c, f := r.gained(runs[i-1])
			calmer, faster = calmer && c, faster && f
		}
	}
	s.check(whole, "each run wrote all %d blocks, one behind the other", one.Requests)
	s.check(calmer, "with more in flight the tape stalled less often, or as often")
	s.check(faster, "and was faster")
	s.check(deepest.streamed(), "with %d in flight it stalled never or hardly ever (%d of %d)", deepest.Depth,
		deepest.Stalls, deepest.Requests)
	s.check(deepest.Rate >= 2*one.Rate, "%d in flight were at least twice as fast as one at a time (%.1f times)", deepest.Depth,
		deepest.Rate/one.Rate)
	return s.Checks
}
