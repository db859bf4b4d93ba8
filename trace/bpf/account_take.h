/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Into the account: who pins which folio. Some kernel functions name pages, some only
 * the folio, so the account is kept by folio.
 */
#ifndef DIO_TRACE_ACCOUNT_TAKE_H
#define DIO_TRACE_ACCOUNT_TAKE_H

#include "op.h"
#include "walk.h"

/* Is the slot op's now? Before 5.12 two CPUs may take it at once, and the later one has it. */
static __always_inline bool slot_take(__u64 *slot, __u64 op)
{
#ifdef WITHOUT_BPF_LOOP
	if (!*slot)
		*slot = op;
	return *slot == op;
#else
	__u64 was = __sync_val_compare_and_swap(slot, 0, op);

	return !was || was == op;
#endif
}

static __always_inline void slot_add(struct folio_state *f, __u64 op)
{
	int i;

#pragma unroll
	for (i = 0; i < HOLDERS; i++)
		if (slot_take(&f->holders[i], op))
			return;
	f->unlisted = 1;
}

static __always_inline int pin_run_here(WALK_REF ref)
{
	struct walk *w = walk_of(ref);
	struct folio_state *f, *now;
	struct hold_key key = {};
	__u32 n, write;
	struct hold *h;
	bool listed;

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
			lose_pins(n);
			return 0;
		}
	} else if (f->live == 0) {
		__u32 pins = folio_pins(w->run);

		f->foreign = pins > n;
		f->misled = f->unlisted = f->marked = 0;
		f->first_dirty = f->last_dirty = 0;
		/*
		 * Not live_write: another CPU may have counted its pins of this
		 * folio meanwhile, and they would seem to be for reading only.
		 */
	}
	/* In this order, for the same reason. */
	__sync_fetch_and_add(&f->live_write, write);
	__sync_fetch_and_add(&f->live, n);
	h = bpf_map_lookup_elem(&holds, &key);
	listed = h != 0;
	if (h) {
		__sync_fetch_and_add(&h->pages, n);
		__sync_fetch_and_add(&h->write, write);
	} else {
		struct hold fresh = { .pages = n, .write = write, .since = w->now };

		if (bpf_map_update_elem(&holds, &key, &fresh, BPF_ANY)) {
			lose_pins(n);
			return 0;
		}
	}
	now = bpf_map_lookup_elem(&folios, &key.folio);
	if (now != f) {
		/* Another CPU released the last pin, and took its state away: it may be another folio's. */
		__sync_fetch_and_add(&f->live_write, -write);
		__sync_fetch_and_add(&f->live, -n);
		if (!now) {
			struct folio_state fresh = { .foreign = 1 };

			bpf_map_update_elem(&folios, &key.folio, &fresh, BPF_NOEXIST);
			now = bpf_map_lookup_elem(&folios, &key.folio);
		}
		if (!now) {
			lose_pins(n);
			return 0;
		}
		f = now;
		listed = false;
		__sync_fetch_and_add(&f->live_write, write);
		__sync_fetch_and_add(&f->live, n);
	}
	if (!listed)
		slot_add(f, w->op);
	w->pages += n;
	return 0;
}

__noinline int pin_run(WALK_REF ref)
{
	int ret;

	preemption_off();
	ret = pin_run_here(ref);
	preemption_on();
	return ret;
}

/* Somebody out of scope pinned these: a release of theirs is no excess. */
__noinline int foreign_run(WALK_REF ref)
{
	struct walk *w = walk_of(ref);
	struct folio_state *f;
	__u64 folio;

	if (!w)
		return 0;
	folio = w->run;
	f = bpf_map_lookup_elem(&folios, &folio);
	if (f)
		f->foreign = 1;
	if (released_seen)
		bpf_map_delete_elem(&released, &folio);
	return 0;
}

/*
 * A folio that was gotten: who had it last. That it is given back can't be
 * seen (put_page is inline), only that it is freed: see on_page_free.
 */
__noinline int get_run(WALK_REF ref)
{
	__u64 who = bpf_get_current_pid_tgid(), folio;
	struct walk *w = walk_of(ref);
	struct got got = {}, *before;
	__s32 references;
	struct op *op;

	if (!w)
		return 0;
	folio = w->run;
	op = op_of(w->op);
	before = bpf_map_lookup_elem(&gets, &folio);
	references = folio_references(folio) - (__s32)w->run_pages;
	got.base = before ? before->base : references > 0 ? references : 0;
	got.op = w->op;
	got.mapping = folio_mapping(folio);
	got.stack = w->stack;
	got.pages = w->run_pages;
	got.tgid = op ? op->tgid : who >> 32;
	got.tid = op ? op->tid : (__u32)who;
	got.kind = op ? op->kind : OP_SYSCALL;
	bpf_get_current_comm(got.comm, sizeof(got.comm));
	if (bpf_map_update_elem(&gets, &folio, &got, BPF_ANY))
		COUNT(gets_untracked, w->run_pages);
	return 0;
}

#endif
