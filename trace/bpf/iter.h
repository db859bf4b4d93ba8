/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls of a driver's own read_iter and write_iter, and of the splice_read above them. */
#ifndef DIO_TRACE_ITER_H
#define DIO_TRACE_ITER_H

#include <bpf/bpf_core_read.h>
#include "cookie.h"
#include "kiocb.h"

/* Does a write take its data from there? */
static __always_inline bool is_source(struct iov_iter *iter)
{
	if (bpf_core_field_exists(iter->data_source))
		return BPF_CORE_READ(iter, data_source);
	return BPF_CORE_READ((struct iov_iter___old *)iter, type) & 1;
}

/* A driver's own read_iter or write_iter. */
static __always_inline void iter_enter(struct pt_regs *ctx, __u64 cookie, __u64 who)
{
	struct iov_iter *iter = (struct iov_iter *)ctx->si;
	struct kiocb *kiocb = (struct kiocb *)ctx->di;
	struct task_state *ts = task_of((__u32)who);
	bool known = ts && op_of(ts->op);
	struct kiocb_state *k;
	__u64 key = ctx->di;
	struct op *op;

	if (!known && !audited(who >> 32))
		return;
	if (!ts)
		ts = task_make((__u32)who);
	if (!ts)
		return;
	/* It may hand on to another function of the same shape. */
	if (ts->iter_hook && NESTED(ctx->sp, cookie, ts->iter_sp, ts->iter_hook))
		return;
	if (ts->iter_hook && ts->iter_kiocb)
		lose(LOST_FUNCTION, 0);	/* the last one's return was unseen */
	ts->iter_hook = cookie;
	ts->iter_sp = ctx->sp;
	if (BPF_CORE_READ(kiocb, ki_complete)) {
		k = kiocb_of(key);
		ts->iter_kiocb = key;
		ts->iter_op = 0;
		/* Its memory is used anew, by what no hook saw: io_uring's multishot reads. */
		if (k && k->completions)
			kiocb_forget(key);
		else if (k)
			ts->iter_op = k->op;
	} else {
		ts->iter_kiocb = 0;
		ts->iter_op = op_begin(OP_SYNC, 0, OPF_BYTES);
		ts->call = ts->iter_op;
	}
	ts->iter_count = BPF_CORE_READ(iter, count);
	op = op_of(ts->iter_op);
	if (op) {
		op->handler = COOKIE_HANDLER(cookie);
		op->requested = ts->iter_count;
		op->segments = BPF_CORE_READ(iter, nr_segs);
		if (is_source(iter))
			op->flags |= OPF_WRITES;
	}
}

static __always_inline void iter_return(struct pt_regs *ctx, __u64 cookie, __u64 who)
{
	struct task_state *ts = task_of((__u32)who);
	__s64 ret = (__s64)ctx->ax;
	struct kiocb_state *k;
	__u64 key, id;

	if (!ts || ts->iter_hook != cookie)
		return;
	ts->iter_hook = 0;
	id = ts->iter_op;
	if (ret > 0 && ret > ts->iter_count)
		tell(EV_RESULT_RANGE, id, COOKIE_HANDLER(cookie), stack_of(ctx), ret);
	if (ts->iter_kiocb) {
		key = ts->iter_kiocb;
		k = kiocb_of(key);
		if (ret != -EIOCBQUEUED && id && k && k->op == id && k->completions)
			tell(EV_RETURNED_TOO, id, COOKIE_HANDLER(cookie), stack_of(ctx), ret);
		return;
	}
	if (ts->call == id)
		ts->call = 0;
	if (ret == -EIOCBQUEUED)
		tell(EV_SYNC_QUEUED, id, COOKIE_HANDLER(cookie), stack_of(ctx), ret);
	op_end(id, ret, 0);
}

/* splice reads through a synchronous kiocb of its own. */
static __always_inline void splice_enter(__u64 who)
{
	struct task_state *ts = audited(who >> 32) ? task_make((__u32)who) : 0;

	if (ts)
		ts->splicing = 1;
}

static __always_inline void splice_return(struct pt_regs *ctx, __u64 who)
{
	struct task_state *ts = task_of((__u32)who);

	if (ts)
		ts->splicing = 0;
	if ((__s64)ctx->ax == -EIOCBQUEUED && audited(who >> 32))
		tell(EV_SYNC_QUEUED, 0, 0, stack_of(ctx), -EIOCBQUEUED);
}

#endif
