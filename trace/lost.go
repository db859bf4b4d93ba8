// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"maps"
	"slices"

	"dio/trace/audit"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A thread that enters the kernel in the middle of a call lost its return only
// if both programs that see returns missed one.
const lostReturn = 7

// lostCauses names what found no place, in the order of enum lost_cause in bpf/state.h.
var lostCauses = [...]string{
	"the ring of events is full",
	"an operation found no place",
	"a kiocb found no place",
	"a thread found no place",
	"a call's note found no place",
	"a new process found no place",
	"a walk within walks",
	lostReturn: "a return from the kernel unseen",
	"a return of a function unseen",
}

// lost sums up what the programs and the kernel say they missed. The caller
// holds s.mu.
func (s *Session) lost(t auditTotals) audit.Lost {
	l := audit.Lost{UntrackedPages: t.LostPages}
	for i, c := range t.Lost {
		why := lostCauses[i]
		if c.Error < 0 {
			why += ": " + unix.Errno(-c.Error).Error()
		}
		if i == lostReturn {
			c.Events = min(c.Events, s.misses("on_sys_exit"), s.misses("on_sys_exit_again"))
		}
		l.Add(why, c.Events)
	}
	s.missed(t, &l)
	l.Add("an event made no sense", s.bad)
	return l
}

// missed adds the calls that no program saw. A function that interrupts
// call has two programs, of which one may be skipped: how often the function
// was called is known from the runs and the misses of its own program, and
// the calls that the shared program didn't see for it are no loss.
func (s *Session) missed(t auditTotals, l *audit.Lost) {
	var spared int64
	for i, h := range dualHooks {
		d, was := t.Dual[i], s.atStart.Dual[i]
		calls := int64(d.Fentry - was.Fentry + s.misses(h.program))
		l.Add("calls unseen of "+h.names[0], positive(calls-int64(d.Handled-was.Handled)))
		spared += max(0, calls-int64(d.Kprobe-was.Kprobe))
	}
	for _, name := range slices.Sorted(maps.Keys(s.objs.Programs)) {
		if slices.ContainsFunc(dualHooks, func(h dualHook) bool { return h.program == name }) {
			continue
		}
		switch name {
		case "on_enter":
			l.Add("entries unseen", positive(int64(s.misses(name))-spared))
		case "on_page_free": // what it left behind is checked in the end
		case "on_exit": // who gets that number next clears what it left behind, but is in scope if the process was
		case "on_sys_exit", "on_sys_exit_again", "on_sys_enter": // lostReturn tells, if it matters
		case "on_fork_again":
		case "on_fork":
			// Lost only if both missed it.
			l.Add("forks unseen", min(s.misses(name), s.misses("on_fork_again")))
		default:
			l.Add("runs skipped of "+name, s.misses(name))
		}
	}
}

func positive(n int64) uint64 { return uint64(max(0, n)) }

// misses is how often the kernel has skipped a program since all was attached.
func (s *Session) misses(name string) uint64 {
	return skipped(s.objs.Programs[name]) - s.skippedAtStart[name]
}

// noteStart remembers what was counted while the programs were attached, one
// after the other: what one alone saw or missed by then is no loss.
func (s *Session) noteStart() error {
	var err error
	s.skippedAtStart = map[string]uint64{}
	for name, p := range s.objs.Programs {
		s.skippedAtStart[name] = skipped(p)
	}
	s.atStart, err = s.totals()
	return err
}

// skipped is how often the kernel has skipped a program; nil has no runs.
func skipped(p *ebpf.Program) uint64 {
	if p == nil {
		return 0
	}
	stats, err := p.Stats()
	if err != nil {
		return 0 // before 5.12 no fentry program is skipped
	}
	return stats.RecursionMisses
}
