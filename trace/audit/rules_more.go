// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"fmt"
	"time"
)

// zeroPagePin: the zero page has more references than before, and somebody
// took some. Who else may have taken it meanwhile isn't known: a warning.
func zeroPagePin(e *Evidence) []violation {
	var out []violation
	for _, h := range e.ZeroPage {
		out = append(out, violation{
			rule: RuleZeroPagePin, severity: SeverityWarning, pages: h.Pages, stack: h.Op.PinStack, op: h.Op,
			explain: fmt.Sprintf("The zero page, which stands for memory that was never written, has %d reference(s) more than before it was "+
				"taken here: its count overflows in the end. Give back every page that was taken, reserved ones too; or pin, which leaves "+
				"the zero page alone (from 6.5).", h.Pages),
		})
	}
	return out
}

// dirtyUnlocked: a file's page was dirtied without its lock, by a module.
// The kernel itself does so where a page table's lock keeps the page in its file.
func dirtyUnlocked(e *Evidence) []violation {
	var out []violation
	for _, v := range e.Events {
		if v.Kind != EventDirtyUnlocked || !dirtiedByModule(v.Stack) {
			continue
		}
		out = append(out, violation{
			rule: RuleDirtyUnlocked, severity: SeverityError, pages: v.Pages, stack: v.Stack, op: v.Op,
			explain: "A file's page was marked dirty without its lock: a truncation at the same time frees what the file system is told of. " +
				"Use set_page_dirty_lock(), or unpin_user_pages_dirty_lock(), in a context that may sleep.",
		})
	}
	return out
}

// dirtyLate: an operation that hadn't ended dirtied a page that it had
// released. Whoever else dirties that page then is no business of this rule,
// so it has to be the module that had taken it.
func dirtyLate(e *Evidence) []violation {
	var out []violation
	for _, v := range e.Events {
		if v.Kind != EventDirtyLate || !dirtiedByPinner(v) {
			continue
		}
		out = append(out, violation{
			rule: RuleDirtyLate, severity: SeverityError, pages: v.Pages, stack: v.Stack, op: v.Op,
			explain: "A page was marked dirty after its release: in between it may have been reclaimed clean, and its data is lost, or be " +
				"somebody else's by now. Mark first, then release.",
		})
	}
	return out
}

// resultRange: more bytes were reported than were asked for.
func resultRange(e *Evidence) []violation {
	var out []violation
	seen := map[uint64]bool{}
	for _, v := range e.Events {
		if v.Kind != EventResultRange || seen[v.Op.ID] && v.Op.ID != 0 {
			continue
		}
		seen[v.Op.ID] = true
		out = append(out, violation{
			rule: RuleResultRange, severity: SeverityError, stack: v.Stack, op: v.Op,
			explain: fmt.Sprintf("A %s for %d bytes was reported to have moved %d: its user takes for data what lies behind its buffer. "+
				"Report what was moved, and never more than the iterator held.", v.Op.Kind, v.Op.Requested, v.Value),
		})
	}
	return out
}

// lengthOverflow: one call asked for far more pages than the whole buffer has.
func lengthOverflow(e *Evidence) []violation {
	var out []violation
	for _, v := range e.Events {
		if v.Kind != EventPinExcess {
			continue
		}
		out = append(out, violation{
			rule: RuleLengthOverflow, severity: SeverityError, pages: v.Pages, stack: v.Stack, op: v.Op,
			explain: fmt.Sprintf("%d pages were asked for in one call, for a %s of %d bytes: pages that the user never offered are taken, or the "+
				"page array overflows. Look for a count that has wrapped or was never checked.", v.Pages, v.Op.Kind, v.Op.Requested),
		})
	}
	return out
}

// cancelFnMisuse: a cancel function was set in a kiocb that has no place for it.
func cancelFnMisuse(e *Evidence) []violation {
	var out []violation
	for _, v := range e.Events {
		if v.Kind != EventCancelFn {
			continue
		}
		out = append(out, violation{
			rule: RuleCancelFnMisuse, severity: SeverityError, stack: v.Stack, op: v.Op,
			explain: "kiocb_set_cancel_fn() was called for a kiocb that isn't native AIO's: older kernels write past the struct that it is part of. " +
				"Call it only where IOCB_AIO_RW is set in ki_flags.",
		})
	}
	return out
}

// heldLong: a page was kept for long after its operation, as nothing that
// only waits for a device would be. An asynchronous operation was told
// complete too early then, which is another rule's.
func (e *Evidence) heldLong(op Op) bool {
	return e.LostAfter > 0 && op.Longest >= e.LostAfter && !op.Kind.Async() && !op.LongTerm && !op.BlockLayer
}

// longtermMissing: pages were pinned for long, and not with FOLL_LONGTERM.
func longtermMissing(e *Evidence) []violation {
	var out []violation
	found := func(op Op, pages uint32, age time.Duration) {
		out = append(out, violation{
			rule: RuleLongtermMissing, severity: SeverityWarning, pages: pages, stack: op.PinStack, op: op,
			explain: fmt.Sprintf("%d page(s) stayed pinned for %s, long after the %s that pinned them: they can't be migrated, and block "+
				"contiguous allocation and memory hotplug. Pin with FOLL_LONGTERM what is kept from one operation to the next.",
				pages, age.Round(time.Millisecond), op.Kind),
		})
	}
	for _, v := range e.Events {
		if v.Kind == EventOp && e.heldLong(v.Op) {
			found(v.Op, max(v.Op.Late, 1), v.Op.Longest)
		}
	}
	for _, h := range e.Held {
		op := h.Op
		// What is left when its process has gone is leaked.
		if e.LostAfter > 0 && op.Kind == KindSyscall && op.Ended() && !op.Bytes && !op.LongTerm && !op.BlockLayer &&
			e.End-op.End >= e.LostAfter && (e.Gone == nil || !e.Gone(op.PID)) {
			found(op, h.Pages, e.End-op.Start)
		}
	}
	return out
}
