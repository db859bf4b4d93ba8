// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func stack(frames ...string) Stack {
	var s Stack
	for _, f := range frames {
		if name, ok := cutPrefix(f, "drv:"); ok {
			s = append(s, Frame{Function: name, Module: "drv"})
		} else {
			s = append(s, Frame{Function: f})
		}
	}
	return s
}

func cutPrefix(s, prefix string) (string, bool) {
	if len(s) > len(prefix) && s[:len(prefix)] == prefix {
		return s[len(prefix):], true
	}
	return s, false
}

var (
	pinnedAt   = stack("pin_user_pages_fast", "iov_iter_extract_pages", "drv:drv_map", "drv:drv_read_iter")
	releasedAt = stack("unpin_user_pages", "drv:drv_finish")
	dirtiedAt  = stack("unpin_user_pages_dirty_lock", "drv:drv_finish")
)

// read is a native AIO read of 16 KiB into 4 pages that went well.
func read(change func(*Op)) Op {
	op := Op{
		ID: 1, Kind: KindAIO, PID: 10, TID: 11, Comm: "app", Start: time.Second, End: 2 * time.Second,
		Result: 16384, Bytes: true, Completions: 1, Taken: 4, TakenWrite: 4, Dirty: 4, PinStack: pinnedAt,
	}
	if change != nil {
		change(&op)
	}
	return op
}

func ended(change func(*Op)) Evidence {
	return Evidence{Events: []Event{{Kind: EventOp, Op: read(change)}}}
}

// longAfter is an operation of which a page was released 4 seconds later.
func longAfter(change func(*Op)) Evidence {
	e := ended(func(op *Op) {
		op.Late, op.LateStack, op.Longest = 1, releasedAt, 4*time.Second
		change(op)
	})
	e.LostAfter = 3 * time.Second
	return e
}

func TestRules(t *testing.T) {
	gone := func(int) bool { return true }
	alive := func(int) bool { return false }
	command := func(op *Op) {
		*op = Op{ID: 1, Kind: KindURingCmd, PID: 10, Start: time.Second, Queued: true, Handler: stack("drv:drv_uring_cmd")}
	}
	running := func(op *Op) { op.Completions, op.End, op.Live, op.Dirty, op.Queued = 0, 0, 4, 0, true }
	refused := func(op *Op) { op.Completions, op.End, op.Live, op.Dirty, op.Queued = 0, 0, 4, 0, false }
	proven := map[string]bool{}

	for name, c := range map[string]struct {
		evidence Evidence
		want     []string // rules, sorted
		pages    uint64   // of the first finding
		severity string
	}{
		"nothing seen": {},

		"pin-leak: a completed request keeps a page": {
			evidence: Evidence{Held: []Held{{Pages: 1, Op: read(nil)}}, Gone: alive},
			want:     []string{RulePinLeak}, pages: 1, severity: SeverityError},
		"pin-leak: a long-term pin outlives its process": {
			evidence: Evidence{Held: []Held{{Pages: 4, Op: read(func(op *Op) { op.Kind, op.Bytes, op.LongTerm = KindSyscall, false, true })}}, Gone: gone},
			want:     []string{RulePinLeak}, pages: 4, severity: SeverityError},
		"a request that ended as the audit did": {
			evidence: Evidence{Held: []Held{{Pages: 1, Op: read(nil)}}, Gone: alive, End: 2*time.Second + time.Millisecond}},
		"pin-leak: the audit went on for long enough": {
			evidence: Evidence{Held: []Held{{Pages: 1, Op: read(nil)}}, Gone: alive, End: 4 * time.Second},
			want:     []string{RulePinLeak}, pages: 1, severity: SeverityError},
		"pin-leak: gotten and never put": {
			evidence: Evidence{Gotten: []Held{{Pages: 2, Op: read(func(op *Op) { op.PinStack = stack("get_user_pages_fast", "drv:drv_take") })}}},
			want:     []string{RulePinLeak}, pages: 2, severity: SeverityError},
		"gotten for a pipe, which may outlive the process": {
			evidence: Evidence{Gotten: []Held{{Pages: 2, Op: read(func(op *Op) {
				op.PinStack = stack("get_user_pages_fast", "iov_iter_get_pages2", "iter_to_pipe", "vmsplice_to_pipe")
			})}}}},
		"a long-term pin of a living process": {
			evidence: Evidence{Held: []Held{{Pages: 4, Op: read(func(op *Op) { op.Kind, op.Bytes, op.LongTerm = KindSyscall, false, true })}}, Gone: alive}},
		"an ioctl that pins for later, process alive": {
			evidence: Evidence{Held: []Held{{Pages: 4, Op: read(func(op *Op) { op.Kind, op.Bytes = KindSyscall, false })}}, Gone: alive}},
		"a request in flight at the end": {
			evidence: Evidence{Held: []Held{{Pages: 4, Op: read(running)}}, Unfinished: []Op{read(running)},
				End: 2 * time.Second, LostAfter: 3 * time.Second, Gone: alive}},

		"pin-leak: refused for now, and never tried again": {
			evidence: Evidence{Held: []Held{{Pages: 4, Op: read(refused)}}, Unfinished: []Op{read(refused)}, End: 9 * time.Second, LostAfter: 3 * time.Second, Gone: gone},
			want:     []string{RulePinLeak}, pages: 4, severity: SeverityError},
		"refused for now, and may be tried again": {
			evidence: Evidence{Held: []Held{{Pages: 4, Op: read(refused)}}, Unfinished: []Op{read(refused)}, End: 9 * time.Second, LostAfter: 3 * time.Second, Gone: alive}},

		"over-unpin": {
			evidence: Evidence{Events: []Event{{Kind: EventOverUnpin, Pages: 2, Stack: releasedAt, Op: read(nil)}}},
			want:     []string{RuleOverUnpin}, pages: 2, severity: SeverityError},
		"over-unpin makes the clean release of that operation no proof": {
			evidence: Evidence{Events: []Event{
				{Kind: EventOverUnpin, Pages: 1, Stack: releasedAt, Op: read(nil)},
				{Kind: EventOp, Op: read(func(op *Op) { op.Dirty, op.Clean = 3, 1 })},
			}}, want: []string{RuleOverUnpin}, pages: 1, severity: SeverityError},

		"dirty-missing: all pages clean": {
			evidence: ended(func(op *Op) { op.Dirty, op.Clean, op.CleanStack = 0, 4, releasedAt }),
			want:     []string{RuleDirtyMissing}, pages: 4, severity: SeverityError},
		"dirty-missing: one page too few": {
			evidence: ended(func(op *Op) { op.Dirty, op.Clean = 3, 1 }),
			want:     []string{RuleDirtyMissing}, pages: 1, severity: SeverityError},
		"a short read dirties what it covers": {
			evidence: ended(func(op *Op) { op.Result, op.Dirty, op.Clean = 4097, 2, 2 })},
		"dirty-missing: a short read that covers more than it dirties": {
			evidence: ended(func(op *Op) { op.Result, op.Dirty, op.Clean = 4097, 1, 3 }),
			want:     []string{RuleDirtyMissing}, pages: 1, severity: SeverityError},
		"a failed read releases clean":      {evidence: ended(func(op *Op) { op.Result, op.Dirty, op.Clean = -5, 0, 4 })},
		"a read at the end of the device":   {evidence: ended(func(op *Op) { op.Result, op.Dirty, op.Clean = 0, 0, 4 })},
		"a write has nothing to dirty":      {evidence: ended(func(op *Op) { op.TakenWrite, op.Dirty = 0, 0 })},
		"a write, pinned as for a read":     {evidence: ended(func(op *Op) { op.Writes, op.Dirty, op.Clean = true, 0, 4 })},
		"registered buffers are left clean": {evidence: ended(func(op *Op) { op.LongTerm, op.Dirty, op.Clean = true, 0, 4 })},
		"a result larger than what was pinned (rest copied)": {
			evidence: ended(func(op *Op) { op.Result, op.Clean = 1<<20, 0 })},
		"dirty-missing: an ioctl that succeeds": {
			evidence: ended(func(op *Op) { op.Kind, op.Bytes, op.Result, op.Dirty, op.Clean = KindSyscall, false, 0, 0, 4 }),
			want:     []string{RuleDirtyMissing}, pages: 4, severity: SeverityWarning},
		"an ioctl that dirties some": {
			evidence: ended(func(op *Op) { op.Kind, op.Bytes, op.Result, op.Dirty, op.Clean = KindSyscall, false, 0, 1, 3 })},

		"dirty-needless: by the release": {
			evidence: Evidence{Events: []Event{{Kind: EventDirtyReadOnly, Pages: 4, Stack: dirtiedAt, Op: read(nil)}}},
			want:     []string{RuleDirtyNeedless}, pages: 4, severity: SeverityWarning},
		"dirty-needless: within a dirtying release, which was judged itself": {
			evidence: Evidence{Events: []Event{{Kind: EventDirtyReadOnly, Pages: 1, Value: 1, Op: read(nil),
				Stack: Stack{{Function: "folio_mark_dirty"}, {Function: "unpin_user_pages_dirty_lock"}, {Function: "drv_read", Module: "drv"}}}}},
		},
		"dirty-needless: by the module's own call": {
			evidence: Evidence{Events: []Event{{Kind: EventDirtyReadOnly, Pages: 1, Value: 1, Op: read(nil),
				Stack: stack("set_page_dirty_lock", "drv:drv_finish")}}},
			want: []string{RuleDirtyNeedless}, pages: 1, severity: SeverityWarning},
		"a file system dirties its own page, which another has pinned for reading": {
			evidence: Evidence{Events: []Event{{Kind: EventDirtyReadOnly, Pages: 1, Value: 1, Op: read(nil),
				Stack: Stack{{Function: "folio_mark_dirty"}, {Function: "fs_write_end", Module: "fs"}}}}}},
		"a file system dirties, and who pinned the page isn't known": {
			evidence: Evidence{Events: []Event{{Kind: EventDirtyReadOnly, Pages: 1, Value: 1, Op: read(func(op *Op) { op.PinStack = nil }),
				Stack: Stack{{Function: "folio_mark_dirty"}, {Function: "fs_write_end", Module: "fs"}}}}}},
		"the core kernel dirties for its own reasons": {
			evidence: Evidence{Events: []Event{{Kind: EventDirtyReadOnly, Pages: 1, Value: 1, Op: read(nil),
				Stack: stack("folio_mark_dirty", "shmem_write_end", "generic_perform_write", "drv:drv_ioctl")}}}},

		"early-complete: dirtied after": {
			evidence: ended(func(op *Op) { op.Late, op.LateDirty, op.LateStack = 4, 4, dirtiedAt }),
			want:     []string{RuleEarlyComplete}, pages: 4, severity: SeverityError},
		"early-complete: a write's pages released after": {
			evidence: ended(func(op *Op) { op.TakenWrite, op.Dirty, op.Late, op.LateStack = 0, 0, 4, releasedAt }),
			want:     []string{RuleEarlyComplete}, pages: 4, severity: SeverityWarning},
		"the block layer releases just after": {
			evidence: ended(func(op *Op) { op.BlockLayer, op.Late = true, 4 })},
		"a synchronous call that only reads pages may release them late": {
			evidence: ended(func(op *Op) { op.Kind, op.TakenWrite, op.Dirty, op.Late = KindSync, 0, 0, 4 })},
		"early-complete: a synchronous call that dirties late": {
			evidence: ended(func(op *Op) { op.Kind, op.Late, op.LateDirty, op.LateStack = KindSync, 4, 4, dirtiedAt }),
			want:     []string{RuleEarlyComplete}, pages: 4, severity: SeverityError},

		"double-complete": {
			evidence: Evidence{Events: []Event{{Kind: EventCompletedAgain, Stack: stack("aio_complete_rw", "drv:drv_irq"), Op: read(nil)}}},
			want:     []string{RuleDoubleComplete}, severity: SeverityError},
		"double-complete: completed and returned, counted once": {
			evidence: Evidence{Events: []Event{
				{Kind: EventReturnedToo, Value: 4096, Stack: stack("drv:drv_read_iter"), Op: read(nil)},
				{Kind: EventCompletedAgain, Stack: stack("aio_complete_rw", "aio_read"), Op: read(nil)},
			}}, want: []string{RuleDoubleComplete}, severity: SeverityError},

		"lost-complete: too old": {
			evidence: Evidence{Unfinished: []Op{read(running)}, End: 10 * time.Second, LostAfter: 3 * time.Second, Gone: alive},
			want:     []string{RuleLostComplete}, pages: 4, severity: SeverityError},
		"the driver's function runs for long": {
			evidence: Evidence{Unfinished: []Op{read(func(op *Op) { running(op); op.Queued = false })}, End: 10 * time.Second,
				LostAfter: 3 * time.Second, Gone: alive}},
		"lost-complete: its process has gone": {
			evidence: Evidence{Unfinished: []Op{read(running)}, End: 2 * time.Second, LostAfter: 3 * time.Second, Gone: gone},
			want:     []string{RuleLostComplete}, pages: 4, severity: SeverityError},
		"lost-complete: rescued later": {
			evidence: Evidence{Overdue: []Op{read(nil)}}, want: []string{RuleLostComplete}, severity: SeverityError},
		"lost-complete: nothing pinned, the driver known by its function": {
			evidence: Evidence{Overdue: []Op{read(func(op *Op) { op.PinStack, op.Handler = nil, stack("drv:drv_read_iter") })}},
			want:     []string{RuleLostComplete}, severity: SeverityError},
		"lost-complete: a command with pages, too old": {
			evidence: Evidence{Unfinished: []Op{read(func(op *Op) { running(op); op.Kind = KindURingCmd })}, End: 10 * time.Second,
				LostAfter: 3 * time.Second, Gone: alive},
			want: []string{RuleLostComplete}, pages: 4, severity: SeverityError},
		"lost-complete: a command with pages, rescued later": {
			evidence: Evidence{Overdue: []Op{read(func(op *Op) { op.Kind, op.Live = KindURingCmd, 0 })}, Gone: gone},
			want:     []string{RuleLostComplete}, severity: SeverityError},
		"lost-complete: a command without pages, its process gone": {
			evidence: Evidence{Unfinished: []Op{read(command)}, End: 10 * time.Second, LostAfter: 3 * time.Second, Gone: gone},
			want:     []string{RuleLostComplete}, severity: SeverityError},
		"lost-complete: a command without pages, its process stuck": {
			evidence: Evidence{Unfinished: []Op{read(command)}, End: 10 * time.Second, LostAfter: 3 * time.Second, Gone: alive, Stuck: gone},
			want:     []string{RuleLostComplete}, severity: SeverityError},
		"a command without pages waits, its process alive": {
			evidence: Evidence{Unfinished: []Op{read(command)}, End: 10 * time.Second, LostAfter: 3 * time.Second, Gone: alive, Stuck: alive},
			want:     []string{RuleLostComplete}, severity: SeverityAdvice},
		"a command without pages had waited, its process gone since": {
			evidence: Evidence{Overdue: []Op{read(command)}, Gone: gone},
			want:     []string{RuleLostComplete}, severity: SeverityAdvice},

		"sync-as-async": {
			evidence: Evidence{Events: []Event{{Kind: EventSyncQueued, Stack: stack("drv:drv_read_iter", "vfs_read"), Op: read(nil)}}},
			want:     []string{RuleSyncAsAsync}, severity: SeverityError},
		"sync-as-async: at the driver and at its caller, counted once": {
			evidence: Evidence{Events: []Event{
				{Kind: EventSyncQueued, At: time.Second, Stack: stack("drv:drv_read_iter"), Op: read(nil)},
				{Kind: EventSyncQueued, At: time.Second + time.Microsecond, Stack: stack("copy_splice_read", "drv:drv_splice_read"), Op: Op{TID: 11}},
			}}, want: []string{RuleSyncAsAsync}, severity: SeverityError},

		"zero-page-pin": {
			evidence: Evidence{ZeroPage: []Held{{Pages: 3, Op: read(func(op *Op) { op.PinStack = stack("get_user_pages_fast", "drv:drv_take") })}}},
			want:     []string{RuleZeroPagePin}, pages: 3, severity: SeverityWarning},

		"dirty-unlocked": {
			evidence: Evidence{Events: []Event{{Kind: EventDirtyUnlocked, Pages: 1, Op: read(nil),
				Stack: stack("folio_mark_dirty", "set_page_dirty", "drv:drv_finish")}}},
			want: []string{RuleDirtyUnlocked}, pages: 1, severity: SeverityError},
		"the kernel dirties what it unmaps, under the page table's lock": {
			evidence: Evidence{Events: []Event{{Kind: EventDirtyUnlocked, Pages: 1, Op: read(nil),
				Stack: stack("folio_mark_dirty", "zap_pte_range", "unmap_vmas", "exit_mmap")}}}},

		"dirty-late: and its clean release is told once": {
			evidence: Evidence{Events: []Event{
				{Kind: EventDirtyLate, Pages: 1, Op: read(nil), Stack: stack("set_page_dirty_lock", "drv:drv_finish")},
				{Kind: EventOp, Op: read(func(op *Op) { op.Dirty, op.Clean, op.CleanStack = 3, 1, releasedAt })},
			}}, want: []string{RuleDirtyLate}, pages: 1, severity: SeverityError},
		"dirtied after its release by another module": {
			evidence: Evidence{Events: []Event{{Kind: EventDirtyLate, Pages: 1, Op: read(nil),
				Stack: Stack{{Function: "folio_mark_dirty"}, {Function: "fs_write_end", Module: "fs"}}}}}},
		"dirtied after its release by the kernel, which doesn't excuse a clean release": {
			evidence: Evidence{Events: []Event{
				{Kind: EventDirtyLate, Pages: 1, Op: read(nil), Stack: stack("folio_mark_dirty", "zap_pte_range")},
				{Kind: EventOp, Op: read(func(op *Op) { op.Dirty, op.Clean, op.CleanStack = 3, 1, releasedAt })},
			}}, want: []string{RuleDirtyMissing}, pages: 1, severity: SeverityError},

		"result-range": {
			evidence: Evidence{Events: []Event{{Kind: EventResultRange, Value: 20480, Stack: stack("aio_complete_rw", "drv:drv_finish"),
				Op: read(func(op *Op) { op.Requested, op.Result = 16384, 20480 })}}},
			want: []string{RuleResultRange}, severity: SeverityError},
		"result-range: at the driver and at its completion, counted once": {
			evidence: Evidence{Events: []Event{
				{Kind: EventResultRange, Value: 20480, Stack: stack("drv:drv_read_iter"), Op: read(nil)},
				{Kind: EventResultRange, Value: 20480, Stack: stack("aio_complete_rw", "drv:drv_read_iter"), Op: read(nil)},
			}}, want: []string{RuleResultRange}, severity: SeverityError},

		"length-overflow": {
			evidence: Evidence{Events: []Event{{Kind: EventPinExcess, Pages: 1056, Stack: pinnedAt,
				Op: read(func(op *Op) { op.Requested = 16384 })}}},
			want: []string{RuleLengthOverflow}, pages: 1056, severity: SeverityError},

		"cancel-fn-misuse": {
			evidence: Evidence{Events: []Event{{Kind: EventCancelFn, Stack: stack("kiocb_set_cancel_fn", "drv:drv_queue"),
				Op: read(func(op *Op) { op.Kind = KindURing })}}},
			want: []string{RuleCancelFnMisuse}, severity: SeverityError},

		"longterm-missing: released long after its operation": {
			evidence: longAfter(func(op *Op) { op.Kind, op.TakenWrite, op.Dirty = KindSync, 0, 0 }),
			want:     []string{RuleLongtermMissing}, pages: 1, severity: SeverityWarning},
		"longterm-missing: an ioctl's, which says nothing of late releases": {
			evidence: longAfter(func(op *Op) { op.Kind, op.Bytes, op.TakenWrite, op.Dirty, op.Late = KindSyscall, false, 0, 0, 0 }),
			want:     []string{RuleLongtermMissing}, pages: 1, severity: SeverityWarning},
		"longterm-missing: still held, its process alive": {
			evidence: Evidence{Held: []Held{{Pages: 4, Op: read(func(op *Op) { op.Kind, op.Bytes = KindSyscall, false })}}, Gone: alive,
				End: 6 * time.Second, LostAfter: 3 * time.Second},
			want: []string{RuleLongtermMissing}, pages: 4, severity: SeverityWarning},
		"held for a while, not for long": {
			evidence: Evidence{Held: []Held{{Pages: 4, Op: read(func(op *Op) { op.Kind, op.Bytes = KindSyscall, false })}}, Gone: alive,
				End: 4 * time.Second, LostAfter: 3 * time.Second}},
		"released long after its operation, with FOLL_LONGTERM": {
			evidence: longAfter(func(op *Op) { op.Kind, op.LongTerm = KindSync, true })},
		"early-complete: told complete long before the release": {
			evidence: longAfter(func(op *Op) { op.TakenWrite, op.Dirty = 0, 0 }),
			want:     []string{RuleEarlyComplete}, pages: 1, severity: SeverityWarning},
	} {
		t.Run(name, func(t *testing.T) {
			r := Judge(c.evidence)
			var got []string
			for _, f := range r.Findings {
				got = append(got, f.Rule)
				if f.Module != "drv" || f.Function == "" || len(f.Stack) == 0 || f.Explain == "" {
					t.Errorf("finding doesn't lead to the driver: %+v", f)
				}
			}
			for _, rule := range c.want {
				proven[rule] = true
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Fatalf("rules %v, want %v", got, c.want)
			}
			if len(c.want) == 0 {
				if r.Verdict != VerdictClean {
					t.Errorf("verdict %s, want clean", r.Verdict)
				}
				return
			}
			if f := r.Findings[0]; f.Count != 1 || f.Pages != c.pages || f.Severity != c.severity {
				t.Errorf("count %d, pages %d, %s; want 1, %d, %s", f.Count, f.Pages, f.Severity, c.pages, c.severity)
			}
			verdict := VerdictViolations
			if c.severity == SeverityAdvice {
				verdict = VerdictClean
			}
			if r.Verdict != verdict {
				t.Errorf("verdict %s, want %s", r.Verdict, verdict)
			}
		})
	}
	for _, name := range Rules() {
		if !proven[name] {
			t.Errorf("no evidence above breaks %s", name)
		}
	}
}

// Every rule is applied, and its name is one that users rely on.
func TestRulesAreListed(t *testing.T) {
	if len(Rules()) != len(rules) {
		t.Errorf("%d rules have names, %d are applied", len(Rules()), len(rules))
	}
	text, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Rules() {
		if !strings.Contains(string(text), "| `"+name+"` |") {
			t.Errorf("docs/audit.md doesn't tell of %s", name)
		}
	}
}
