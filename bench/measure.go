// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"dio/engine"
)

// Measure makes one measurement. Why it can't be made is part of the result;
// an error is only ctx's end.
func Measure(ctx context.Context, s Spec) (Result, error) {
	if s.Batch == 0 {
		s.Batch = 1
	}
	if s.Submit == 0 {
		s.Submit = s.Depth
	}
	r := Result{Cell: Cell{Engine: s.Engine, RW: s.RW, BlockSize: s.BlockSize, Depth: s.Depth}}
	t, err := openTarget(s)
	if err != nil {
		r.Unavailable = reason(err)
		return r, nil
	}
	defer t.file.Close()
	r.Variant = t.variant
	r.Figures, r.Notes, err = measureTarget(ctx, s, t)
	if e := ctx.Err(); e != nil {
		return r, e
	}
	if err != nil {
		r.Figures, r.Unavailable = nil, reason(err)
	}
	return r, nil
}

// reason is an error without what the result says anyway.
func reason(err error) string {
	var no *engine.Unavailable
	if errors.As(err, &no) {
		return no.Reason
	}
	return err.Error()
}

func measureTarget(ctx context.Context, s Spec, t *target) (*Figures, []string, error) {
	// Nothing of Go's runtime is to run meanwhile: no collector, no other
	// goroutine on this thread, no signal. Raw system calls keep their
	// processor (Go's P), so that each thread needs one, and the rest one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	procs := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(max(procs, t.threads+3))
	defer runtime.GOMAXPROCS(procs)

	mem, err := newMemory(s.Depth, s.BlockSize, s.HugePages)
	if err != nil {
		return nil, nil, err
	}
	defer mem.close()
	j := &job{file: t.file, write: s.RW.Writes(), block: s.BlockSize, depth: s.Depth, batch: min(s.Batch, s.Depth), submit: s.Submit,
		offset: newOffsets(s.RW, s.BlockSize, t.size, s.Seed), mem: mem}
	l, err := openLoop(s.Engine, j)
	if err != nil {
		return nil, nil, err
	}
	figures, notes, err := measureLoop(ctx, s, t, l)
	// Before the memory goes: closing waits for what is in flight.
	if e := l.close(); err == nil {
		err = e
	}
	if err == nil && s.HugePages {
		figures.HugeBytes = mem.Huge
		if mem.Huge == 0 {
			notes = append(notes, "the kernel gave no huge page for the buffers")
		}
	}
	return figures, notes, err
}

func openLoop(name string, j *job) (loop, error) {
	if name != Psync {
		if err := engine.Probe(name, j.file); err != nil {
			return nil, err
		}
	}
	if open, ok := openers[name]; ok {
		return open(j)
	}
	return openQueue(name, j)
}

func measureLoop(ctx context.Context, s Spec, t *target, l loop) (*Figures, []string, error) {
	if cached(t.file) {
		if err := evict(t.file); err != nil {
			return nil, nil, err
		}
	}
	if !s.NoWarmUp {
		if _, err := pass(ctx, s, l, nil, nil); err != nil {
			return nil, nil, err
		}
	}
	f, notes, err := timedPass(ctx, s, l)
	if err != nil {
		return nil, nil, err
	}
	h := new(Histogram)
	short := s
	short.Ops, short.Duration = min(s.Ops, latencyOps), s.Duration/2
	if _, err := pass(ctx, short, l, h, nil); err != nil {
		return nil, nil, err
	}
	f.Latency = h.Summary()
	if !cached(t.file) {
		return f, notes, nil
	}
	if !t.tellsCache {
		return f, append(notes, "mincore tells only a file's owner what is cached"), nil
	}
	left, err := resident(t.file, t.size)
	if err != nil {
		return f, append(notes, err.Error()), nil
	}
	f.CacheBytesLeft = &left
	return f, notes, nil
}

// latencyOps bounds the pass for percentiles where operations are counted: so
// many are enough for three nines.
const latencyOps = 100_000

// timedPass makes the figures of the second pass.
func timedPass(ctx context.Context, s Spec, l loop) (*Figures, []string, error) {
	var soak *soaker
	if s.Busy {
		var err error
		if soak, err = startSoaker(s.Clock); err != nil {
			return nil, nil, err
		}
	}
	p, err := pass(ctx, s, l, nil, soak)
	if soak != nil {
		err = errors.Join(err, soak.close())
	}
	if err != nil {
		return nil, nil, err
	}
	per := func(n int64) float64 { return float64(n) / float64(p.ops) }
	seconds := float64(p.elapsed) / 1e9
	f := &Figures{Ops: p.ops, ElapsedNS: int64(p.elapsed), NSPerOp: per(int64(p.elapsed)), IOPS: float64(p.ops) / seconds,
		BytesPerSecond: float64(p.tally.bytes) / seconds, CPUNSPerOp: per(p.usage.cpu), MinorFaultsPerOp: per(p.usage.minor),
		MajorFaultsPerOp: per(p.usage.major), ContextSwitchesPerOp: per(p.usage.switches)}
	var notes []string
	if p.counted {
		n := per(p.tally.calls)
		f.SyscallsPerOp = &n
	} else {
		notes = append(notes, errNoCount.Error())
	}
	if soak != nil {
		busy := (float64(p.elapsed) - p.soaked) / float64(p.ops)
		f.BusyNSPerOp = &busy
	}
	if p.tally.short > 0 {
		notes = append(notes, fmt.Sprintf("%d operations moved less than a block", p.tally.short))
	}
	return f, notes, nil
}

// passed is what a pass took.
type passed struct {
	ops     int64
	elapsed time.Duration
	usage   usage
	tally   tally
	counted bool    // tally.calls is known
	soaked  float64 // nanoseconds that nobody wanted
}

// chunkTime is how long a run of a counted pass lasts at least: it can't be
// stopped meanwhile.
const chunkTime = 100 * time.Millisecond

// pass makes s.Ops operations, or as many as s.Duration takes, in a few runs
// of the loop, between which it looks at ctx.
func pass(ctx context.Context, s Spec, l loop, h *Histogram, soak *soaker) (passed, error) {
	var p passed
	defer blockSignals()()
	before, err := readUsage()
	if err != nil {
		return p, err
	}
	tally := l.tally()
	chunk, most := int64(4*s.Depth), s.Duration/16
	if s.Ops > 0 {
		most = chunkTime
	}
	start := time.Now()
	idle := soak.soaked()
	for {
		if s.Ops > 0 {
			chunk = min(chunk, s.Ops-p.ops)
		}
		at := p.elapsed
		if err := l.run(chunk, h); err != nil {
			return p, err
		}
		p.ops += chunk
		p.elapsed = time.Since(start)
		if err := ctx.Err(); err != nil {
			return p, err
		}
		if s.Ops > 0 && p.ops >= s.Ops || s.Ops <= 0 && p.elapsed >= s.Duration {
			break
		}
		// Grow until a run is a sixteenth of it all; the last one ends in time.
		if p.elapsed-at < most {
			chunk *= 2
		}
		if s.Ops <= 0 {
			rate := float64(p.ops) / float64(max(p.elapsed, 1))
			chunk = max(min(chunk, int64(rate*float64(s.Duration-p.elapsed))+1), int64(s.Depth))
		}
	}
	p.soaked = soak.soaked() - idle
	after, err := readUsage()
	if err != nil {
		return p, err
	}
	p.usage, p.tally = after.since(before), l.tally().since(tally)
	p.counted = tally.calls >= 0
	return p, nil
}
