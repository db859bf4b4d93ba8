/* SPDX-License-Identifier: GPL-2.0-only */
/* The functions that mark a page dirty: whether whoever did it was to, and in time. */
#ifndef DIO_TRACE_DIRTY_H
#define DIO_TRACE_DIRTY_H

#include "pins.h"

/*
 * A page that nobody holds: was it released by an operation that goes on? Not by
 * a release that dirties, of which this is a part.
 */
static __always_inline void dirtied_late(struct pt_regs *ctx, __u64 folio)
{
	__u64 *last = bpf_map_lookup_elem(&released, &folio);
	struct op *op = last ? op_of(*last) : 0;

	if (!op || op->completions)
		return;
	tell(EV_DIRTY_LATE, op->id, 1, stack_at_entry(ctx, ctx->sp), 0);
	/* One dirtying function calls another, which would tell it again. */
	bpf_map_delete_elem(&released, &folio);
}

/* locks: the function takes the page's lock by itself. */
static __always_inline void dirtied(struct pt_regs *ctx, __u64 folio, __u64 who, bool locks)
{
	struct folio_state *f = bpf_map_lookup_elem(&folios, &folio);
	struct task_state *ts;
	__u64 now, id;

	if (!f || !f->live) {
		dirtied_late(ctx, folio);
		return;
	}
	now = bpf_ktime_get_ns();
	if (!f->first_dirty)
		f->first_dirty = now;
	f->last_dirty = now;
	ts = task_of((__u32)who);
	id = ts ? (ts->op ? ts->op : ts->call) : 0;
	if (!id)
		id = f->holders[0];
	if (!f->live_write)
		tell(EV_DIRTY_READONLY, id, 1, stack_at_entry(ctx, ctx->sp), 1);
	if (!locks && folio_of_file(folio) && !folio_locked(folio))
		tell(EV_DIRTY_UNLOCKED, id, 1, stack_at_entry(ctx, ctx->sp), 0);
}

#endif
