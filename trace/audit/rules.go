// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The rules, by the names that users rely on.
const (
	RulePinLeak        = "pin-leak"
	RuleOverUnpin      = "over-unpin"
	RuleDirtyMissing   = "dirty-missing"
	RuleDirtyNeedless  = "dirty-needless"
	RuleEarlyComplete  = "early-complete"
	RuleDoubleComplete = "double-complete"
	RuleLostComplete   = "lost-complete"
	RuleSyncAsAsync    = "sync-as-async"

	RuleZeroPagePin     = "zero-page-pin"
	RuleDirtyUnlocked   = "dirty-unlocked"
	RuleDirtyLate       = "dirty-late"
	RuleResultRange     = "result-range"
	RuleLengthOverflow  = "length-overflow"
	RuleCancelFnMisuse  = "cancel-fn-misuse"
	RuleLongtermMissing = "longterm-missing"
)

// Rules are the names of all rules that Judge applies.
func Rules() []string {
	return []string{RulePinLeak, RuleOverUnpin, RuleDirtyMissing, RuleDirtyNeedless, RuleEarlyComplete, RuleDoubleComplete,
		RuleLostComplete, RuleSyncAsAsync, RuleZeroPagePin, RuleDirtyUnlocked, RuleDirtyLate, RuleResultRange, RuleLengthOverflow,
		RuleCancelFnMisuse, RuleLongtermMissing}
}

// rules are what Judge applies; each flags only what the evidence proves.
var rules = []func(*Evidence) []violation{
	pinLeak, overUnpin, dirtyMissing, dirtyNeedless, earlyComplete, doubleComplete, lostComplete, syncAsAsync,
	zeroPagePin, dirtyUnlocked, dirtyLate, resultRange, lengthOverflow, cancelFnMisuse, longtermMissing,
}

const (
	pageSize    = 4096
	settleTime  = time.Second // in which an operation that ended has released its pages
	eiocbqueued = -529        // the kernel's own: user space has no name for it
)

// pinLeak: pages still pinned, by the kernel's own count, after the
// operation that pinned them ended and its process can't come back for them.
func pinLeak(e *Evidence) []violation {
	var out []violation
	for _, h := range e.Held {
		op := h.Op
		gone := e.Gone != nil && op.PID != 0 && e.Gone(op.PID)
		switch {
		case op.Kind.Async() && !op.Ended() && (op.Queued || !gone):
			continue // still in flight, or lost: another rule's; or about to be tried again
		case !gone && (op.LongTerm || !op.Ended() || op.Kind == KindSyscall && !op.Bytes):
			continue // may be held on purpose while the process lives
		case e.End > 0 && op.Ended() && e.End-op.End < settleTime:
			continue // its release may be on its way
		}
		out = append(out, violation{
			rule: RulePinLeak, severity: SeverityError, pages: h.Pages, stack: op.PinStack, op: op,
			explain: fmt.Sprintf("%d of %d pages that a %s pinned were never released. The stack is where they were pinned: "+
				"follow every way out of it, errors and short transfers too, and call unpin_user_pages() for each page that was pinned.",
				h.Pages, op.Taken, op.Kind),
		})
	}
	for _, h := range e.Gotten {
		if slices.ContainsFunc(h.Op.PinStack, func(f Frame) bool { return f.Module == "" && lends.MatchString(f.Function) }) {
			continue
		}
		out = append(out, violation{
			rule: RulePinLeak, severity: SeverityError, pages: h.Pages, stack: h.Op.PinStack, op: h.Op,
			explain: fmt.Sprintf("%d page(s) taken with get_user_pages (FOLL_GET) were gotten and never put: their process has gone, nothing maps "+
				"them, and they aren't freed. The stack is where they were last taken: call put_page() for each on every way out, "+
				"or better use the pin_user_pages family, which is meant for access to a page's data.", h.Pages),
		})
	}
	return out
}

// lends matches the kernel's functions that take a page of a process and may
// rightly keep it for longer than that: a pipe's, a socket's, a file's.
var lends = regexp.MustCompile(`vmsplice|iter_to_pipe|sendmsg|zerocopy|skb_|exec`)

// overUnpin: a release of a page with no live pin.
func overUnpin(e *Evidence) []violation {
	var out []violation
	for _, v := range e.Events {
		if v.Kind == EventOverUnpin {
			out = append(out, violation{
				rule: RuleOverUnpin, severity: SeverityError, pages: v.Pages, stack: v.Stack, op: v.Op,
				explain: "More pages were released than were pinned: the page's reference count falls below its users', and it can be freed " +
					"while in use. Release each page once, by one owner: look for an error path that releases what the caller releases again.",
			})
		}
	}
	return out
}

// dirtyMissing: the device wrote into pages, and they were released clean.
// An operation that moved less than it was given only has to dirty the pages
// that its result covers.
func dirtyMissing(e *Evidence) []violation {
	var out []violation
	// Of two releases of one page, the account knows only the first: that it
	// was clean proves nothing. One that was dirtied late isn't lost.
	excused := map[uint64]bool{}
	for _, v := range e.Events {
		if v.Op.ID != 0 && (v.Kind == EventOverUnpin || v.Kind == EventDirtyLate && dirtiedByModule(v.Stack)) {
			excused[v.Op.ID] = true
		}
	}
	for _, v := range e.Events {
		op := v.Op
		// Many drivers pin for writing whatever they do: a write leaves the memory as it was.
		if v.Kind != EventOp || op.Clean == 0 || op.TakenWrite == 0 || op.LongTerm || op.Writes || excused[op.ID] {
			continue
		}
		const fix = "Release pages that the device wrote with unpin_user_pages_dirty_lock(pages, n, true), " +
			"or call set_page_dirty_lock() on each before its release; else reclaim drops the data."
		switch {
		case op.Bytes && op.Result > 0:
			need := min(uint64(op.Result+pageSize-1)/pageSize, uint64(op.TakenWrite))
			if uint64(op.Dirty) < need {
				out = append(out, violation{
					rule: RuleDirtyMissing, severity: SeverityError, pages: uint32(need) - op.Dirty, stack: op.CleanStack, op: op,
					explain: fmt.Sprintf("A read of %d bytes wrote into %d pages, of which %d were released without being marked dirty. %s",
						op.Result, need, uint32(need)-op.Dirty, fix),
				})
			}
		case !op.Bytes && op.Result >= 0 && op.Dirty == 0:
			out = append(out, violation{
				rule: RuleDirtyMissing, severity: SeverityWarning, pages: op.Clean, stack: op.CleanStack, op: op,
				explain: fmt.Sprintf("A %s pinned %d pages for writing (FOLL_WRITE), succeeded, and released all of them clean. "+
					"If the device wrote into them, data is lost; if it never does, pin without FOLL_WRITE. %s", op.Kind, op.TakenWrite, fix),
			})
		}
	}
	return out
}

// dirtyNeedless: pages were dirtied that nobody had pinned for writing.
func dirtyNeedless(e *Evidence) []violation {
	var out []violation
	for _, v := range e.Events {
		if v.Kind != EventDirtyReadOnly {
			continue
		}
		// Much of the kernel dirties pages for good reasons, a file's own file
		// system too; only the module that pinned the page is to blame. A
		// dirtying release is always the owner's. What that release dirties on
		// its way was judged by it, as a whole: its own pins are out of the
		// account by then, and those of others in the same folio may all be
		// for reading.
		if v.Value == 1 && (!dirtiedByPinner(v) || inDirtyingRelease(v.Stack)) {
			continue
		}
		out = append(out, violation{
			rule: RuleDirtyNeedless, severity: SeverityWarning, pages: v.Pages, stack: v.Stack, op: v.Op,
			explain: "Pages that were pinned only for the device to read (no FOLL_WRITE) were marked dirty: needless writeback, and wrong for " +
				"read-only mappings. Pass make_dirty only when the device wrote into memory: for a read of the file, not for a write.",
		})
	}
	return out
}

// inDirtyingRelease: the dirtying call came from unpin_user_pages_dirty_lock or its kin.
func inDirtyingRelease(s Stack) bool {
	return slices.ContainsFunc(s, func(f Frame) bool {
		return f.Module == "" && strings.HasPrefix(f.Function, "unpin_user_page") && strings.Contains(f.Function, "dirty_lock")
	})
}

// dirtiedByModule: a module called the dirtying helper directly.
func dirtiedByModule(s Stack) bool {
	for _, f := range s {
		if notDriver[f.Module] || helper.MatchString(f.Function) && f.Module == "" {
			continue
		}
		return f.Module != ""
	}
	return false
}

// dirtiedByPinner: by the module itself that had taken the page.
func dirtiedByPinner(v Event) bool {
	return dirtiedByModule(v.Stack) && blame(v.Stack).Module == blame(v.Op.PinStack).Module
}

// earlyComplete: the operation was told complete while the driver still had
// work to do on its pages. The block layer is left out: it dirties before it
// submits and, by design, releases just after it completes.
func earlyComplete(e *Evidence) []violation {
	var out []violation
	for _, v := range e.Events {
		op := v.Op
		if v.Kind != EventOp || op.Late == 0 || op.LongTerm || op.BlockLayer || e.heldLong(op) {
			continue
		}
		switch {
		case op.LateDirty > 0 && (!op.Bytes || op.Result > 0):
			out = append(out, violation{
				rule: RuleEarlyComplete, severity: SeverityError, pages: op.LateDirty, stack: op.LateStack, op: op,
				explain: fmt.Sprintf("A %s was told complete before %d of its pages were marked dirty: its user can read or reuse the buffer "+
					"before the data is in place. Move the data, mark the pages dirty, release them, and only then call ki_complete().",
					op.Kind, op.LateDirty),
			})
		case op.Kind.Async():
			out = append(out, violation{
				rule: RuleEarlyComplete, severity: SeverityWarning, pages: op.Late, stack: op.LateStack, op: op,
				explain: fmt.Sprintf("A %s was told complete while %d of its pages were still pinned, and released later. "+
					"Its user may reuse or free the buffer that the device still works on. Release first, then call ki_complete().",
					op.Kind, op.Late),
			})
		}
	}
	return out
}

// doubleComplete: one operation completed twice, or completed and also returned a result.
func doubleComplete(e *Evidence) []violation {
	var out []violation
	seen := map[uint64]bool{}
	for _, v := range e.Events {
		if v.Kind != EventCompletedAgain && v.Kind != EventReturnedToo || seen[v.Op.ID] && v.Op.ID != 0 {
			continue
		}
		seen[v.Op.ID] = true
		explain := fmt.Sprintf("A %s was told complete %d times: the second call works on a kiocb that may be freed or reused. "+
			"Let one atomic transition (of completion, cancel, timeout) pick who completes.", v.Op.Kind, max(2, v.Op.Completions))
		if v.Kind == EventReturnedToo {
			explain = fmt.Sprintf("A %s was told complete, and the driver's function then returned %d: its caller completes it a second time. "+
				"Once a request may be completed by ki_complete(), return -EIOCBQUEUED.", v.Op.Kind, v.Value)
		}
		out = append(out, violation{
			rule: RuleDoubleComplete, severity: SeverityError, stack: v.Stack, op: v.Op, explain: explain,
		})
	}
	return out
}

// lostComplete: the driver took an operation and didn't complete it.
func lostComplete(e *Evidence) []violation {
	var out []violation
	for _, op := range e.Unfinished {
		if !op.Queued {
			continue // the driver's function hasn't returned
		}
		age := e.End - op.Start
		gone := e.Gone != nil && e.Gone(op.PID)
		if age < e.LostAfter && !gone {
			continue
		}
		if op.Waits() && !gone && (e.Stuck == nil || !e.Stuck(op.PID)) {
			out = append(out, waiting(op, age))
			continue
		}
		out = append(out, violation{
			rule: RuleLostComplete, severity: SeverityError, pages: op.Live, stack: submission(op), op: op,
			explain: fmt.Sprintf("A %s was queued and, %s later, isn't completed. The process can't exit and its pages stay pinned. "+
				"Every path that takes a request must end in ki_complete(): look at errors, timeouts, cancel and removal.",
				op.Kind, age.Round(time.Millisecond)),
		})
	}
	for _, op := range e.Overdue {
		age := op.End - op.Start
		if op.Waits() {
			out = append(out, waiting(op, age))
			continue
		}
		out = append(out, violation{
			rule: RuleLostComplete, severity: SeverityError, stack: submission(op), op: op,
			explain: fmt.Sprintf("A %s was queued and not completed for %s, far longer than any other. If the device may really be that slow, "+
				"raise --lost-after; else look for a completion that is only rescued by a timeout or by closing the device.",
				op.Kind, age.Round(time.Millisecond)),
		})
	}
	return out
}

// waiting is a command that was queued for long and may be meant to.
func waiting(op Op, age time.Duration) violation {
	return violation{
		rule: RuleLostComplete, severity: SeverityAdvice, stack: submission(op), op: op,
		explain: fmt.Sprintf("An %s was queued and not completed for %s. It has no pages pinned, and may well wait for something that hasn't "+
			"happened yet. If it should have been done by then, look for a path that doesn't call io_uring_cmd_done().",
			op.Kind, age.Round(time.Millisecond)),
	}
}

// submission is where a request came to the driver.
func submission(op Op) Stack {
	if len(op.PinStack) > 0 {
		return op.PinStack
	}
	return op.Handler
}

// syncAsAsync: a synchronous caller was told to wait for a completion that can't come.
func syncAsAsync(e *Evidence) []violation {
	var out []violation
	for _, v := range e.Events {
		if v.Kind != EventSyncQueued || v.Op.ID == 0 && seenInside(e.Events, v) {
			continue
		}
		out = append(out, violation{
			rule: RuleSyncAsAsync, severity: SeverityError, stack: v.Stack, op: v.Op,
			explain: fmt.Sprintf("-EIOCBQUEUED (%d) was returned for a synchronous kiocb: it has no ki_complete to call, so the kernel crashes "+
				"or the caller sees error 529. Where is_sync_kiocb() is true, wait for the request (killably) and return its result.", eiocbqueued),
		})
	}
	return out
}

// seenInside says that the same return was also seen at the driver's own
// function, which the one that v is about had called.
func seenInside(events []Event, v Event) bool {
	return slices.ContainsFunc(events, func(inner Event) bool {
		return inner.Kind == EventSyncQueued && inner.Op.ID != 0 && inner.Op.TID == v.Op.TID &&
			inner.At <= v.At && v.At-inner.At < 100*time.Millisecond
	})
}
