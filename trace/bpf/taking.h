/* SPDX-License-Identifier: GPL-2.0-only */
/* The functions that pin or get pages, on their way in and out. */
#ifndef DIO_TRACE_TAKING_H
#define DIO_TRACE_TAKING_H

#include "cookie.h"
#include "pins.h"

#define EXCESS_SLACK 16

/*
 * Twice the buffer's pages, if each segment has no full page, is more than any
 * arithmetic of a correct driver comes to. What is kept for long isn't a buffer.
 */
__noinline int pin_excess(__u64 id, __u64 asked, __u32 flags, __u64 stack)
{
	struct op *op = op_of(id);

	if (op && op->requested && !(flags & foll_longterm) &&
	    asked > 2 * (op->requested / 4096 + 2 * (__u64)op->segments) + EXCESS_SLACK)
		tell(EV_PIN_EXCESS, id, (__u32)asked, stack, 0);
	return 0;
}

static __always_inline void pin_enter(struct pt_regs *ctx, __u64 cookie, __u64 who)
{
	struct task_state *ts = task_of((__u32)who);
	struct op *op = ts ? op_of(ts->op) : 0;

	/* A kernel thread that works on an audited process's operation counts. */
	bool foreign = !op && !audited(who >> 32);

	if (foreign && cookie & COOKIE_GET)
		return;
	if (!ts)
		ts = task_make((__u32)who);
	if (!ts)
		return;
	/* One pin function may call another: the outer one is the one. */
	if (ts->pin_hook && NESTED(ctx->sp, cookie, ts->pin_sp, ts->pin_hook))
		return;
	if (ts->pin_hook && !ts->pin_foreign)
		lose(LOST_FUNCTION, 0);	/* the last one's return was unseen */
	ts->pin_hook = cookie;
	ts->pin_sp = ctx->sp;
	ts->pin_foreign = foreign;
	ts->pin_pages = arg(ctx, COOKIE_PAGES(cookie));
	if (foreign)
		return;
	ts->pin_flags = cookie & COOKIE_LONGTERM ? foll_longterm : (__u32)arg(ctx, COOKIE_FLAGS(cookie));
	ts->pin_stack = stack_at_entry(ctx, ctx->sp);
	if (COOKIE_ASKED(cookie))
		pin_excess(ts->op ? ts->op : ts->call, (__u32)arg(ctx, COOKIE_ASKED(cookie)), ts->pin_flags, ts->pin_stack);
}

static __always_inline void pin_return(struct pt_regs *ctx, __u64 cookie, __u64 who)
{
	struct task_state *ts = task_of((__u32)who);
	__s32 n = (__s32)ctx->ax;
	__u64 id;

	if (!ts || ts->pin_hook != cookie)
		return;
	ts->pin_hook = 0;
	if (ts->pin_foreign) {
		__u64 pages = ts->pin_pages;
		__u32 tid = (__u32)who;

		if (!ts->op && !ts->call)
			bpf_map_delete_elem(&tasks, &tid);
		if (n > 0 && pages)
			pinned_foreign(pages, n);
		return;
	}
	if (n <= 0 || !ts->pin_pages)
		return;
	if (cookie & COOKIE_GET) {
		gotten(ts->pin_pages, n, ts->op ? ts->op : ts->call, ts->pin_stack);
		return;
	}
	id = ts->op ? ts->op : ts->call;
	if (!op_of(id)) {
		id = op_begin(OP_SYSCALL, 0, 0);
		ts->call = id;
	}
	pinned(ts->pin_pages, n, id, ts->pin_flags, ts->pin_stack);
}

#endif
