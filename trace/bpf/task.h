/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Programs on what threads and processes do: system calls end, children are born,
 * numbers become free.
 */
#ifndef DIO_TRACE_TASK_H
#define DIO_TRACE_TASK_H

#include <bpf/bpf_core_read.h>
#include "op.h"

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

/* Those of them that move data out of memory. */
static __always_inline bool writes(__u64 nr)
{
	switch (nr) {
	case 1:
	case 18:
	case 20:
	case 296:
	case 328:
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
	between_calls(ts);
	if (!ts->call)
		return 0;
	op = op_of(ts->call);
	if (op) {
		regs = (struct pt_regs *)ctx[0];
		bpf_probe_read_kernel(&nr, sizeof(nr), &regs->orig_ax);
		op->syscall = nr;
		if (counts_bytes(nr))
			op->flags |= OPF_BYTES;
		if (writes(nr))
			op->flags |= OPF_WRITES;
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
	between_calls(ts);
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

/*
 * Twice, for the same reason and seldom called: the children of a process that was
 * missed would all be. The second counts what the first missed, anybody's.
 */
SEC("raw_tp/sched_process_fork")
int on_fork(__u64 *ctx)
{
	__u32 child = BPF_CORE_READ((struct task_struct *)ctx[1], pid), one = 1;

	if (bpf_map_update_elem(&forks, &child, &one, BPF_ANY) && !stopped)
		COUNT(forks_again, -1);	/* on_fork_again will count it, seen though it was */
	return process_fork(ctx);
}

SEC("raw_tp/sched_process_fork")
int on_fork_again(__u64 *ctx)
{
	__u32 child = BPF_CORE_READ((struct task_struct *)ctx[1], pid);

	if (bpf_map_delete_elem(&forks, &child) && !stopped)
		COUNT(forks_again, 1);
	return process_fork(ctx);
}

/* May be skipped: what it leaves behind is cleared when a thread of this number next leaves the kernel. */
SEC("raw_tp/sched_process_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	__u32 tid = BPF_CORE_READ(task, pid), tgid = BPF_CORE_READ(task, tgid);
	struct task_state *ts = task_of(tid);

	if (ts && !stopped)
		between_calls(ts);
	bpf_map_delete_elem(&tasks, &tid);
	/* The number of a process that is over may be given to a stranger. */
	if (BPF_CORE_READ(task, signal, live.counter) == 0)
		bpf_map_delete_elem(&targets, &tgid);
	return 0;
}

#endif
