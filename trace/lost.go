// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"maps"
	"slices"
	"time"

	"dio/trace/audit"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A thread that enters the kernel in the middle of a call lost its return only
// if both programs that see returns missed one. Its call has ended later than it did.
const lostReturn = 7

// fullRing loses findings, and makes none wrong.
const fullRing = 0

// lostCauses names what found no place, in the order of enum lost_cause in bpf/state.h.
var lostCauses = [...]string{
	fullRing: "the ring of events is full",
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
	l := audit.Lost{UntrackedPages: t.LostPages + t.GetsUntracked, Unseen: t.LostPages > 0}
	for i, c := range t.Lost {
		why := lostCauses[i]
		if c.Error < 0 {
			why += ": " + unix.Errno(-c.Error).Error()
		}
		if i == lostReturn {
			c.Events = min(c.Events, s.misses("on_sys_exit"), s.misses("on_sys_exit_again"))
		}
		if i == fullRing || i == lostReturn {
			l.Add(why, c.Events)
		} else {
			l.AddUnseen(why, c.Events)
		}
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
		l.AddUnseen("calls unseen of "+h.names[0], s.unseen(t, i))
		spared += max(0, s.calls(t, i)-int64(t.Dual[i].Kprobe-s.atStart.Dual[i].Kprobe))
	}
	for _, name := range slices.Sorted(maps.Keys(s.objs.Programs)) {
		if slices.ContainsFunc(dualHooks, func(h dualHook) bool { return h.program == name }) {
			continue
		}
		switch name {
		case "on_enter":
			l.AddUnseen("entries unseen", positive(int64(s.misses(name))-spared))
		case "on_page_free": // what it left behind is checked in the end
		case "on_exit": // who gets that number next clears what it left behind, but is in scope if the process was
		case "on_sys_exit", "on_sys_exit_again", "on_sys_enter": // lostReturn tells, if it matters
		case "on_fork_again":
		case "on_fork":
			// Lost only if both missed it.
			again := int64(t.ForksAgain - s.atStart.ForksAgain)
			l.AddUnseen("forks unseen", min(positive(int64(s.misses(name))-again), s.misses("on_fork_again")))
		default:
			l.AddUnseen("runs skipped of "+name, s.misses(name))
		}
	}
}

// calls is how often the function of dualHooks[i] was called.
func (s *Session) calls(t auditTotals, i int) int64 {
	return int64(t.Dual[i].Fentry - s.atStart.Dual[i].Fentry + s.misses(dualHooks[i].program))
}

// unseen is how many of its calls neither program handled.
func (s *Session) unseen(t auditTotals, i int) uint64 {
	return positive(s.calls(t, i) - int64(t.Dual[i].Handled-s.atStart.Dual[i].Handled))
}

// final reads the counters, and what is pinned, until they fit together: what two
// programs see goes on being counted, and a program that ran when all were
// stopped may end late. What was lost stays lost.
func (s *Session) final() (auditTotals, pinned, error) {
	for try := 0; ; try++ {
		t, err := s.totals()
		if err != nil {
			return t, nil, err
		}
		p, err := s.pinned()
		fits := vanished(t, p) == 0
		for i := range dualHooks {
			fits = fits && s.unseen(t, i) == 0
		}
		if err != nil || fits || try == 5 {
			return t, p, err
		}
		time.Sleep(settle)
	}
}

// vanished is how many pages were taken that are neither released nor in the account.
func vanished(t auditTotals, p pinned) uint64 {
	return positive(int64(t.PinsTaken - t.PinsReleased - t.LostPages - p.pages()))
}

func positive(n int64) uint64 { return uint64(max(0, n)) }

// misses is how often the kernel has skipped a program, from when all was
// attached until the end.
func (s *Session) misses(name string) uint64 {
	return s.skippedAtEnd[name] - s.skippedAtStart[name]
}

// noteStart remembers what was counted while the programs were attached, one
// after the other: what one alone saw or missed by then is no loss.
func (s *Session) noteStart() error {
	var err error
	s.atStart, err = s.totals()
	s.skippedAtStart = s.skipped()
	return err
}

// skipped asks the kernel's counts of all programs. Calls go on being counted
// meanwhile, and one that is counted as skipped only would look lost: so this
// is read after the programs' own counts at the start, and before them at the end.
func (s *Session) skipped() map[string]uint64 {
	counts := map[string]uint64{}
	for name, p := range s.objs.Programs {
		counts[name] = skipped(p)
	}
	return counts
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
