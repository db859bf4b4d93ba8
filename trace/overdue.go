// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"maps"
	"slices"
	"time"
)

// NoteOverdue remembers the operations that have been in flight for longer
// than limit and than 20 times the slowest that completed, and returns how
// many there are now, but for those that may wait by design. Those that
// complete later are judged as overdue.
func (s *Session) NoteOverdue(limit time.Duration) (int, error) {
	ops, err := readMap[uint64, auditOp](s.objs.Maps["ops"])
	if err != nil {
		return 0, err
	}
	totals, err := s.totals()
	if err != nil {
		return 0, err
	}
	limit = max(limit, 20*time.Duration(totals.SlowestNs))
	t := now()
	n := 0
	owners := map[int]bool{}
	for id, op := range ops {
		o := plainOp(op)
		if o.Kind.Async() && !o.Ended() && o.Queued && t-o.Start > limit {
			o.PinStack, o.Handler = s.stacks.get(op.PinStack), s.stacks.below(op.Handler, 0)
			o.End = t
			s.overdue[id] = o
			owners[o.PID] = true
			if !o.Waits() {
				n++
			}
		}
	}
	s.exits = noteExits(s.exits, owners, exiting, t)
	return n, nil
}

// noteExits keeps since when each of the processes is in its exit.
func noteExits(since map[int]time.Duration, pids map[int]bool, exiting func(int) bool, t time.Duration) map[int]time.Duration {
	out := map[int]time.Duration{}
	for pid := range pids {
		if !exiting(pid) {
			continue
		}
		out[pid] = t
		if before, ok := since[pid]; ok {
			out[pid] = before
		}
	}
	return out
}

// stuck says whether the process doesn't come to the end of its exit, where it
// waits for its requests, of which some are overdue. Those that had only waited
// for something are about to be cancelled at first.
func (s *Session) stuck(pid int) bool {
	since, ok := s.exits[pid]
	return ok && now()-since >= drainLimit && exiting(pid)
}

// stuckAny is a process in scope that is stuck, the one of the lowest number; 0: none is.
func (s *Session) stuckAny() int {
	for _, pid := range slices.Sorted(maps.Keys(s.exits)) {
		if s.stuck(pid) {
			return pid
		}
	}
	return 0
}
