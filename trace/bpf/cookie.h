/* SPDX-License-Identifier: GPL-2.0-only */
/* What a shared program learns of the function that it serves, and its arguments. */
#ifndef DIO_TRACE_COOKIE_H
#define DIO_TRACE_COOKIE_H

#include "kernel.h"

/* The cookie: the kind of function in bits 0-7, argument numbers above. */
enum hook_kind {
	HOOK_PIN = 1,
	HOOK_AIO,
	HOOK_URING,
	HOOK_URING_CMD,
	HOOK_ITER,
	HOOK_SPLICE,
	HOOK_DIRTY_FOLIO,
	HOOK_DIRTY_PAGE,
	HOOK_RELEASE_FOLIO,
	HOOK_RELEASE_FOLIOS,
	HOOK_BIO_PAGES,
	HOOK_URING_DONE,
	HOOK_DUAL,	/* which: see enum dual_function */
	HOOK_CANCEL_FN,
	HOOK_ADD_PIN,
	HOOK_ADD_PINS,
};

enum dual_function {
	DUAL_AIO_COMPLETE,
	DUAL_URING_COMPLETE,
	DUAL_URING_COMPLETE_POLL,
	DUAL_URING_CMD_DONE,
	DUAL_UNPIN_PAGE,
	DUAL_UNPIN_PAGES,
	DUAL_UNPIN_PAGES_DIRTY,
	DUAL_UNPIN_FOLIO,
	DUAL_BIO_RELEASE,
	DUAL_UNPIN_RANGE,
};

#define COOKIE_KIND(c) ((c) & 0xff)
#define COOKIE_PAGES(c) ((c) >> 8 & 0xf)
#define COOKIE_FLAGS(c) ((c) >> 12 & 0xf)
#define COOKIE_DUAL(c) ((c) >> 8 & 0xf)
/* Is the function of hook a, entered at sp_a, called by that of hook b? Perhaps by a jump: then the two differ. */
#define NESTED(sp_a, a, sp_b, b) (((sp_a) < (sp_b) && (sp_b) - (sp_a) < 4096) || ((sp_a) == (sp_b) && (a) != (b)))

#define COOKIE_WRITES (1 << 8)		/* of a submission: data moves out of memory */
#define COOKIE_GET (1 << 16)		/* FOLL_GET, not FOLL_PIN */
#define COOKIE_LONGTERM (1 << 17)	/* always long-term, has no flags */
#define COOKIE_ASKED(c) ((c) >> 18 & 0xf)	/* of a pin function: the argument that counts pages; 0: none */
#define COOKIE_HANDLER(c) ((c) >> 18)	/* number of the driver's function */

/* Each is loaded for itself: the verifier refuses a computed place in ctx. */
static __always_inline __u64 arg(struct pt_regs *ctx, __u32 i)
{
	__u64 values[6] = { ctx->di, ctx->si, ctx->dx, ctx->cx, ctx->r8, ctx->r9 };
	__u64 value = values[0];
	int k;

#pragma unroll
	for (k = 1; k < 6; k++) {
		barrier_var(values[k]);
		if (i == k)
			value = values[k];
	}
	return value;
}

#endif
