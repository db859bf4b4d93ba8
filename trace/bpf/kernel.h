/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The few kernel types that the programs read, by the names of the kernel;
 * offsets come from the running kernel's BTF when the programs are loaded.
 */
#ifndef DIO_TRACE_KERNEL_H
#define DIO_TRACE_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
#define true 1
#define false 0

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_STACK_TRACE = 7,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
};

/* x86-64: what a kprobe program gets as its context; a stable layout. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

/* From 7.x flags is a struct of one word: only its place is used. */
struct page {
	unsigned long flags;
	atomic_t _mapcount;
	atomic_t _refcount;
	void *mapping;
	atomic_t hpage_pinned_refcount;	/* to 5.17, in the third page of a large one */
};

struct folio {
	atomic_t _pincount;
	atomic_t _large_mapcount;	/* from 6.10 */
	void *mapping;
};

struct kiocb {
	void *ki_complete;
};

struct iov_iter {
	unsigned long count;
	unsigned long nr_segs;
	_Bool data_source;	/* from 5.14 */
};

struct iov_iter___old {
	unsigned int type;	/* its lowest bit: a write */
};

struct io_cqe {
	__s32 res;
};

struct io_kiocb {
	struct io_cqe cqe;
};

struct bio {
	unsigned short bi_vcnt;
};

struct signal_struct {
	atomic_t live;
};

struct task_struct {
	void *stack;
	unsigned int flags;
	int pid;
	int tgid;
	struct signal_struct *signal;
	unsigned int kasan_depth;	/* where stacks are twice as large */
};

enum pageflags {
	PG_locked = 0,
	PG_dirty = 4,
	PG_head = 6,
	PG_swapcache = 10,
	PG_reserved = 12,
};

#pragma clang attribute pop

#endif
