/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who pins which folio. Some kernel functions name pages, some only the
 * folio, so the account is kept by folio. Holders of one folio are told
 * apart by, in this order: the bio that is being released, the page (large
 * folios only), the operation that runs in this context, the folio's slots.
 */
#ifndef DIO_TRACE_PINS_H
#define DIO_TRACE_PINS_H

#include "op.h"
#include "pages.h"

#define MAX_PAGES (1U << 20)

enum walk_mode {
	WALK_ARRAY,	/* base is an array of pages or folios */
	WALK_RANGE,	/* base is the first of consecutive pages */
	WALK_FOLIO,	/* base is a folio; one step that stands for n pages */
};

struct walk {
	__u64 base;
	__u64 now;
	__u64 op;	/* pin: the owner; release: the operation of this context */
	__u64 hint;	/* release: the bio's operation */
	__u64 run;	/* folio of the pages in hand */
	__u64 run_op;
	__u32 n;
	__u32 run_pages;
	__u32 mode;
	__u32 write;
	__u32 dirty;
	__u32 audited;
	__u32 run_large;
	/* found on the way */
	__u32 pages;
	__u32 over;
	__u32 readonly_dirty;
	__u64 readonly_op;
	__u64 over_op;	/* the last holder of what nobody holds now */
	__u64 clean_op;
	__u64 late_op;
	__u64 done_op;	/* ended, and this was its last page */
};

static __always_inline __u64 walk_page(struct walk *w, __u32 i)
{
	__u64 page = 0;

	if (w->mode == WALK_RANGE)
		return w->base + (__u64)i * bpf_core_type_size(struct page);
	if (w->mode == WALK_FOLIO)
		return w->base;
	bpf_probe_read_kernel(&page, sizeof(page), (void *)w->base + (__u64)i * 8);
	return page;
}

static __always_inline void slot_add(struct folio_state *f, __u64 op)
{
	int i;

#pragma unroll
	for (i = 0; i < 4; i++) {
		if (f->holders[i] == op)
			return;
		if (!f->holders[i]) {
			f->holders[i] = op;
			return;
		}
	}
	f->crowded = 1;
}

static __always_inline void slot_remove(struct folio_state *f, __u64 op)
{
	int i;

#pragma unroll
	for (i = 0; i < 4; i++)
		if (f->holders[i] == op)
			f->holders[i] = 0;
}

__noinline int pin_run(struct walk *w)
{
	struct hold_key key = {};
	struct folio_state *f;
	__u32 n, write;
	struct hold *h;

	if (!w)
		return 0;
	key.folio = w->run;
	key.op = w->op;
	n = w->run_pages;
	write = w->write ? n : 0;
	f = bpf_map_lookup_elem(&folios, &key.folio);
	if (!f) {
		struct folio_state fresh = {};
		__u32 pins = folio_pins(w->run);

		fresh.foreign = pins > n;
		bpf_map_update_elem(&folios, &key.folio, &fresh, BPF_NOEXIST);
		f = bpf_map_lookup_elem(&folios, &key.folio);
		if (!f) {
			COUNT(lost_pages, n);
			return 0;
		}
	} else if (f->live == 0) {
		__u32 pins = folio_pins(w->run);

		f->foreign = pins > n;
		f->crowded = 0;
		f->first_dirty = f->last_dirty = 0;
		f->live_write = 0;
	}
	__sync_fetch_and_add(&f->live, n);
	__sync_fetch_and_add(&f->live_write, write);

	h = bpf_map_lookup_elem(&holds, &key);
	if (h) {
		__sync_fetch_and_add(&h->pages, n);
		__sync_fetch_and_add(&h->write, write);
	} else {
		struct hold fresh = { .pages = n, .write = write, .since = w->now };

		if (bpf_map_update_elem(&holds, &key, &fresh, BPF_ANY)) {
			COUNT(lost_pages, n);
			return 0;
		}
		slot_add(f, w->op);
	}
	w->pages += n;
	return 0;
}

/* Takes up to left pages of the folio from what the operation holds. */
__noinline int release_hold(struct walk *w, struct folio_state *f, __u64 id, __u32 left)
{
	struct hold_key key = {};
	__u32 n, write = 0;
	struct hold *h;
	struct op *op;

	if (!f || !w)
		return 0;
	key.folio = w->run;
	key.op = id;
	h = bpf_map_lookup_elem(&holds, &key);
	if (!h)
		return 0;
	n = h->pages;
	if (n > left)
		n = left;
	if (!n)
		return 0;
	write = h->write;
	if (write > n)
		write = n;
	if (write)
		__sync_fetch_and_add(&f->live_write, -write);

	op = op_of(id);
	if (op) {
		bool ended = op->completions != 0;

		if (write) {
			if (w->dirty || f->last_dirty >= h->since || folio_dirty(w->run)) {
				__sync_fetch_and_add(&op->dirty, write);
			} else {
				__sync_fetch_and_add(&op->clean, write);
				w->clean_op = id;
			}
		}
		if (ended && !(op->flags & OPF_BIO) && (op->flags & OPF_BYTES || op->kind != OP_SYSCALL) &&
		    !(op->flags & OPF_LONGTERM)) {
			__u64 end = op->end_ns;
			bool before = (f->first_dirty >= h->since && f->first_dirty <= end && f->first_dirty) ||
				      (f->last_dirty >= h->since && f->last_dirty <= end && f->last_dirty);
			bool after = w->dirty || f->last_dirty > end;

			__sync_fetch_and_add(&op->late, n);
			if (write && after && !before)
				__sync_fetch_and_add(&op->late_dirty, write);
			w->late_op = id;
		}
	}
	if (h->pages == n) {
		bpf_map_delete_elem(&holds, &key);
		slot_remove(f, id);
	} else {
		__sync_fetch_and_add(&h->pages, -n);
		if (write)
			__sync_fetch_and_add(&h->write, -write);
	}
	if (op) {
		__sync_fetch_and_add(&op->live, -n);
		if (op->live == 0 && op->completions) {
			if (w->done_op && w->done_op != id)
				op_forget(w->done_op);
			w->done_op = id;
		}
	}
	return n;
}

/* What release_run tries, in this order. */
static __always_inline __u64 holder(struct walk *w, struct folio_state *f, int i)
{
	switch (i) {
	case 0:
		return w->hint;
	case 1:
		return w->run_op;
	case 2:
		return w->op;
	default:
		return f->holders[(i - 3) & 3];
	}
}

__noinline int release_run(struct walk *w)
{
	__u32 n, left, got, live;
	struct folio_state *f;
	__u64 last, folio;
	int i;

	if (!w)
		return 0;
	n = w->run_pages;
	folio = w->run;		/* a map's key has to be on the stack, for 6.1 */
	f = bpf_map_lookup_elem(&folios, &folio);
	live = f ? f->live : 0;
	if (live < n) {
		__u32 excess = n - live;
		bool proven;

		if (f && live) {
			proven = !f->foreign;
		} else {
			/* Its last pin was seen to go, or the kernel's own count has none. */
			__u64 *last = bpf_map_lookup_elem(&released, &folio);

			proven = f ? !f->foreign : last != 0;
			if (last)
				w->over_op = *last;
			if (!proven && w->audited && folio_pins(w->run) < n)
				proven = true;
		}
		if (proven)
			w->over += excess;
		else if (w->audited)
			COUNT(foreign_released, excess);
		n = live;
	}
	if (!f || !n)
		return 0;
	if (w->dirty && f->live_write == 0) {
		w->readonly_dirty += n;
		w->readonly_op = f->holders[0];
	}
	last = f->holders[0];
	left = n;
#pragma unroll
	for (i = 0; i < 7; i++) {
		__u64 id = holder(w, f, i);

		if (!left)
			break;
		if (!id)
			continue;
		got = release_hold(w, f, id, left);
		if (got > left)
			got = left;
		left -= got;
	}
	if (left)
		COUNT(unattributed, left);
	w->pages += n;
	__sync_fetch_and_add(&f->live, -n);
	if (f->live == 0) {
		f->holders[0] = f->holders[1] = f->holders[2] = f->holders[3] = 0;
		/*
		 * A large folio is kept: another CPU may be about to pin it
		 * again. A single page has no second user at this moment.
		 */
		if (!w->run_large) {
			if (!f->foreign)
				bpf_map_update_elem(&released, &folio, &last, BPF_ANY);
			bpf_map_delete_elem(&folios, &folio);
		}
	}
	return 0;
}

/* One step a page, and one more to settle the last run. */
static long pin_step(__u32 i, void *arg)
{
	struct walk *w = arg;
	struct page_ref ref = {};
	__u64 page;

	if (i < w->n) {
		page = walk_page(w, i);
		ref = page_folio(page);
		if (ref.large)
			bpf_map_update_elem(&page_ops, &page, &w->op, BPF_ANY);
		if (ref.head == w->run) {
			w->run_pages++;
			return 0;
		}
	}
	if (w->run)
		pin_run(w);
	w->run = ref.head;
	w->run_pages = 1;
	return 0;
}

static long release_step(__u32 i, void *arg)
{
	struct walk *w = arg;
	struct page_ref ref = {};
	__u64 page, *owner, op = 0;

	if (i < w->n) {
		page = walk_page(w, i);
		ref = page_folio(page);
		if (ref.large && w->mode != WALK_FOLIO) {
			owner = bpf_map_lookup_elem(&page_ops, &page);
			if (owner) {
				op = *owner;
				bpf_map_delete_elem(&page_ops, &page);
			}
		}
		if (ref.head == w->run && op == w->run_op) {
			w->run_pages++;
			return 0;
		}
	}
	if (w->run)
		release_run(w);
	w->run = ref.head;
	w->run_op = op;
	w->run_large = ref.large;
	w->run_pages = 1;
	return 0;
}

/*
 * Zeroes what the verifier must not know to be zero: before 6.7 it follows
 * bpf_loop's callback once only, with what it knows of the first step, and
 * removes the branches that only later steps take.
 */
static __always_inline void walk_init(struct walk *w)
{
	struct zeros *z;
	__u32 key = 0;

	_Static_assert(sizeof(*w) <= sizeof(*z), "zeros too few");
	z = bpf_map_lookup_elem(&zero, &key);
	bpf_probe_read_kernel(w, sizeof(*w), z);
}

/* Pages were pinned, for the operation op. */
static __always_inline void pinned(__u64 array, __u32 n, __u64 id, __u32 flags, __u32 stack)
{
	struct op *op = op_of(id);
	struct walk w;

	if (n > MAX_PAGES) {
		COUNT(lost_pages, n);
		return;
	}
	walk_init(&w);
	w.base = array;
	w.n = n;
	w.mode = WALK_ARRAY;
	w.op = id;
	w.now = bpf_ktime_get_ns();
	w.write = flags & 1;
	if (op) {
		/* Before the pages: a release elsewhere must find them owed. */
		__sync_fetch_and_add(&op->live, n);
		__sync_fetch_and_add(&op->taken, n);
		if (w.write)
			__sync_fetch_and_add(&op->taken_write, n);
		if (flags & foll_longterm)
			op->flags |= OPF_LONGTERM;
		if (!op->pin_stack)
			op->pin_stack = stack;
	}
	bpf_loop(n + 1, pin_step, &w, 0);
	COUNT(pins_taken, n);
}

static __always_inline void settle(void *ctx, struct walk *w)
{
	struct op *op;
	__u32 stack = 0;

	if (w->pages)
		COUNT(pins_released, w->pages);
	if (w->over || w->readonly_dirty || w->clean_op || w->late_op)
		stack = stack_of(ctx);
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

static __always_inline void released_pages(void *ctx, __u64 base, __u32 n, __u32 mode, bool dirty)
{
	__u64 who = bpf_get_current_pid_tgid();
	struct task_state *ts = task_of((__u32)who);
	__u32 zero = 0, steps = mode == WALK_FOLIO ? 1 : n;
	struct walk w;
	__u64 *hint;

	walk_init(&w);
	w.base = base;
	w.n = steps;
	w.mode = mode;
	w.dirty = dirty;
	w.now = bpf_ktime_get_ns();
	w.audited = audited(who >> 32);
	if (ts) {
		/* The pin function gives back what it can't keep, before it returns. */
		if (ts->pin_hook && ts->pin_pages == base)
			return;
		w.op = ts->op ? ts->op : ts->call;
	}
	if (!n || n > MAX_PAGES)
		return;
	if (mode == WALK_FOLIO) {
		struct page_ref ref = page_folio(base);

		hint = bpf_map_lookup_elem(&bio_hint, &zero);
		w.hint = hint ? *hint : 0;
		w.run = ref.head;
		w.run_large = ref.large;
		w.run_pages = n;
		release_run(&w);
	} else {
		bpf_loop(n + 1, release_step, &w, 0);
	}
	settle(ctx, &w);
}

#endif
