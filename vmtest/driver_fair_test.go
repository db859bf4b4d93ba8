// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/ioctlapi"
	"dio/trace/tracefs"
)

// helperShare keeps so many reads of the device in flight, by an open file of its
// own, until as many as are wanted are done; 0: for ever. It says its thread first.
func helperShare(args []string) error {
	if len(args) != 2 {
		return errors.New("want DEPTH OPERATIONS")
	}
	depth, err1 := strconv.Atoi(args[0])
	wanted, err2 := strconv.Atoi(args[1])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	runtime.LockOSThread()
	f, err := engine.OpenFile(ioctlapi.DefaultPath, engine.FileOptions{Read: true, Direct: true})
	if err != nil {
		return err
	}
	pool, err := engine.NewPool(engine.PoolOptions{Count: depth, Size: 4096})
	if err != nil {
		return err
	}
	q, err := engine.Open("aio", f, engine.Options{Depth: depth, Pool: pool})
	if err != nil {
		return err
	}
	var free []*engine.Op
	for b := pool.TryGet(); b != nil; b = pool.TryGet() {
		free = append(free, &engine.Op{Kind: engine.Read, Buf: b.Data, User: b})
	}
	fmt.Println(unix.Gettid())
	for begun, done := 0, 0; wanted == 0 || done < wanted; {
		for ; len(free) > 0 && (wanted == 0 || begun < wanted); begun++ {
			if _, err := q.Submit(free[len(free)-1:]); err != nil {
				return err
			}
			free = free[:len(free)-1]
		}
		before := len(free)
		if free, err = q.Reap(context.Background(), 1, free); err != nil {
			return err
		}
		for _, op := range free[before:] {
			if op.Err != nil {
				return op.Err
			}
		}
		done += len(free) - before
	}
	fmt.Println("done")
	return nil
}

// shared is a request as the tracepoints saw it.
type shared struct {
	tid                         int
	submitted, queued, due, end time.Duration
}

// sharedRequests pairs the events by their requests, in the order of submission.
func sharedRequests(t *testing.T, events []tracefs.Event) []*shared {
	t.Helper()
	var all []*shared
	at := map[uint64]*shared{}
	for _, e := range events {
		id := e.Uint("req")
		r := at[id]
		switch {
		case e.Name == "dio_submit":
			r = &shared{tid: e.TID, submitted: e.Time}
			at[id], all = r, append(all, r)
		case r == nil: // of before
		case e.Name == "dio_queue":
			r.queued, r.due = e.Time, time.Duration(e.Uint("due_ns"))
		case e.Name == "dio_complete" && e.Int("result") > 0: // not cancelled
			r.end = e.Time
		}
	}
	return slices.DeleteFunc(all, func(r *shared) bool { return r.due == 0 })
}

// Two processes share a disk that works on one request at a time, first come, first
// served: the one with a single request in flight waits for no more than what the
// other had in flight when it came, and that other one is passed by nobody either.
func TestDriverFairShare(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency, depth, few = 5 * time.Millisecond, 16, 8
	model(t, d, func(c *ioctlapi.Config) {
		c.Model, c.LatencyNS, c.QueueDepth = ioctlapi.ModelDisk, uint64(latency), 1
	})
	trace := timing(t)
	thread := func(h *helper) int {
		tid, err := strconv.Atoi(h.line(t))
		if err != nil {
			t.Fatal(err)
		}
		return tid
	}
	greedy := startHelper(t, "share", nil, fmt.Sprint(depth), "0")
	many := thread(greedy)
	time.Sleep(2 * depth * latency) // its queue is full by then
	modest := startHelper(t, "share", nil, "1", fmt.Sprint(few))
	one := thread(modest)
	if s := modest.line(t); s != "done" {
		t.Fatal(s)
	}
	if err := errors.Join(greedy.Process.Kill(), modest.Wait()); err != nil {
		t.Fatal(err)
	}
	_ = greedy.Wait()
	events, err := trace.Drain()
	if err != nil || trace.Lost() > 0 {
		t.Fatal(err, trace.Lost(), "events lost")
	}
	requests := sharedRequests(t, events)
	counts := map[int]int{}
	for _, r := range requests {
		counts[r.tid]++
	}
	if counts[one] != few || counts[many] < few+depth || len(counts) != 2 {
		t.Fatalf("requests of threads %d, which made %d, and %d: %v", one, few, many, counts)
	}
	// By the device's own clock, which no delay of this machine touches.
	byDue := slices.SortedFunc(slices.Values(requests), func(a, b *shared) int { return cmp.Compare(a.due, b.due) })
	for i, r := range byDue {
		if i > 0 && r.due-byDue[i-1].due < latency {
			t.Errorf("two requests at a time: due at %v and %v", byDue[i-1].due, r.due)
		}
		for _, later := range byDue[:i] {
			if later.submitted > r.queued {
				t.Errorf("a request of thread %d that came at %v is due at %v, before one of thread %d that came at %v, due at %v",
					later.tid, later.submitted, later.due, r.tid, r.submitted, r.due)
			}
		}
		if r.end != 0 && r.end < r.due-time.Millisecond {
			t.Errorf("due at %v, told at %v", r.due, r.end)
		}
	}
	// The trace's clock may be a little off the timers'.
	const bound = (depth+1)*latency + time.Millisecond
	var waits []time.Duration
	for _, r := range requests {
		if r.tid != one {
			continue
		}
		wait := r.due - r.queued
		waits = append(waits, wait.Round(time.Millisecond))
		if wait > bound || r.end == 0 {
			t.Errorf("waited %v for its turn beside %d others, want %v at most", wait, depth, bound)
		}
	}
	t.Logf("%d requests of the one, %d of the other, which has %d in flight; the one's turns came after %v", counts[one], counts[many], depth, waits)
}
