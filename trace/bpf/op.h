/* SPDX-License-Identifier: GPL-2.0-only */
/* The life of an operation: begun, ended, and gone when its last pin is. */
#ifndef DIO_TRACE_OP_H
#define DIO_TRACE_OP_H

#include "maps.h"

/* Grows with time, so that a lower id is an older operation; but begins anew after 417 days. */
static __always_inline __u64 new_id(__u64 now)
{
	return (now << 8 | (bpf_get_smp_processor_id() & 0xff)) & ~RELEASED_DIRTY;
}

static __always_inline struct op *op_of(__u64 id)
{
	return id ? bpf_map_lookup_elem(&ops, &id) : 0;
}

__noinline __u64 op_begin(__u32 kind, __u64 kiocb, __u32 flags)
{
	__u64 who = bpf_get_current_pid_tgid();
	struct op op = {
		.kiocb = kiocb,
		.start_ns = bpf_ktime_get_ns(),
		.kind = kind,
		.flags = flags,
		.tgid = who >> 32,
		.tid = (__u32)who,
	};
	long error;

	op.id = new_id(op.start_ns);
	bpf_get_current_comm(op.comm, sizeof(op.comm));
	error = bpf_map_update_elem(&ops, &op.id, &op, BPF_NOEXIST);
	if (error) {
		lose(LOST_OP, error);
		return 0;
	}
	return op.id;
}

static __always_inline struct event *event_begin(__u32 kind)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		lose(LOST_RING, 0);
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->now = bpf_ktime_get_ns();
	return e;
}

/*
 * Tells of something about an operation, of which id may be 0: unknown.
 * number is of pages, for a return that of the function.
 */
__noinline int tell(__u32 kind, __u64 id, __u32 number, __u64 stack, __s64 value)
{
	struct op *op = op_of(id);
	/* Tested at once: 6.1 forgets that what was found non-null is so. */
	struct event *e = event_begin(kind);

	if (!e)
		return 0;
	if (kind == EV_RETURNED_TOO || kind == EV_SYNC_QUEUED || kind == EV_RESULT_RANGE)
		e->handler = number;
	else
		e->pages = number;
	e->stack = stack;
	e->value = value;
	if (op) {
		__builtin_memcpy(&e->op, op, sizeof(*op));
	} else {
		__u64 who = bpf_get_current_pid_tgid();

		e->op.id = id;
		e->op.tgid = who >> 32;
		e->op.tid = (__u32)who;
		bpf_get_current_comm(e->op.comm, sizeof(e->op.comm));
	}
	bpf_ringbuf_submit(e, 0);
	return 0;
}

#define LONG_NS 500000000ULL	/* a page that was held for less is no business of any rule */

/*
 * The operation has ended and holds no page: forget it, unless there is
 * something that the rules should see. Who deletes it is the one who counts
 * it: the last release and the completion can meet here.
 */
__noinline int op_forget(__u64 id)
{
	struct op *op = op_of(id);
	struct event *e;

	if (!op)
		return 0;
	if (!op->late && op->longest_ns < LONG_NS && (!op->clean || op->result < 0)) {
		if (!bpf_map_delete_elem(&ops, &id))
			COUNT(operations, 1);
		return 0;
	}
	/* Into the ring at once: an older kernel's stack has no room for a copy. */
	e = event_begin(EV_OP);
	if (!e) {
		if (!bpf_map_delete_elem(&ops, &id))
			COUNT(operations, 1);
		return 0;
	}
	__builtin_memcpy(&e->op, op, sizeof(*op));
	if (bpf_map_delete_elem(&ops, &id)) {
		bpf_ringbuf_discard(e, 0);
		return 0;
	}
	bpf_ringbuf_submit(e, 0);
	COUNT(operations, 1);
	return 0;
}

/* Completed, or returned. Its result must be there before others see that it ended. */
__noinline int op_end(__u64 id, __s64 result, __u64 stack)
{
	struct op *op = op_of(id);
	__u64 now = bpf_ktime_get_ns();
	struct totals *t;

	if (!op)
		return 0;
	op->result = result;
	op->end_ns = now;
	op->end_stack = stack;
	__sync_fetch_and_add(&op->completions, 1);
	/* A command without pages may have waited by design. */
	if (op->kiocb && (op->kind != OP_URING_CMD || op->taken)) {
		t = get_totals();
		if (t && now - op->start_ns > t->slowest_ns)
			t->slowest_ns = now - op->start_ns;
	}
	if (op->live == 0)
		op_forget(id);
	return 0;
}

/* The call never reached a driver, or will be tried again: nothing happened. */
static __always_inline void op_cancel(__u64 id)
{
	struct op *op = op_of(id);

	if (op && op->live == 0 && op->completions == 0)
		bpf_map_delete_elem(&ops, &id);
}

#endif
