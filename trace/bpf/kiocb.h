/* SPDX-License-Identifier: GPL-2.0-only */
/* Which operation a kiocb stands for: while it's in flight, and until its memory is used anew. */
#ifndef DIO_TRACE_KIOCB_H
#define DIO_TRACE_KIOCB_H

#include "op.h"

#define EIOCBQUEUED 529

/* In flight, or the last that had this memory. */
static __always_inline struct kiocb_state *kiocb_of(__u64 kiocb)
{
	struct kiocb_state *k = bpf_map_lookup_elem(&kiocbs, &kiocb);

	return k ? k : bpf_map_lookup_elem(&ended_kiocbs, &kiocb);
}

/* In this order, so that a second completion on another CPU finds it in either. */
static __always_inline void kiocb_ended(__u64 kiocb, struct kiocb_state *k)
{
	bpf_map_update_elem(&ended_kiocbs, &kiocb, k, BPF_ANY);
	bpf_map_delete_elem(&kiocbs, &kiocb);
}

/* It comes to nothing, unless it's tried again. */
static __always_inline void kiocb_cancel(__u64 kiocb, __u64 id)
{
	struct kiocb_state *k = bpf_map_lookup_elem(&kiocbs, &kiocb);

	if (k && k->op == id)
		kiocb_ended(kiocb, k);
	op_cancel(id);
}

static __always_inline void kiocb_forget(__u64 kiocb)
{
	bpf_map_delete_elem(&kiocbs, &kiocb);
	bpf_map_delete_elem(&ended_kiocbs, &kiocb);
}

#endif
