/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Out of the account. Holders of one folio are told apart by, in this order: the bio
 * that is being released, the page (large folios only), the operation that runs in
 * this context, the folio's slots: first those whose pins fit. A release that dirties
 * fits what was pinned for writing, another what was pinned for reading only; so each
 * pin is judged by a release that would be right for it as long as there is one, and
 * only what is wrong for all of them is found wrong.
 */
#ifndef DIO_TRACE_ACCOUNT_RELEASE_H
#define DIO_TRACE_ACCOUNT_RELEASE_H

#include "op.h"
#include "walk.h"

static __always_inline void slot_remove(struct folio_state *f, __u64 op)
{
	int i;

#pragma unroll
	for (i = 0; i < HOLDERS; i++)
		if (f->holders[i] == op)
			f->holders[i] = 0;
}

/* Takes up to left pages of the folio from what the operation holds. */
__noinline int release_hold(WALK_REF ref, __u64 id, __u32 left)
{
	struct walk *w = walk_of(ref);
	struct hold_key key = {};
	struct folio_state *f;
	__u32 n, held, readonly, write = 0;
	struct hold *h;
	struct op *op;
	__u64 since;

	if (!w)
		return 0;
	key.folio = w->run;
	key.op = id;
	f = bpf_map_lookup_elem(&folios, &key.folio);
	if (!f)
		return 0;
	h = bpf_map_lookup_elem(&holds, &key);
	if (!h)
		return 0;
	readonly = h->pages - h->write;
	if (w->fit && !(w->dirty ? h->write : readonly))
		return 0;
	n = h->pages;
	if (n > left)
		n = left;
	if (!n)
		return 0;
	if (w->dirty)
		write = h->write < n ? h->write : n;
	else if (n > readonly)
		write = n - readonly;
	since = h->since;
	held = h->pages;
	if (n == held) {
		/* Whose hold it is may be a guess, that another CPU makes too: who deletes it has it. */
		if (bpf_map_delete_elem(&holds, &key))
			return 0;
		slot_remove(f, id);
	} else {
		__sync_fetch_and_add(&h->pages, -n);
		if (write)
			__sync_fetch_and_add(&h->write, -write);
	}
	if (write)
		__sync_fetch_and_add(&f->live_write, -write);

	op = op_of(id);
	if (op) {
		bool ended = op->completions != 0;
		/*
		 * Whose pin it was is a guess where nothing but the slots tells it
		 * and others hold the folio too; whoever is left then may be the
		 * wrong one.
		 */
		bool doubt = w->guess && (f->misled || f->live > held);

		if (write) {
			/*
			 * In doubt it may be a pin of one that failed, rightly clean.
			 * Only if nobody dirtied the page until the last pin went
			 * was it wrong for whoever didn't fail.
			 */
			if (w->dirty || f->last_dirty >= since || folio_dirty(w->run) ||
			    (doubt && (f->live > n || f->last_dirty || f->marked))) {
				__sync_fetch_and_add(&op->dirty, write);
			} else {
				__sync_fetch_and_add(&op->clean, write);
				w->clean_op = id;
			}
		}
		/* It proves nothing against one that ended. */
		if (doubt) {
			f->misled = 1;
			ended = false;
		}
		if (ended && !(op->flags & (OPF_BIO | OPF_LONGTERM)) && w->now - since > op->longest_ns)
			op->longest_ns = w->now - since;
		if (ended && !(op->flags & OPF_BIO) && (op->flags & OPF_BYTES || op->kind != OP_SYSCALL) &&
		    !(op->flags & OPF_LONGTERM)) {
			__u64 end = op->end_ns;
			bool before = (f->first_dirty >= since && f->first_dirty <= end && f->first_dirty) ||
				      (f->last_dirty >= since && f->last_dirty <= end && f->last_dirty);
			bool after = w->dirty || f->last_dirty > end;

			__sync_fetch_and_add(&op->late, n);
			if (write && after && !before)
				__sync_fetch_and_add(&op->late_dirty, write);
			w->late_op = id;
		}
		__sync_fetch_and_add(&op->live, -n);
		if (op->live == 0 && op->completions) {
			if (w->done_op && w->done_op != id)
				op_forget(w->done_op);
			w->done_op = id;
		}
	}
	return n;
}

/*
 * What release_run tries, in this order: three that are told, then the slots, twice:
 * for pins that fit, and for any, unless one that fits may have found no slot.
 */
#define TOLD 3
#define TRIES (TOLD + 2 * HOLDERS)

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
		return f->holders[(i - TOLD) % HOLDERS];
	}
}

__noinline int release_run(WALK_REF ref)
{
	struct walk *w = walk_of(ref);
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
	/* More pins than are known: these go that the pin function took just now, and has to take again. */
	if (w->pinning && folio_pins(w->run) >= live + n)
		return 0;
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
				w->over_op = *last & ~RELEASED_DIRTY;
		}
		if (pins_lost)
			proven = false;
		/* The zero page counts no pins since 6.5. */
		if (!proven && w->audited && folio_pins(w->run) < n && !folio_reserved(w->run))
			proven = true;
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
	if (w->dirty)
		f->marked = 1;
	last = f->holders[0];
	left = n;
#pragma unroll
	for (i = 0; i < TRIES; i++) {
		__u64 id = holder(w, f, i);

		if (!left)
			break;
		if (!id)
			continue;
		w->guess = i >= TOLD;
		w->fit = i >= TOLD && (i < TOLD + HOLDERS || f->unlisted);
		got = release_hold(ref, id, left);
		if (got > left)
			got = left;
		left -= got;
	}
	if (left)
		COUNT(unattributed, left);
	w->pages += n;
	preemption_off();
	__sync_fetch_and_add(&f->live, -n);
	if (f->live == 0) {
#pragma unroll
		for (i = 0; i < HOLDERS; i++) {
			__u64 id = *(volatile __u64 *)&f->holders[i];

			/* Another CPU that takes a slot meanwhile has counted its pins before. */
			if (id && !*(volatile __u32 *)&f->live)
				f->holders[i] = 0;
		}
		/*
		 * A large folio is kept: another CPU may be about to pin it
		 * again. A single page seldom has a second user, who looks
		 * whether it is still there.
		 */
		if (!w->run_large) {
			if (w->dirty)
				last |= RELEASED_DIRTY;
			if (!f->foreign) {
				bpf_map_update_elem(&released, &folio, &last, BPF_ANY);
				released_seen = 1;
			}
			if (f->live == 0)
				bpf_map_delete_elem(&folios, &folio);
		}
	}
	preemption_on();
	return 0;
}

#endif
