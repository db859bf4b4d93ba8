/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Going through the pages of one call. Where the kernel has bpf_loop (5.17),
 * the walk's state is on the program's stack. Before it, a loop is bounded and
 * its body must be cheap to verify: a function of its own, which before 5.12
 * takes numbers only, so the state is in a map and goes by its number there.
 */
#ifndef DIO_TRACE_WALK_H
#define DIO_TRACE_WALK_H

#include "maps.h"
#include "pages.h"

enum walk_mode {
	WALK_ARRAY,	/* base is an array of pages or folios */
	WALK_RANGE,	/* base is the first of consecutive pages */
	WALK_FOLIO,	/* base is a folio; one step that stands for n pages */
};

struct walk {
	__u64 base;
	__u64 now;
	__u64 op;	/* pin: the owner; release: the operation of this context */
	__u64 hint;	/* release: the bio's operation */
	__u64 run;	/* folio of the pages in hand */
	__u64 run_op;
	__u64 stack;	/* where it is taken with FOLL_GET */
	__u32 n;
	__u32 run_pages;
	__u32 mode;
	__u32 write;
	__u32 dirty;
	__u32 audited;
	__u32 run_large;
	__u32 get;	/* taken with FOLL_GET */
	__u32 foreign;	/* taken by nobody in scope */
	__u32 guess;	/* release: only the folio's slots told the holder */
	__u32 fit;	/* release: only of a holder whose pins such a release fits */
	/* found on the way */
	__u32 pages;
	__u32 over;
	__u32 readonly_dirty;
	__u32 pinning;	/* release: within a pin function of this thread */
	__u64 readonly_op;
	__u64 over_op;	/* the last holder of what nobody holds now */
	__u64 clean_op;
	__u64 late_op;
	__u64 done_op;	/* ended, and this was its last page */
};

static __always_inline __u64 walk_page(struct walk *w, __u32 i)
{
	__u64 page = 0;

	if (w->mode == WALK_RANGE)
		return w->base + (__u64)i * bpf_core_type_size(struct page);
	if (w->mode == WALK_FOLIO)
		return w->base;
	bpf_probe_read_kernel(&page, sizeof(page), (void *)w->base + (__u64)i * 8);
	return page;
}

/*
 * Zeroes what the verifier must not know to be zero: before 6.7 it follows
 * bpf_loop's callback once only, with what it knows of the first step, and
 * removes the branches that only later steps take.
 */
static __always_inline void walk_init(struct walk *w)
{
	struct zeros *z;
	__u32 key = 0;

	_Static_assert(sizeof(*w) <= sizeof(*z), "zeros too few");
	z = bpf_map_lookup_elem(&zero, &key);
	bpf_probe_read_kernel(w, sizeof(*w), z);
}

#define ABSURD_PAGES (1U << 20)	/* an error taken for a count */

#ifdef WITHOUT_BPF_LOOP

#define WALK_LEVELS 4		/* a task, a soft and a hard interrupt, one to spare */
#define CHUNK 1024
#define CHUNKS 64
#define MAX_PAGES (CHUNK * CHUNKS - 1)

MAP(BPF_MAP_TYPE_PERCPU_ARRAY, walks, __u32, struct walk, WALK_LEVELS);
MAP(BPF_MAP_TYPE_PERCPU_ARRAY, walk_depth, __u32, __u32, 1);

#define WALK_REF __u32
#define WALK_DECLARE(w, ref) struct walk *w; __u32 ref

static __always_inline struct walk *walk_of(__u32 ref)
{
	return bpf_map_lookup_elem(&walks, &ref);
}

/* Programs aren't preempted on these kernels: what interrupts one ends before it. */
static __always_inline struct walk *walk_take(__u32 *ref)
{
	__u32 zero = 0, *depth = bpf_map_lookup_elem(&walk_depth, &zero);
	struct walk *w;

	if (!depth)
		return 0;
	*ref = *depth;
	w = walk_of(*ref);
	if (!w) {
		lose(LOST_WALK, 0);
		return 0;
	}
	*depth = *ref + 1;
	walk_init(w);
	return w;
}

static __always_inline void walk_done(void)
{
	__u32 zero = 0, *depth = bpf_map_lookup_elem(&walk_depth, &zero);

	if (depth)
		*depth -= 1;
}

#define WALK_BEGIN(w, ref) ((w = walk_take(&ref)) != 0)
#define WALK_END() walk_done()

/* step(i, w) for i from 0 to n */
#define WALK_LOOP(step)							\
__noinline int step##_one(__u32 i, __u32 ref)				\
{									\
	return step(i, ref);						\
}									\
									\
__noinline int step##_chunk(__u32 first, __u32 n, __u32 ref)		\
{									\
	__u32 i;							\
									\
	for (i = 0; i < CHUNK; i++) {					\
		if (first + i > n)					\
			break;						\
		step##_one(first + i, ref);				\
	}								\
	return 0;							\
}									\
									\
static __always_inline void step##_all(__u32 n, __u32 ref)		\
{									\
	__u32 c;							\
									\
	for (c = 0; c < CHUNKS; c++) {					\
		if (c * CHUNK > n)					\
			break;						\
		step##_chunk(c * CHUNK, n, ref);			\
	}								\
}

#define STEP_ARG __u32 ref

#else

#define MAX_PAGES ABSURD_PAGES
#define WALK_REF struct walk *
#define WALK_DECLARE(w, ref) struct walk w##_state, *w = &w##_state, *ref = w
#define WALK_BEGIN(w, ref) (walk_init(w), true)
#define WALK_END() do { } while (0)
#define STEP_ARG void *ref

static __always_inline struct walk *walk_of(void *ref)
{
	return ref;
}

#define WALK_LOOP(step)							\
static __always_inline void step##_all(__u32 n, struct walk *w)		\
{									\
	bpf_loop(n + 1, step, w, 0);					\
}

#endif

#endif
