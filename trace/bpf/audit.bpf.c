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
#include "bio.h"
#include "cookie.h"
#include "dirty.h"
#include "dual.h"
#include "iter.h"
#include "judge.h"
#include "request.h"
#include "taking.h"
#include "task.h"

char LICENSE[] SEC("license") = "GPL";

/* Keeps the type in the object's BTF, from which Go's is generated. */
const struct event *unused_event __attribute__((unused));

/* A call of a function that interrupts call too, by whichever program saw it first. */
static __always_inline void dual(void *ctx, __u32 function, __u64 sp, __u64 a0, __u64 a1, __u64 a2)
{
	switch (function) {
	case DUAL_AIO_COMPLETE:
	case DUAL_URING_COMPLETE:
	case DUAL_URING_COMPLETE_POLL:
		completed(ctx, sp, a0, a1, function != DUAL_URING_COMPLETE_POLL);
		break;
	case DUAL_URING_CMD_DONE:
		completed(ctx, sp, a0, (__s32)a1, false);
		break;
	case DUAL_UNPIN_PAGE:
		released_pages(ctx, sp, a0, 1, WALK_RANGE, false);
		break;
	case DUAL_UNPIN_PAGES:
		released_pages(ctx, sp, a0, (__u32)a1, WALK_ARRAY, false);
		break;
	case DUAL_UNPIN_PAGES_DIRTY:
		/* Without dirtying it only calls unpin_user_pages, which is seen there. */
		if (a2 & 0xff)
			released_pages(ctx, sp, a0, (__u32)a1, WALK_ARRAY, true);
		break;
	case DUAL_UNPIN_FOLIO:
		released_pages(ctx, sp, a0, (__u32)a1, WALK_FOLIO, false);
		break;
	case DUAL_BIO_RELEASE:
		bio_release(a0);
		break;
	case DUAL_UNPIN_RANGE:
		/* Where nothing is to be marked dirty, a timer may call it, whatever it's called. */
		released_pages(ctx, sp, a0, (__u32)a1, WALK_RANGE, a2 & 0xff);
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
		submit_enter(ctx, OP_AIO, cookie, who);
		break;
	case HOOK_URING:
		submit_enter(ctx, OP_URING, cookie, who);
		break;
	case HOOK_URING_CMD:
		submit_enter(ctx, OP_URING_CMD, cookie, who);
		break;
	case HOOK_ITER:
		iter_enter(ctx, cookie, who);
		break;
	case HOOK_SPLICE:
		splice_enter(who);
		break;
	case HOOK_DIRTY_PAGE:
		dirtied(ctx, page_folio(ctx->di).head, who, true);
		break;
	case HOOK_DIRTY_FOLIO:
		dirtied(ctx, page_folio(ctx->di).head, who, false);
		break;
	case HOOK_RELEASE_FOLIO:
		released_pages(ctx, ctx->sp, ctx->di, 1, WALK_FOLIO, false);
		break;
	case HOOK_RELEASE_FOLIOS:
		released_pages(ctx, ctx->sp, ctx->di, (__u32)ctx->si, WALK_ARRAY, false);
		break;
#ifndef WITHOUT_BPF_LOOP
	case HOOK_DUAL:
		if (handles(SIDE_KPROBE, COOKIE_DUAL(cookie), ctx->sp, ctx->di) && !stopped)
			dual(ctx, COOKIE_DUAL(cookie), ctx->sp, ctx->di, ctx->si, ctx->dx);
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

/* The kernels that need loops of the old kind never skip an fentry program. */
#ifdef WITHOUT_BPF_LOOP
#define HANDLES(function, sp, arg) true
#else
#define HANDLES(function, sp, arg) handles(SIDE_FENTRY, function, sp, arg)
#endif

#define DUAL_PROGRAM(program, function, args)						\
SEC("fentry/" #program)									\
int program(__u64 *ctx)									\
{											\
	__u64 sp = entry_sp(ctx, args), a0 = farg(ctx, 0);				\
											\
	if (HANDLES(function, sp, a0) && !stopped)					\
		dual(ctx, function, sp, a0, args > 1 ? farg(ctx, 1) : 0, args > 2 ? farg(ctx, 2) : 0); \
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
DUAL_PROGRAM(on_unpin_range, DUAL_UNPIN_RANGE, 3)

SEC("raw_tp/mm_page_free")
int on_page_free(__u64 *ctx)
{
	__u64 page = ctx[0];
	struct folio_state *f;

	if (gets_seen)
		bpf_map_delete_elem(&gets, &page);
	/* Who pins it next may be nobody in scope. */
	if (released_seen && bpf_map_lookup_elem(&released, &page))
		bpf_map_delete_elem(&released, &page);
	/* A large folio's state was kept: see release_run. */
	if ((__u32)ctx[1]) {
		f = bpf_map_lookup_elem(&folios, &page);
		if (f && !f->live)
			bpf_map_delete_elem(&folios, &page);
	}
	return 0;
}
