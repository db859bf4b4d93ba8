/* SPDX-License-Identifier: GPL-2.0-only */
/* Pages of a bio: the block layer releases them, when nobody's call is going on. */
#ifndef DIO_TRACE_BIO_H
#define DIO_TRACE_BIO_H

#include "op.h"

/* The pages of a bio: whose they are is known now, and not when it ends. */
static __always_inline void bio_pages(struct pt_regs *ctx, __u64 who)
{
	struct task_state *ts = task_of((__u32)who);
	__u64 bio = ctx->di, id;
	struct op *op;

	if (!ts)
		return;
	id = ts->op ? ts->op : ts->call;
	op = op_of(id);
	if (!op) {
		if (!audited(who >> 32))
			return;
		id = op_begin(OP_SYSCALL, 0, 0);
		ts->call = id;
		op = op_of(id);
		if (!op)
			return;
	}
	op->flags |= OPF_BIO;
	bpf_map_update_elem(&bios, &bio, &id, BPF_ANY);
}

/* The bio's pages are about to be released, one unpin_user_folio after another. */
static __always_inline void bio_release(__u64 bio)
{
	__u32 zero = 0;
	__u64 *id, *hint = bpf_map_lookup_elem(&bio_hint, &zero);

	if (!hint)
		return;
	id = bpf_map_lookup_elem(&bios, &bio);
	*hint = id ? *id : 0;
}

#endif
