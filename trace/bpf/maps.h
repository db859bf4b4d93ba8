/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps, and the settings that user space writes before loading. */
#ifndef DIO_TRACE_MAPS_H
#define DIO_TRACE_MAPS_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include "state.h"

#define MAP(map_type, map_name, key_type, value_type, entries)	\
	struct {						\
		__uint(type, map_type);				\
		__uint(max_entries, entries);			\
		__type(key, key_type);				\
		__type(value, value_type);			\
	} map_name SEC(".maps")

/*
 * Preallocated all of them: programs run in interrupts, where an allocation
 * may fail and a lost pin would make the verdict worthless.
 */
MAP(BPF_MAP_TYPE_HASH, folios, __u64, struct folio_state, 131072);
MAP(BPF_MAP_TYPE_HASH, holds, struct hold_key, struct hold, 131072);
MAP(BPF_MAP_TYPE_LRU_HASH, page_ops, __u64, __u64, 131072);	/* pages of large folios: not all are taken out */
MAP(BPF_MAP_TYPE_LRU_HASH, released, __u64, __u64, 16384);	/* folios whose last pin was seen to go; whose it was, and: */
#define RELEASED_DIRTY (1ULL << 63)	/* by a release that dirties */
MAP(BPF_MAP_TYPE_HASH, gets, __u64, struct got, 65536);
MAP(BPF_MAP_TYPE_HASH, ops, __u64, struct op, 65536);
MAP(BPF_MAP_TYPE_HASH, kiocbs, __u64, struct kiocb_state, 65536);	/* in flight */
MAP(BPF_MAP_TYPE_LRU_HASH, ended_kiocbs, __u64, struct kiocb_state, 16384);	/* until their memory is used anew */
MAP(BPF_MAP_TYPE_HASH, tasks, __u32, struct task_state, 8192);
MAP(BPF_MAP_TYPE_LRU_HASH, bios, __u64, __u64, 16384);
MAP(BPF_MAP_TYPE_HASH, targets, __u32, __u32, 8192);	/* thread groups under audit */
MAP(BPF_MAP_TYPE_LRU_HASH, forks, __u32, __u32, 1024);	/* threads whose fork on_fork saw, on_fork_again not yet */
MAP(BPF_MAP_TYPE_PERCPU_ARRAY, counts, __u32, struct totals, 1);
MAP(BPF_MAP_TYPE_PERCPU_ARRAY, bio_hint, __u32, __u64, 1);

MAP(BPF_MAP_TYPE_LRU_HASH, calls, __u64, struct call_notes, 4096);

struct zeros {
	__u64 word[32];
};
MAP(BPF_MAP_TYPE_ARRAY, zero, __u32, struct zeros, 1);

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 32768);	/* buckets: of two stacks in one the second is lost */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_DEPTH * sizeof(__u64));
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

const volatile __u32 audit_all;		/* every process, not just targets */
const volatile __u32 self_tgid;		/* the auditor: its children are targets, itself not */
__u32 gets_seen;			/* some page was taken with FOLL_GET */
__u32 released_seen;			/* the map has an entry */
__u32 pins_lost;			/* pins found no place: that nobody seems to hold a page proves nothing */
__u32 stopped;				/* by user space, which reads the maps */
const volatile __u32 foll_longterm = 1 << 8;	/* 1 << 16 before 6.3 */

static __always_inline struct totals *get_totals(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counts, &zero);
}

/*
 * From 7.0 a program may be preempted, and between a look at a folio's state and what
 * follows from it another task on that CPU then takes the state away, or begins to use
 * it. Kernels before 6.10 have no such calls, and don't preempt a program.
 */
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

static __always_inline void preemption_off(void)
{
	if (bpf_preempt_disable)
		bpf_preempt_disable();
}

static __always_inline void preemption_on(void)
{
	if (bpf_preempt_enable)
		bpf_preempt_enable();
}

/* Several CPUs never share a slot, but an interrupt may share its CPU's. */
#define COUNT(field, n)							\
	do {								\
		struct totals *__t = get_totals();			\
		if (__t)						\
			__sync_fetch_and_add(&__t->field, (n));		\
	} while (0)

/* Something found no place: the kernel's word why, or 0. */
static __always_inline void lose(__u32 cause, long error)
{
	struct totals *t = get_totals();

	if (cause == LOST_TASK || cause == LOST_WALK || cause == LOST_FUNCTION)
		pins_lost = 1;
	if (!t || cause >= LOST_MAX)
		return;
	__sync_fetch_and_add(&t->lost[cause].events, 1);
	t->lost[cause].error = error;
}

static __always_inline void lose_pins(__u32 n)
{
	pins_lost = 1;
	COUNT(lost_pages, n);
}

/* In scope: a thread of an audited process. */
static __always_inline bool audited(__u32 tgid)
{
	__u32 *target;

	if (tgid == self_tgid)
		return false;
	if (audit_all)
		return true;
	target = bpf_map_lookup_elem(&targets, &tgid);
	return target != 0;
}

static __always_inline struct task_state *task_of(__u32 tid)
{
	return bpf_map_lookup_elem(&tasks, &tid);
}

static __always_inline struct task_state *task_make(__u32 tid)
{
	struct task_state *ts = bpf_map_lookup_elem(&tasks, &tid);
	struct task_state fresh = {};
	long error;

	if (ts)
		return ts;
	error = bpf_map_update_elem(&tasks, &tid, &fresh, BPF_NOEXIST);
	if (error)
		lose(LOST_TASK, error);
	return bpf_map_lookup_elem(&tasks, &tid);
}

/*
 * Whatever was missed, a thread that leaves the kernel, enters it, ends, or is handed
 * a request is in the middle of nothing. A function that it is still in returned
 * unseen (the kernel had no place left to note the return, or skipped its program),
 * and what that did isn't known; but for a synchronous read_iter or write_iter, which
 * ends with its system call. io_uring's own threads make no system calls.
 */
static __always_inline void between_calls(struct task_state *ts)
{
	if (ts->submit_op || ts->splicing || (ts->pin_hook && !ts->pin_foreign) || (ts->iter_hook && ts->iter_kiocb))
		lose(LOST_FUNCTION, 0);
	ts->op = ts->submit_op = ts->iter_hook = ts->pin_hook = 0;
	ts->splicing = 0;
}

/* A stack id plus one, so that 0 can mean none. */
static __always_inline __u64 stack_of(void *ctx)
{
	long id = bpf_get_stackid(ctx, &stacks, 0);

	return id < 0 ? 0 : (__u32)id + 1;
}

/*
 * The same where a function begins. It has made no frame yet, and a kernel that
 * unwinds by frame pointers, as Ubuntu's do, leaves its caller out; so the address
 * that it returns to is told too, in the upper half. All code lies in the topmost
 * 4 GiB: the lower half of an address is enough. sp: where that address stands.
 */
static __always_inline __u64 stack_at_entry(void *ctx, __u64 sp)
{
	__u64 stack = stack_of(ctx), caller = 0;

	if (!stack || bpf_probe_read_kernel(&caller, sizeof(caller), (void *)sp) || caller >> 32 != 0xffffffff)
		return stack;
	return stack | caller << 32;
}

#endif
