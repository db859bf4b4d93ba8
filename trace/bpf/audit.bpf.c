// SPDX-License-Identifier: GPL-2.0-only
/*
 * The auditor's programs. One program serves the entries of all functions
 * that only tasks call, and one their returns; a cookie says which function
 * it is and where its arguments are. What interrupts call too (completions,
 * releases) has a second program of another kind (fentry), for the kernel
 * skips a kprobe program that interrupts another one: see dual.h.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include "cookie.h"
#include "dual.h"
#include "pins.h"
#include "request.h"

char LICENSE[] SEC("license") = "GPL";

/* Keeps the type in the object's BTF, from which Go's is generated. */
const struct event *unused_event __attribute__((unused));

#define EXCESS_SLACK 16

/*
 * Twice the buffer's pages, if each segment has no full page, is more than any
 * arithmetic of a correct driver comes to. What is kept for long isn't a buffer.
 */
__noinline int pin_excess(__u64 id, __u64 asked, __u32 flags, __u32 stack)
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
	ts->pin_hook = cookie;
	ts->pin_sp = ctx->sp;
	ts->pin_foreign = foreign;
	ts->pin_pages = arg(ctx, COOKIE_PAGES(cookie));
	if (foreign)
		return;
	ts->pin_flags = cookie & COOKIE_LONGTERM ? foll_longterm : (__u32)arg(ctx, COOKIE_FLAGS(cookie));
	ts->pin_stack = stack_of(ctx);
	if (COOKIE_ASKED(cookie))
		pin_excess(ts->op ? ts->op : ts->call, arg(ctx, COOKIE_ASKED(cookie)), ts->pin_flags, ts->pin_stack);
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

/*
 * A page that nobody holds: was it released by an operation that goes on? Not by
 * a release that dirties, of which this is a part.
 */
static __always_inline void dirtied_late(struct pt_regs *ctx, __u64 folio)
{
	__u64 *last = bpf_map_lookup_elem(&released, &folio);
	struct op *op = last ? op_of(*last) : 0;

	if (!op || op->completions)
		return;
	tell(EV_DIRTY_LATE, op->id, 1, stack_of(ctx), 0);
	/* One dirtying function calls another, which would tell it again. */
	bpf_map_delete_elem(&released, &folio);
}

/* locks: the function takes the page's lock by itself. */
static __always_inline void dirtied(struct pt_regs *ctx, __u64 folio, __u64 who, bool locks)
{
	struct folio_state *f = bpf_map_lookup_elem(&folios, &folio);
	struct task_state *ts;
	__u64 now, id;

	if (!f || !f->live) {
		dirtied_late(ctx, folio);
		return;
	}
	now = bpf_ktime_get_ns();
	if (!f->first_dirty)
		f->first_dirty = now;
	f->last_dirty = now;
	ts = task_of((__u32)who);
	id = ts ? (ts->op ? ts->op : ts->call) : 0;
	if (!id)
		id = f->holders[0];
	if (!f->live_write)
		tell(EV_DIRTY_READONLY, id, 1, stack_of(ctx), 1);
	if (!locks && folio_of_file(folio) && !folio_locked(folio))
		tell(EV_DIRTY_UNLOCKED, id, 1, stack_of(ctx), 0);
}

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

/* A call of a function that interrupts call too, by whichever program saw it first. */
static __always_inline void dual(void *ctx, __u32 function, __u64 a0, __u64 a1, __u64 a2)
{
	switch (function) {
	case DUAL_AIO_COMPLETE:
	case DUAL_URING_COMPLETE:
	case DUAL_URING_COMPLETE_POLL:
		completed(ctx, a0, a1, function != DUAL_URING_COMPLETE_POLL);
		break;
	case DUAL_URING_CMD_DONE:
		completed(ctx, a0, (__s32)a1, false);
		break;
	case DUAL_UNPIN_PAGE:
		released_pages(ctx, a0, 1, WALK_RANGE, false);
		break;
	case DUAL_UNPIN_PAGES:
		released_pages(ctx, a0, (__u32)a1, WALK_ARRAY, false);
		break;
	case DUAL_UNPIN_PAGES_DIRTY:
		/* Without dirtying it only calls unpin_user_pages, which is seen there. */
		if (a2 & 0xff)
			released_pages(ctx, a0, (__u32)a1, WALK_ARRAY, true);
		break;
	case DUAL_UNPIN_FOLIO:
		released_pages(ctx, a0, (__u32)a1, WALK_FOLIO, false);
		break;
	case DUAL_BIO_RELEASE:
		bio_release(a0);
		break;
	}
}

/* Its user space puts the number in place of the call where the kernel has no cookies (before 5.15). */
SEC("kprobe.multi")
int on_enter(struct pt_regs *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx);
	__u64 who = bpf_get_current_pid_tgid();

	/* What has two programs goes on being counted, for the comparison of the two. */
	if (stopped && COOKIE_KIND(cookie) != HOOK_DUAL)
		return 0;
	switch (COOKIE_KIND(cookie)) {
	case HOOK_PIN:
		pin_enter(ctx, cookie, who);
		break;
	case HOOK_AIO:
		submit_enter(ctx, OP_AIO, who);
		break;
	case HOOK_URING:
		submit_enter(ctx, OP_URING, who);
		break;
	case HOOK_URING_CMD:
		submit_enter(ctx, OP_URING_CMD, who);
		break;
	case HOOK_ITER:
		iter_enter(ctx, cookie, who);
		break;
	case HOOK_DIRTY_PAGE:
		dirtied(ctx, page_folio(ctx->di).head, who, true);
		break;
	case HOOK_DIRTY_FOLIO:
		dirtied(ctx, page_folio(ctx->di).head, who, false);
		break;
	case HOOK_RELEASE_RANGE:
		released_pages(ctx, ctx->di, (__u32)ctx->si, WALK_RANGE, ctx->dx & 0xff);
		break;
	case HOOK_RELEASE_FOLIO:
		released_pages(ctx, ctx->di, 1, WALK_FOLIO, false);
		break;
	case HOOK_RELEASE_FOLIOS:
		released_pages(ctx, ctx->di, (__u32)ctx->si, WALK_ARRAY, false);
		break;
#ifndef WITHOUT_BPF_LOOP
	case HOOK_DUAL:
		if (handles(SIDE_KPROBE, COOKIE_DUAL(cookie), ctx->sp, ctx->di) && !stopped)
			dual(ctx, COOKIE_DUAL(cookie), ctx->di, ctx->si, ctx->dx);
		break;
#endif
	case HOOK_BIO_PAGES:
		bio_pages(ctx, who);
		break;
	case HOOK_URING_DONE:
		uring_done(ctx, who);
		break;
	case HOOK_CANCEL_FN:
		cancel_fn(ctx, who);
		break;
	case HOOK_ADD_PIN:
		pinned_again(ctx->di, 1, who);
		break;
	case HOOK_ADD_PINS:
		pinned_again(ctx->di, (__u32)ctx->si, who);
		break;
	}
	return 0;
}

SEC("kprobe.multi")
int on_return(struct pt_regs *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx);
	__u64 who = bpf_get_current_pid_tgid();

	if (stopped)
		return 0;
	switch (COOKIE_KIND(cookie)) {
	case HOOK_PIN:
		pin_return(ctx, cookie, who);
		break;
	case HOOK_AIO:
		submit_return(ctx, OP_AIO, who);
		break;
	case HOOK_URING:
		submit_return(ctx, OP_URING, who);
		break;
	case HOOK_URING_CMD:
		submit_return(ctx, OP_URING_CMD, who);
		break;
	case HOOK_ITER:
		iter_return(ctx, cookie, who);
		break;
	case HOOK_SPLICE:
		splice_return(ctx, who);
		break;
	}
	return 0;
}

/*
 * An fentry program's argument; a plain load would be checked against the
 * argument's type.
 */
static __always_inline __u64 farg(__u64 *ctx, __u32 i)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), ctx + i);
	return value;
}

/* The kernels that need loops of the old kind never skip an fentry program. */
#ifdef WITHOUT_BPF_LOOP
#define HANDLES(function, sp, arg) true
#else
/*
 * The stack pointer at the function's entry: the trampoline's arguments, where
 * ctx points, lie below its frame pointer, and that below two return addresses.
 */
static __always_inline __u64 entry_sp(__u64 *ctx, __u32 args)
{
	__u64 place = 0;
	void *volatile p = ctx;

	bpf_probe_read_kernel(&place, sizeof(place), (void *)&p);
	return place + 8 * args + 16;
}

#define HANDLES(function, sp, arg) handles(SIDE_FENTRY, function, sp, arg)
#endif

#define DUAL_PROGRAM(program, function, args)						\
SEC("fentry/" #program)									\
int program(__u64 *ctx)									\
{											\
	__u64 a0 = farg(ctx, 0);							\
											\
	if (HANDLES(function, entry_sp(ctx, args), a0) && !stopped)			\
		dual(ctx, function, a0, args > 1 ? farg(ctx, 1) : 0, args > 2 ? farg(ctx, 2) : 0); \
	return 0;									\
}

DUAL_PROGRAM(on_aio_complete, DUAL_AIO_COMPLETE, 2)
DUAL_PROGRAM(on_uring_complete, DUAL_URING_COMPLETE, 2)
DUAL_PROGRAM(on_uring_complete_poll, DUAL_URING_COMPLETE_POLL, 2)
DUAL_PROGRAM(on_uring_cmd_done, DUAL_URING_CMD_DONE, 3)
DUAL_PROGRAM(on_unpin_page, DUAL_UNPIN_PAGE, 1)
DUAL_PROGRAM(on_unpin_pages, DUAL_UNPIN_PAGES, 2)
DUAL_PROGRAM(on_unpin_pages_dirty, DUAL_UNPIN_PAGES_DIRTY, 3)
DUAL_PROGRAM(on_unpin_folio, DUAL_UNPIN_FOLIO, 2)
DUAL_PROGRAM(on_bio_release, DUAL_BIO_RELEASE, 2)

/* System calls whose result is a number of bytes (x86-64). */
static __always_inline bool counts_bytes(__u64 nr)
{
	switch (nr) {
	case 0:
	case 1:
	case 17 ... 20:
	case 40:
	case 275:
	case 295 ... 296:
	case 327 ... 328:
		return true;
	}
	return false;
}

static __always_inline int sys_exit(__u64 *ctx)
{
	struct task_state *ts = task_of((__u32)bpf_get_current_pid_tgid());
	struct pt_regs *regs;
	__u64 nr = 0;
	struct op *op;

	if (!ts || stopped)
		return 0;
	/* Whatever was missed, a thread that leaves the kernel is in the middle of nothing. */
	ts->op = ts->submit_op = ts->iter_hook = ts->pin_hook = 0;
	if (!ts->call)
		return 0;
	op = op_of(ts->call);
	if (op) {
		regs = (struct pt_regs *)ctx[0];
		bpf_probe_read_kernel(&nr, sizeof(nr), &regs->orig_ax);
		op->syscall = nr;
		if (counts_bytes(nr))
			op->flags |= OPF_BYTES;
		op_end(ts->call, (__s64)ctx[1], 0);
	}
	ts->call = 0;
	return 0;
}

/*
 * Twice, for newer kernels may preempt a program, and skip it meanwhile for
 * other tasks on that CPU. Where both run the second finds nothing to do.
 */
SEC("raw_tp/sys_exit")
int on_sys_exit(__u64 *ctx)
{
	return sys_exit(ctx);
}

SEC("raw_tp/sys_exit")
int on_sys_exit_again(__u64 *ctx)
{
	return sys_exit(ctx);
}

/*
 * Ends what pinned pages on the way back to user space (task work, a page
 * fault), or in a call at whose end both were skipped: user space tells which.
 */
SEC("raw_tp/sys_enter")
int on_sys_enter(__u64 *ctx)
{
	struct task_state *ts = task_of((__u32)bpf_get_current_pid_tgid());

	if (!ts || stopped)
		return 0;
	ts->op = ts->submit_op = ts->iter_hook = ts->pin_hook = 0;
	if (!ts->call)
		return 0;
	op_end(ts->call, 0, 0);
	ts->call = 0;
	lose(LOST_RETURN, 0);
	return 0;
}

static __always_inline int process_fork(__u64 *ctx)
{
	__u32 parent = BPF_CORE_READ((struct task_struct *)ctx[0], tgid);
	__u32 child = BPF_CORE_READ((struct task_struct *)ctx[1], tgid);
	__u32 one = 1;
	long error;

	if (parent != child && bpf_map_lookup_elem(&targets, &parent)) {
		error = bpf_map_update_elem(&targets, &child, &one, BPF_ANY);
		if (error)
			lose(LOST_TARGET, error);
	}
	return 0;
}

/* Twice, for the same reason and seldom called: the children of a process that was missed would all be. */
SEC("raw_tp/sched_process_fork")
int on_fork(__u64 *ctx)
{
	return process_fork(ctx);
}

SEC("raw_tp/sched_process_fork")
int on_fork_again(__u64 *ctx)
{
	return process_fork(ctx);
}

/* May be skipped: what it leaves behind is cleared when a thread of this number next leaves the kernel. */
SEC("raw_tp/sched_process_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	__u32 tid = BPF_CORE_READ(task, pid), tgid = BPF_CORE_READ(task, tgid);

	bpf_map_delete_elem(&tasks, &tid);
	/* The number of a process that is over may be given to a stranger. */
	if (BPF_CORE_READ(task, signal, live.counter) == 0)
		bpf_map_delete_elem(&targets, &tgid);
	return 0;
}

SEC("raw_tp/mm_page_free")
int on_page_free(__u64 *ctx)
{
	__u64 page = ctx[0];

	if (gets_seen)
		bpf_map_delete_elem(&gets, &page);
	/* Who pins it next may be nobody in scope. */
	if (released_seen && bpf_map_lookup_elem(&released, &page))
		bpf_map_delete_elem(&released, &page);
	return 0;
}

/*
 * Run by user space: a folio that was gotten, its mapping and its references
 * then. What it is now, if its process has gone: enum got_state.
 */
SEC("raw_tp/judge_get")
int judge_get(__u64 *ctx)
{
	__u64 folio = ctx[0], was = ctx[1], mapping = folio_mapping(folio);
	__s32 references = folio_references(folio);

	/* Mapping it takes no reference: only who gets it changes their number. */
	if (!was && !mapping && folio_reserved(folio)) {
		references -= (__s32)ctx[2];
		if (references > 0xffff)
			references = 0xffff;
		return references > 0 ? GOT_ZERO | references : GOT_FREED;
	}
	if (references <= 0 || mapping != was)
		return GOT_FREED;
	if ((mapping & 3) != 1 || folio_maybe_mapped(folio) || folio_pins(folio) ||
	    page_flags(folio) >> bpf_core_enum_value(enum pageflags, PG_swapcache) & 1)
		return GOT_UNJUDGED;
	if (references > 0xffff)
		references = 0xffff;
	return GOT_HELD | references;
}

/* Run by user space: how often the kernel itself believes a folio to be pinned. */
SEC("raw_tp/folio_pins")
int count_pins(__u64 *ctx)
{
	return folio_pins(ctx[0]);
}
