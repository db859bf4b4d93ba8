/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Registered buffers: a process's memory, pinned once for many transfers.
 */
#ifndef _DIO_BUFFER_H
#define _DIO_BUFFER_H

#include <linux/refcount.h>
#include <linux/types.h>

#include "uapi/dio.h"

struct dio_call;
struct dio_dev;
struct dio_file;
struct dio_io;
struct mm_struct;
struct page;

/* All but `refs` stays as it was registered. */
struct dio_buffer {
	struct rcu_head rcu;	/* lookups take no lock */
	refcount_t refs;	/* the id's, each call's and each request's */
	struct dio_dev *dev;
	struct mm_struct *mm;	/* who is charged: the struct, not its memory */
	struct page **pages;
	u64 addr;
	u64 length;
	u32 nr_pages;
	u32 id;
	bool writable;		/* by the device */
};

/* buffer.c: registered and given back */
int dio_buffer_register(struct dio_file *file, struct dio_buffer_register *r,
			struct dio_buffer **registered);
void dio_buffer_withdraw(struct dio_file *file, struct dio_buffer *buffer);
int dio_buffer_unregister(struct dio_file *file, u32 id);
void dio_buffers_init(struct dio_file *file);
void dio_buffers_exit(struct dio_file *file);
void dio_buffers_drop(struct dio_dev *dev);
void dio_buffer_put(struct dio_buffer *buffer);

/* buffer_io.c: used */
int dio_buffer_find(struct dio_call *call, const struct dio_transfer *t);
void dio_buffer_take(const struct dio_call *call, struct dio_io *io);
void dio_buffer_end(struct dio_dev *dev, struct dio_io *io, u32 dirty, u32 written);

#endif /* _DIO_BUFFER_H */
