// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"dio/trace/audit"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func decodeEvent(b []byte) (auditEvent, bool) {
	var e auditEvent
	_, err := binary.Decode(b, binary.NativeEndian, &e)
	return e, err == nil
}

// Bits of auditOp.Flags; bpf/state.h has the other half.
const (
	flagBytes = 1 << iota
	flagBio
	flagLongTerm
	flagQueued
	flagWrites
)

// Outstanding is what is still under way.
type Outstanding struct {
	Pins       int // folios that are pinned
	Gets       int // operations whose folios look leaked
	InFlight   int // asynchronous operations that are queued
	OldestWait time.Duration
}

// readMap copies a map's live entries in few system calls.
func readMap[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	out := map[K]V{}
	defer unpreempted()()
	keys, values := make([]K, 4096), make([]V, 4096)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			out[keys[i]] = values[i]
		}
		if err != nil {
			if isEnd(err) {
				return out, nil
			}
			return out, fmt.Errorf("read map %s: %w", m, err)
		}
	}
}

// unpreempted keeps the calling thread on its CPU until the function that it
// returns is called, where it may. While a map is read the kernel skips kprobe
// programs on that CPU: if other tasks ran meanwhile, theirs would be missed.
func unpreempted() func() {
	runtime.LockOSThread()
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
		if unix.SchedSetAttr(0, &attr, 0) == nil {
			runtime.UnlockOSThread() // else the thread ends with its goroutine
		}
	}
}

// Outstanding reads what operations and pins are under way, and notes those
// that have waited for longer than limit.
func (s *Session) Outstanding() (Outstanding, error) {
	var out Outstanding
	ops, err := readMap[uint64, auditOp](s.objs.Maps["ops"])
	if err != nil {
		return out, err
	}
	t := now()
	for _, op := range ops {
		if o := plainOp(op); o.Kind.Async() && !o.Ended() {
			out.InFlight++
			out.OldestWait = max(out.OldestWait, t-o.Start)
		}
	}
	folios, err := readMap[uint64, auditFolioState](s.objs.Maps["folios"])
	if err != nil {
		return out, err
	}
	for _, f := range folios {
		if f.Live > 0 {
			out.Pins++
		}
	}
	g, err := s.judgeGets()
	if err != nil {
		return out, err
	}
	out.Gets = len(g.held) + len(g.zero)
	return out, nil
}

func (s *Session) totals() (auditTotals, error) {
	var perCPU []auditTotals
	var sum auditTotals
	defer unpreempted()()
	if err := s.objs.Maps["counts"].Lookup(uint32(0), &perCPU); err != nil {
		return sum, fmt.Errorf("read the counters: %w", err)
	}
	for _, t := range perCPU {
		sum.Operations += t.Operations
		sum.PinsTaken += t.PinsTaken
		sum.PinsReleased += t.PinsReleased
		sum.GetsTaken += t.GetsTaken
		sum.Queued += t.Queued
		sum.Completed += t.Completed
		sum.SlowestNs = max(sum.SlowestNs, t.SlowestNs)
		for i, l := range t.Lost {
			sum.Lost[i].Events += l.Events
			if l.Error != 0 {
				sum.Lost[i].Error = l.Error
			}
		}
		sum.LostPages += t.LostPages
		sum.Unattributed += t.Unattributed
		sum.ForeignReleased += t.ForeignReleased
		sum.GetsUntracked += t.GetsUntracked
		sum.ForksAgain += t.ForksAgain
		for i, d := range t.Dual {
			sum.Dual[i].Kprobe += d.Kprobe
			sum.Dual[i].Fentry += d.Fentry
			sum.Dual[i].Handled += d.Handled
		}
	}
	return sum, nil
}

// stop makes the programs leave everything as it is, for what is read must
// fit together while others go on working, and waits for the last events.
func (s *Session) stop() error {
	if err := s.objs.Variables["stopped"].Set(uint32(1)); err != nil {
		return fmt.Errorf("stop the programs: %w", err)
	}
	s.skippedAtEnd = s.skipped() // of the programs that do nothing now none is missed
	time.Sleep(settle)           // one that runs ends
	if err := s.reader.Flush(); err != nil {
		return fmt.Errorf("read the last events: %w", err)
	}
	s.done.Wait()
	if s.deaf != nil {
		return fmt.Errorf("read the events: %w", s.deaf)
	}
	return nil
}

// settle is how long a program may go on that was running when they were told to stop.
const settle = 20 * time.Millisecond

// Evidence ends the watching, and reads all that the rules judge. The caller
// fills in what only it knows: limits and filters.
func (s *Session) Evidence() (audit.Evidence, error) {
	looked := now()
	before, err := s.pinned()
	if err != nil {
		return audit.Evidence{}, err
	}
	if err := s.stop(); err != nil {
		return audit.Evidence{}, err
	}
	e := audit.Evidence{Coverage: s.coverage, End: now()}
	totals, after, err := s.final()
	if err != nil {
		return e, err
	}
	ops, err := readMap[uint64, auditOp](s.objs.Maps["ops"])
	if err != nil {
		return e, err
	}
	e.Totals = audit.Totals{
		Operations: totals.Operations + uint64(len(ops)), PinsTaken: totals.PinsTaken, PinsReleased: totals.PinsReleased,
		GetsTaken: totals.GetsTaken, Queued: totals.Queued, Completed: totals.Completed, Slowest: time.Duration(totals.SlowestNs),
	}
	if totals.GetsTaken > 0 {
		if err := s.gotten(&e, totals); err != nil {
			return e, err
		}
	}
	if totals.Unattributed > 0 {
		e.Coverage.Missing = append(slices.Clone(e.Coverage.Missing), audit.Missing{
			Hook: "holders of a page", Rules: dirtyRules,
			Reason: fmt.Sprintf("%d pages, with more holders at a time than are listed, were released by one that isn't known", totals.Unattributed),
		})
	}
	s.mu.Lock()
	events := slices.Clone(s.events)
	e.Lost = s.lost(totals)
	s.mu.Unlock()

	for _, v := range events {
		e.Events = append(e.Events, audit.Event{
			Kind: audit.EventKind(v.Kind), Pages: v.Pages, Value: v.Value, At: time.Duration(v.Now),
			Stack: s.stacks.below(v.Handler, v.Stack), Op: s.fullOp(v.Op),
		})
	}
	for id, op := range ops {
		o := s.fullOp(op)
		if o.Kind.Async() && !o.Ended() {
			e.Unfinished = append(e.Unfinished, o)
			delete(s.overdue, id)
		}
		if o.Ended() && (o.Late > 0 || o.Clean > 0 || o.Longest > 0) {
			e.Events = append(e.Events, audit.Event{Kind: audit.EventOp, Op: o})
		}
	}
	e.Overdue, e.Stuck = slices.Collect(maps.Values(s.overdue)), s.stuck
	e.Held = s.held(after, ops)
	gone := unseenReleases(before, after, looked, ops) + vanished(totals, after)
	e.Lost.UntrackedPages += gone
	e.Lost.Unseen = e.Lost.Unseen || gone > 0
	return e, s.symbolize()
}

func plainOp(op auditOp) audit.Op {
	return audit.Op{
		ID: op.Id, Kind: audit.Kind(op.Kind), PID: int(op.Tgid), TID: int(op.Tid), Comm: comm(op.Comm),
		Start: time.Duration(op.StartNs), End: time.Duration(op.EndNs), Result: op.Result,
		Bytes: op.Flags&flagBytes != 0, BlockLayer: op.Flags&flagBio != 0, LongTerm: op.Flags&flagLongTerm != 0,
		Queued: op.Flags&flagQueued != 0, Writes: op.Flags&flagWrites != 0, Completions: op.Completions,
		Taken: op.Taken, TakenWrite: op.TakenWrite, Live: op.Live, Dirty: op.Dirty, Clean: op.Clean,
		Late: op.Late, LateDirty: op.LateDirty, Requested: op.Requested, Longest: time.Duration(op.LongestNs),
	}
}

func (s *Session) fullOp(op auditOp) audit.Op {
	o := plainOp(op)
	o.PinStack, o.CleanStack = s.stacks.get(op.PinStack), s.stacks.get(op.CleanStack)
	o.LateStack, o.EndStack = s.stacks.get(op.LateStack), s.stacks.get(op.EndStack)
	o.Handler = s.stacks.below(op.Handler, 0)
	return o
}

func comm(c [16]int8) string {
	b := make([]byte, 0, len(c))
	for _, x := range c {
		b = append(b, byte(x))
	}
	name, _, _ := bytes.Cut(b, []byte{0})
	return string(name)
}

// isEnd says that a batch was the map's last.
func isEnd(err error) bool { return errors.Is(err, ebpf.ErrKeyNotExist) }
