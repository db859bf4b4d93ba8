/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls that take pages or release them, page by page into the account. */
#ifndef DIO_TRACE_PINS_H
#define DIO_TRACE_PINS_H

#include "account_release.h"
#include "account_take.h"
#include "dual.h"

/* One step a page, and one more to settle the last run. */
static long pin_step(__u32 i, STEP_ARG)
{
	struct walk *w = walk_of(ref);
	struct page_ref at = {};
	__u64 page, *owner, op;
	struct folio_state *f;

	if (!w)
		return 0;
	if (i < w->n) {
		page = walk_page(w, i);
		at = page_folio(page);
		if (at.large && !w->get && !w->foreign) {
			op = w->op;
			owner = bpf_map_lookup_elem(&page_ops, &page);
			/* Of two that hold the same page neither is told by it, until both have gone. */
			if (owner && *owner) {
				if (*owner != op && op_of(*owner))
					op = 0;
			} else if (owner) {
				f = bpf_map_lookup_elem(&folios, &at.head);
				if (f && f->live)
					op = 0;
			}
			bpf_map_update_elem(&page_ops, &page, &op, BPF_ANY);
		}
		if (at.head == w->run) {
			w->run_pages++;
			return 0;
		}
	}
	if (w->run && w->foreign)
		foreign_run(ref);
	else if (w->run && w->get)
		get_run(ref);
	else if (w->run)
		pin_run(ref);
	w->run = at.head;
	w->run_pages = 1;
	return 0;
}

WALK_LOOP(pin_step)

static long release_step(__u32 i, STEP_ARG)
{
	struct walk *w = walk_of(ref);
	struct page_ref at = {};
	__u64 page, *owner, op = 0;

	if (!w)
		return 0;
	if (i < w->n) {
		page = walk_page(w, i);
		at = page_folio(page);
		if (at.large && w->mode != WALK_FOLIO) {
			owner = bpf_map_lookup_elem(&page_ops, &page);
			if (owner) {
				op = *owner;
				bpf_map_delete_elem(&page_ops, &page);
			}
		}
		if (at.head == w->run && op == w->run_op) {
			w->run_pages++;
			return 0;
		}
	}
	if (w->run)
		release_run(ref);
	w->run = at.head;
	w->run_op = op;
	w->run_large = at.large;
	w->run_pages = 1;
	return 0;
}

WALK_LOOP(release_step)

/* Pages were pinned, for the operation op. */
static __always_inline void pinned(__u64 array, __u32 n, __u64 id, __u32 flags, __u64 stack)
{
	struct op *op = op_of(id);
	WALK_DECLARE(w, ref);

	if (n > MAX_PAGES) {
		lose_pins(n);
		return;
	}
	if (!WALK_BEGIN(w, ref))
		return;
	w->base = array;
	w->n = n;
	w->mode = WALK_ARRAY;
	w->op = id;
	w->now = bpf_ktime_get_ns();
	w->write = flags & 1;
	if (op) {
		/* Before the pages: a release elsewhere must find them owed. */
		__sync_fetch_and_add(&op->live, n);
		__sync_fetch_and_add(&op->taken, n);
		if (w->write)
			__sync_fetch_and_add(&op->taken_write, n);
		if (flags & foll_longterm)
			op->flags |= OPF_LONGTERM;
		if (!op->pin_stack)
			op->pin_stack = stack;
	}
	pin_step_all(n, ref);
	WALK_END();
	COUNT(pins_taken, n);
}

/* Pages were pinned, by somebody out of scope. */
static __always_inline void pinned_foreign(__u64 array, __u32 n)
{
	WALK_DECLARE(w, ref);

	if (n > MAX_PAGES) {
		pins_lost = 1;
		return;
	}
	if (!WALK_BEGIN(w, ref))
		return;
	w->base = array;
	w->n = n;
	w->mode = WALK_ARRAY;
	w->foreign = 1;
	pin_step_all(n, ref);
	WALK_END();
}

/* A folio that is pinned already is pinned n times more, for the operation that runs here. */
static __always_inline void pinned_again(__u64 page, __u32 n, __u64 who)
{
	__u64 folio = page_folio(page).head;
	struct folio_state *f = bpf_map_lookup_elem(&folios, &folio);
	struct task_state *ts = task_of((__u32)who);
	struct hold_key key = { .folio = folio };
	struct hold *h;
	struct op *op;

	if (!f)
		return;
	if (ts)
		key.op = ts->op ? ts->op : ts->call;
	op = op_of(key.op);
	h = bpf_map_lookup_elem(&holds, &key);
	if (!op || !h || folio_reserved(folio)) {
		f->foreign = 1;
		return;
	}
	if (h->write) {
		__sync_fetch_and_add(&f->live_write, n);
		__sync_fetch_and_add(&h->write, n);
		__sync_fetch_and_add(&op->taken_write, n);
	}
	__sync_fetch_and_add(&f->live, n);
	__sync_fetch_and_add(&h->pages, n);
	__sync_fetch_and_add(&op->live, n);
	__sync_fetch_and_add(&op->taken, n);
	COUNT(pins_taken, n);
}

/* Pages were taken with FOLL_GET: all that can be seen after it is that they are freed. */
static __always_inline void gotten(__u64 array, __u32 n, __u64 id, __u64 stack)
{
	WALK_DECLARE(w, ref);

	COUNT(gets_taken, n);
	if (n > MAX_PAGES) {
		COUNT(gets_untracked, n);
		return;
	}
	if (!WALK_BEGIN(w, ref))
		return;
	w->base = array;
	w->n = n;
	w->mode = WALK_ARRAY;
	w->op = id;
	w->get = 1;
	w->stack = stack;
	gets_seen = 1;
	pin_step_all(n, ref);
	WALK_END();
}

static __always_inline void settle(void *ctx, __u64 sp, struct walk *w)
{
	struct op *op;
	__u64 stack = 0;

	if (w->pages)
		COUNT(pins_released, w->pages);
	if (w->over || w->readonly_dirty || w->clean_op || w->late_op)
		stack = stack_at_entry(ctx, sp);
	if (w->over)
		tell(EV_OVER_UNPIN, w->over_op ? w->over_op : w->op, w->over, stack, 0);
	if (w->readonly_dirty)
		tell(EV_DIRTY_READONLY, w->readonly_op, w->readonly_dirty, stack, 0);
	op = op_of(w->clean_op);
	if (op) {
		if (!op->clean_stack)
			op->clean_stack = stack;
	}
	op = op_of(w->late_op);
	if (op) {
		if (!op->late_stack)
			op->late_stack = stack;
	}
	if (w->done_op)
		op_forget(w->done_op);
}

/* sp: at the entry of the function that releases. */
static __always_inline void released_pages(void *ctx, __u64 sp, __u64 base, __u32 n, __u32 mode, bool dirty)
{
	__u64 who = bpf_get_current_pid_tgid();
	/* What an interrupt releases is none of the operation's that it interrupts. */
	struct task_state *ts = on_task_stack(sp) ? task_of((__u32)who) : 0;
	WALK_DECLARE(w, ref);
	__u32 zero = 0;
	__u64 *hint;

	/* The pin function gives back what it can't keep, before it returns. */
	if (ts && ts->pin_hook && ts->pin_pages == base)
		return;
	if (!n)
		return;
	if (n > MAX_PAGES) {
		if (n <= ABSURD_PAGES)
			COUNT(lost_pages, n);
		return;
	}
	if (!WALK_BEGIN(w, ref))
		return;
	w->base = base;
	w->n = mode == WALK_FOLIO ? 1 : n;
	w->mode = mode;
	w->dirty = dirty;
	w->now = bpf_ktime_get_ns();
	w->audited = audited(who >> 32);
	if (ts) {
		w->op = ts->op ? ts->op : ts->call;
		w->pinning = ts->pin_hook && sp < ts->pin_sp;
	}
	if (mode == WALK_FOLIO) {
		struct page_ref at = page_folio(base);

		hint = bpf_map_lookup_elem(&bio_hint, &zero);
		w->hint = hint ? *hint : 0;
		w->run = at.head;
		w->run_large = at.large;
		w->run_pages = n;
		release_run(ref);
	} else {
		release_step_all(n, ref);
	}
	settle(ctx, sp, w);
	WALK_END();
}

#endif
