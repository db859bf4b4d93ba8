/* SPDX-License-Identifier: GPL-2.0-only */
/* The way of a request: to the driver, back from it, and its completion. */
#ifndef DIO_TRACE_REQUEST_H
#define DIO_TRACE_REQUEST_H

#include <bpf/bpf_core_read.h>
#include "cookie.h"
#include "kiocb.h"

#define EAGAIN 11

#define PF_KTHREAD 0x00200000

/* Before 5.12 io_uring's own threads are the kernel's. */
static __always_inline bool kernel_thread(void)
{
	return BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), flags) & PF_KTHREAD;
}

/* A kiocb goes to its file's read_iter, write_iter or uring_cmd. */
static __always_inline void submit_enter(struct pt_regs *ctx, __u32 kind, __u64 cookie, __u64 who)
{
	__u64 kiocb = ctx->di, id;
	struct kiocb_state *k = kiocb_of(kiocb);
	struct op *op = k && !k->completions ? op_of(k->op) : 0;
	struct task_state *ts;
	long error;

	/* By its own process, or by a thread of the kernel's for it. */
	if (op && op->completions == 0 && (k->tgid == who >> 32 || kernel_thread())) {
		id = op->id;	/* tried again */
	} else {
		struct kiocb_state fresh = {
			.kind = kind, .tgid = who >> 32, .tid = (__u32)who,
		};

		bpf_get_current_comm(fresh.comm, sizeof(fresh.comm));
		if (!audited(who >> 32)) {
			if (!k)
				return;
			/* The memory of one in scope, which is used anew: unless a kernel thread tries for its owner. */
			if (k->completions || !kernel_thread() || !audited(k->tgid)) {
				kiocb_forget(kiocb);
				return;
			}
			fresh.tgid = k->tgid;
			fresh.tid = k->tid;
			__builtin_memcpy(fresh.comm, k->comm, sizeof(fresh.comm));
		}
		/* Even if this one finds no place: its completion is none of the last one's. */
		if (k)
			kiocb_forget(kiocb);
		id = op_begin(kind, kiocb, kind == OP_URING_CMD ? 0 : OPF_BYTES);
		op = op_of(id);
		if (!op)
			return;
		if (cookie & COOKIE_WRITES)
			op->flags |= OPF_WRITES;
		op->tgid = fresh.tgid;
		op->tid = fresh.tid;
		__builtin_memcpy(op->comm, fresh.comm, sizeof(op->comm));
		fresh.op = id;
		error = bpf_map_update_elem(&kiocbs, &kiocb, &fresh, BPF_ANY);
		if (error) {
			/* Its completion won't be known: it mustn't look lost. */
			lose(LOST_KIOCB, error);
			bpf_map_delete_elem(&ops, &id);
			return;
		}
	}
	ts = task_make((__u32)who);
	if (!ts) {
		bpf_map_delete_elem(&ops, &id);
		kiocb_forget(kiocb);
		return;
	}
	between_calls(ts);
	ts->op = id;
	ts->submit_op = id;
	ts->submit_kiocb = kiocb;
	ts->done = 0;
}

static __always_inline void submit_return(struct pt_regs *ctx, __u32 kind, __u64 who)
{
	struct task_state *ts = task_of((__u32)who);
	__s32 ret = (__s32)ctx->ax;
	struct kiocb_state *k;
	struct op *op;
	__u64 id, kiocb;
	__s32 res = 0;

	if (!ts || !ts->submit_op)
		return;
	id = ts->submit_op;
	kiocb = ts->submit_kiocb;
	ts->op = ts->submit_op = 0;

	if (kind == OP_AIO) {
		if (ret) {	/* refused before the driver saw it */
			kiocb_cancel(kiocb, id);
			return;
		}
	} else if (ret == -EAGAIN) {
		kiocb_cancel(kiocb, id);
		return;
	} else if (ret == 0 && kind == OP_URING && !bpf_core_field_exists(struct io_kiocb, cqe)) {
		/* 0 always: kiocb_done was given the result, or a completion tells it. */
		if (ts->done) {
			k = kiocb_of(kiocb);
			if (!k || k->op != id)
				return;
			COUNT(queued, 1);
			/* A polled request was told already, as if it had been queued. */
			if (!k->completions) {
				k->completions++;
				COUNT(completed, 1);
				kiocb_ended(kiocb, k);
				op_end(id, ts->done_result, 0);
			}
			return;
		}
	} else if (ret != -EIOCBQUEUED) {
		/* The driver returned a result, and io_uring posts it by itself. */
		k = kiocb_of(kiocb);
		if (k && k->op == id) {
			k->completions++;
			if (k->completions == 1) {
				res = ret;
				if (!ret && bpf_core_field_exists(struct io_kiocb, cqe))
					res = BPF_CORE_READ((struct io_kiocb *)kiocb, cqe.res);
				COUNT(completed, 1);
				COUNT(queued, 1);
				kiocb_ended(kiocb, k);
				op_end(id, res, 0);
				return;
			}
			tell(EV_RETURNED_TOO, id, 0, 0, ret);
		}
		return;
	}
	COUNT(queued, 1);
	op = op_of(id);
	if (op)
		op->flags |= OPF_QUEUED;
}

/* Older io_uring: the number of bytes that the driver moved at once. */
static __always_inline void uring_done(struct pt_regs *ctx, __u64 who)
{
	struct task_state *ts = task_of((__u32)who);

	/* An error goes to ki_complete, which is seen. */
	if (!ts || !ts->submit_op || ts->submit_kiocb != ctx->di || (__s64)ctx->si < 0)
		return;
	ts->done_result = (__s64)ctx->si;
	ts->done = 1;
}

/* A completion was told; driven: always by the driver, never by io_uring for it. */
static __always_inline void completed(void *ctx, __u64 sp, __u64 kiocb, __s64 res, bool driven)
{
	struct kiocb_state *k = kiocb_of(kiocb);
	struct op *op;
	__u64 id;

	if (!k)
		return;		/* submitted before the audit, or not in scope */
	id = k->op;
	__sync_fetch_and_add(&k->completions, 1);
	if (k->completions > 1) {
		struct event *e = event_begin(EV_COMPLETED_AGAIN);

		if (!e)
			return;
		e->value = res;
		e->stack = stack_at_entry(ctx, sp);
		e->op.id = id;
		e->op.kiocb = kiocb;
		e->op.kind = k->kind;
		e->op.tgid = k->tgid;
		e->op.tid = k->tid;
		e->op.completions = k->completions;
		__builtin_memcpy(e->op.comm, k->comm, sizeof(k->comm));
		bpf_ringbuf_submit(e, 0);
		return;
	}
	COUNT(completed, 1);
	kiocb_ended(kiocb, k);
	op = op_of(id);
	if (driven && op && op->requested && res > 0 && res > op->requested)
		tell(EV_RESULT_RANGE, id, 0, stack_at_entry(ctx, sp), res);
	op = op_of(id);
	op_end(id, res, op && op->live && !(op->flags & OPF_BIO) ? stack_at_entry(ctx, sp) : 0);
}

/* A cancel function was set: only a kiocb of native AIO has a place for it. */
static __always_inline void cancel_fn(struct pt_regs *ctx, __u64 who)
{
	__u64 key = ctx->di;
	struct kiocb_state *k = kiocb_of(key);
	struct task_state *ts = task_of((__u32)who);
	struct op *op = k ? op_of(k->op) : 0;

	if (op) {
		if (op->kind != OP_AIO && !op->completions)
			tell(EV_CANCEL_FN, op->id, 0, stack_at_entry(ctx, ctx->sp), 0);
	} else if (audited(who >> 32) && !BPF_CORE_READ((struct kiocb *)key, ki_complete)) {
		tell(EV_CANCEL_FN, ts ? ts->call : 0, 0, stack_at_entry(ctx, ctx->sp), 0);
	}
}

#endif
