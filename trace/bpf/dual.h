/* SPDX-License-Identifier: GPL-2.0-only */
/* Which of the two programs on one function handles a call of it. */
#ifndef DIO_TRACE_DUAL_H
#define DIO_TRACE_DUAL_H

#include <bpf/bpf_core_read.h>
#include "maps.h"

#define STACK_SHIFT 14		/* THREAD_SIZE on x86-64 */
#define NOTE_SLACK 64		/* the two see the entry's stack pointer this close */

/* Does this stack pointer belong to the current task, and not to an interrupt? Those have stacks of their own. */
static __always_inline bool on_task_stack(__u64 sp)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 size = 1 << STACK_SHIFT;

	if (bpf_core_field_exists(struct task_struct, kasan_depth))
		size *= 2;
	return sp - (__u64)BPF_CORE_READ(task, stack) < size;
}

/*
 * True when this program is the one. A note is the other's when it speaks of
 * the same function, argument and stack pointer. Only code on the same stack
 * uses the same entry, so nothing here races; interrupts nest, and have notes
 * of their own. A note that the other program never came for (it was skipped)
 * does no harm: at a later call like it, this program leaves it to the other.
 */
static __always_inline bool handles(__u32 side, __u32 function, __u64 sp, __u64 arg)
{
	__u64 stack = sp >> STACK_SHIFT;
	struct call_notes *notes = bpf_map_lookup_elem(&calls, &stack);
	struct totals *t = get_totals();
	long error;
	__u32 i;

	if (t && function < DUAL_MAX) {
		if (side == SIDE_KPROBE)
			__sync_fetch_and_add(&t->dual[function].kprobe, 1);
		else
			__sync_fetch_and_add(&t->dual[function].fentry, 1);
	}
	if (!notes) {
		struct call_notes fresh = {};

		error = bpf_map_update_elem(&calls, &stack, &fresh, BPF_NOEXIST);
		notes = bpf_map_lookup_elem(&calls, &stack);
		if (!notes) {
			lose(LOST_CALL, error);
			return side == SIDE_KPROBE;
		}
	}
#pragma unroll
	for (i = 0; i < 4; i++) {
		struct call_note *n = &notes->note[i];

		if (n->side && n->side != side && n->function == function && n->arg == arg &&
		    sp - n->sp + NOTE_SLACK <= 2 * NOTE_SLACK) {
			n->side = 0;
			return false;
		}
	}
	i = notes->next++ & 3;
	notes->note[i].sp = sp;
	notes->note[i].arg = arg;
	notes->note[i].function = function;
	notes->note[i].side = side;
	if (t && function < DUAL_MAX)
		__sync_fetch_and_add(&t->dual[function].handled, 1);
	return true;
}

#endif
