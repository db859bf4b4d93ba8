/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the programs remember, and what they tell user space. Go's side of
 * each struct is generated from it.
 *
 * An operation is one I/O: a kiocb (native AIO, io_uring), an io_uring
 * command, one call of a driver's read_iter or write_iter by a synchronous
 * caller, or a system call in progress that pins pages outside all of these.
 * A pin belongs to the operation in whose context it was taken. Operations
 * have an id of their own, never reused, for kiocbs are recycled by the slab.
 */
#ifndef DIO_TRACE_STATE_H
#define DIO_TRACE_STATE_H

#define COMM_LEN 16
#define STACK_DEPTH 32

enum op_kind {
	OP_AIO = 1,
	OP_URING,
	OP_URING_CMD,
	OP_SYNC,	/* a driver's read_iter or write_iter, called synchronously */
	OP_SYSCALL,
};

enum op_flag {
	OPF_BYTES = 1 << 0,	/* the result is a count of bytes that were moved */
	OPF_BIO = 1 << 1,	/* its pages went to the block layer, which dirties before and releases after completion */
	OPF_LONGTERM = 1 << 2,	/* has FOLL_LONGTERM pins: they may outlive it */
	OPF_QUEUED = 1 << 3,	/* the driver took it, to complete it later */
	OPF_WRITES = 1 << 4,	/* known to move data out of memory */
};

struct op {
	__u64 id;
	__u64 kiocb;
	__u64 start_ns;
	__u64 end_ns;
	__s64 result;
	__u64 requested;	/* bytes, of the last call of the driver's function; 0: unknown */
	__u64 longest_ns;	/* that a page was held which was released after the operation ended */
	__u32 segments;		/* of the buffer of those bytes */
	__u32 tgid, tid;
	__u32 kind;
	__u32 flags;
	__u32 syscall;
	__u32 completions;
	/* pages */
	__u32 taken;
	__u32 taken_write;
	__u32 live;
	__u32 dirty;		/* write pins released with the page dirty */
	__u32 clean;		/* write pins released with the page clean */
	__u32 late;		/* released after the operation ended */
	__u32 late_dirty;	/* of those: marked dirty only after it ended */
	/* stacks, 0 when none: see stack_of and stack_at_entry */
	__u64 pin_stack;
	__u64 clean_stack;
	__u64 late_stack;
	__u64 end_stack;
	__u32 handler;		/* number of the driver's function that got it; 0: unknown */
	__u32 reserved;
	char comm[COMM_LEN];
};

#define HOLDERS 8	/* as many as a page has sectors */

/* Key: the head page's address. */
struct folio_state {
	__u32 live;		/* pins, in pages */
	__u32 live_write;
	__u32 foreign;		/* pinned by someone unseen when first met: its count proves nothing */
	__u32 misled;		/* a holder was guessed among several, since the first of the live pins */
	__u32 unlisted;		/* there were more holders than slots, since then */
	__u32 marked;		/* a release dirtied it, since then */
	__u64 first_dirty;	/* since the first of the live pins */
	__u64 last_dirty;
	__u64 holders[HOLDERS];	/* operation ids */
};

struct hold_key {
	__u64 folio;
	__u64 op;
};

/* What one operation holds of one folio. */
struct hold {
	__u32 pages;
	__u32 write;
	__u64 since;
};

/* A folio that was taken with FOLL_GET and not freed since. */
struct got {
	__u64 op;	/* the last operation that took it */
	__u64 mapping;	/* what it belonged to then */
	__u64 stack;
	__u32 pages;	/* that this operation took of it at once */
	__u32 tgid, tid;
	__u32 kind;
	__u32 base;	/* references that it had before the first that was seen to be taken */
	__u32 reserved;
	char comm[COMM_LEN];
};

/* What judge_get finds out of such a folio, when its process has gone. */
enum got_state {
	GOT_FREED = 0,		/* and perhaps used anew */
	GOT_UNJUDGED = 1,	/* of a file, mapped, or pinned too: more references than one prove nothing */
	GOT_HELD = 1 << 16,	/* nothing maps it: each reference, in the lower bits, is one too many */
	GOT_ZERO = 1 << 17,	/* the zero page: it has so many references more than it had */
};

/* The last operation that a kiocb stood for, kept after it ended. */
struct kiocb_state {
	__u64 op;
	__u32 completions;
	__u32 kind;
	__u32 tgid, tid;
	__u64 when;
	char comm[COMM_LEN];
};

/* A thread in the middle of something. */
struct task_state {
	__u64 op;		/* operation of the kiocb whose submission runs in this thread */
	__u64 call;		/* synchronous operation that runs in this thread */
	__u64 submit_kiocb;
	__u64 submit_op;
	__u64 iter_hook;	/* the driver's read_iter or write_iter that is running */
	__u64 iter_sp;
	__u64 iter_op;
	__u64 iter_kiocb;	/* 0 when synchronous */
	__u64 iter_count;	/* bytes that it was asked for */
	__u64 pin_hook;		/* the pin function that is running */
	__u64 pin_sp;
	__u64 pin_pages;
	__u64 pin_stack;
	__s64 done_result;	/* what kiocb_done was given */
	__u32 done;
	__u32 pin_flags;
	__u32 pin_foreign;	/* the running pin function is called by nobody in scope */
	__u32 splicing;		/* the kernel's splice_read is running */
};

enum event_kind {
	EV_OP = 1,		/* an operation ended, with something worth a look */
	EV_OVER_UNPIN,
	EV_DIRTY_READONLY,	/* dirtied, while only pinned for reading memory */
	EV_COMPLETED_AGAIN,
	EV_RETURNED_TOO,	/* completed, then a result other than -EIOCBQUEUED returned */
	EV_SYNC_QUEUED,		/* -EIOCBQUEUED for a kiocb without ki_complete */
	EV_RESULT_RANGE,	/* a result larger than what was asked for */
	EV_DIRTY_LATE,		/* dirtied by an operation that had released it, and hasn't ended */
	EV_DIRTY_UNLOCKED,	/* a file's page, dirtied without its lock */
	EV_CANCEL_FN,		/* kiocb_set_cancel_fn for a kiocb that isn't native AIO's */
	EV_PIN_EXCESS,		/* asked for far more pages than the operation's buffer has */
};

struct event {
	__u32 kind;
	__u32 pages;
	__u32 handler;	/* number of the driver's function that returned it */
	__u32 reserved;
	__u64 stack;
	__u64 now;
	__s64 value;
	struct op op;		/* the operation, as far as known */
};

/*
 * What interrupts call is hooked twice, by programs of two kinds, for the
 * kernel skips a program that interrupts one of its kind. The first of the
 * two that sees a call does the work and leaves a note for the other, under
 * the stack that both run on.
 */
#define DUAL_MAX 16

enum dual_side {
	SIDE_KPROBE = 1,
	SIDE_FENTRY,
};

struct call_note {
	__u64 sp;	/* at the function's entry */
	__u64 arg;
	__u32 function;
	__u32 side;	/* 0: free */
};

struct call_notes {
	struct call_note note[4];
	__u32 next;
	__u32 reserved;
};

/* Calls of one function: with those that each program missed, of which the
 * kernel keeps count, they say whether any call was seen by neither. */
struct dual_count {
	__u64 kprobe;
	__u64 fentry;
	__u64 handled;
};

/* What found no place: user space names these in this order. */
enum lost_cause {
	LOST_RING,
	LOST_OP,
	LOST_KIOCB,
	LOST_TASK,
	LOST_CALL,
	LOST_TARGET,
	LOST_WALK,
	LOST_RETURN,	/* at most */
	LOST_FUNCTION,	/* a hooked function's return */
	LOST_MAX,
};

struct lost {
	__u64 events;
	__s64 error;	/* of the last of them; 0: none was told */
};

struct totals {
	__u64 operations;
	__u64 pins_taken;
	__u64 pins_released;
	__u64 gets_taken;
	__u64 queued;
	__u64 completed;
	__u64 slowest_ns;	/* from submission to completion */
	struct lost lost[LOST_MAX];
	__u64 lost_pages;	/* pages that found no place in the maps */
	__u64 unattributed;	/* pages released by no known holder */
	__u64 foreign_released;	/* releases of pins taken before the audit */
	__u64 gets_untracked;	/* pages taken with FOLL_GET that found no place */
	__u64 forks_again;	/* seen by on_fork_again, and not by on_fork; below 0 on one CPU at times */
	struct dual_count dual[DUAL_MAX];
};

#endif
