/* SPDX-License-Identifier: GPL-2.0-only */
/* A request on its way: the call that brought it, and what it holds. */
#ifndef _DIO_IO_H
#define _DIO_IO_H

#include <linux/bits.h>
#include <linux/fs.h>
#include <linux/uio.h>

#include "device.h"

#define DIO_ALIGN		512	/* of addresses, lengths and offsets for O_DIRECT */
#define DIO_INLINE_PAGES	3
#define DIO_MODEL_BROKEN	U8_MAX	/* dio_io.model: fails with EIO */

/* How a request came. */
enum dio_kind {
	DIO_KIND_SYNC,		/* read, write and kin: the caller waits */
	DIO_KIND_ASYNC,		/* a kiocb with ki_complete */
	DIO_KIND_POLLED,	/* the same, finished by ->iopoll() */
	DIO_KIND_IOCTL,		/* DIO_IOC_TRANSFER */
};

/* How a request's pages are held. */
enum dio_hold {
	DIO_HOLD_NONE,		/* by somebody else: a bvec */
	DIO_HOLD_PIN,
	DIO_HOLD_GET,
	DIO_HOLD_BUFFER,	/* by a registered buffer, of which this is a reference */
};

/* Bytes that follow each other in the pages of a dio_io. */
struct dio_extent {
	u32 first;		/* index of the first page */
	u32 offset;		/* in that page */
	u32 length;
};

struct dio_io {
	u64 req;		/* number, for the tracepoints */
	loff_t pos;
	struct page **pages;
	struct dio_extent *extents;
	u32 nr_pages;
	u32 nr_extents;
	u32 bytes;		/* held */
	u32 goal;		/* of these, to be moved */
	u8 write;		/* from the caller's pages to the store */
	u8 model;
	u8 kind;
	u8 hold;
	bool linear;		/* the pages follow each other, in huge pages */
	struct dio_extent inline_extent;
	u32 array_bytes;	/* of what `pages` points to, if that was allocated */
	union {
		struct page *inline_pages[DIO_INLINE_PAGES];
		struct dio_buffer *buffer;	/* DIO_HOLD_BUFFER */
	};
};

/* One call of read, write or transfer on its way in. */
struct dio_call {
	struct dio_file *file;
	struct dio_dev *dev;
	struct kiocb *iocb;		/* NULL: DIO_IOC_TRANSFER, or a command */
	struct io_uring_cmd *cmd;	/* NULL: any other */
	unsigned int issue_flags;	/* io_uring's, for cmd */
	struct iov_iter *iter;
	struct dio_buffer *buffer;	/* the memory; then iter only counts */
	u64 buffer_pos;
	loff_t pos;
	struct dio_params params;
	bool write;
	bool nowait;
	u8 kind;
	u16 injected;		/* DIO_CALL_*: what the rules decided */
};

/*
 * Of dio_call.injected: BIT(enum dio_inject_action), it's to be done; DIO_CALL_MET of
 * the action, the call was an occasion; and: the pages are a copy of the caller's, who
 * is in flight already.
 */
#define DIO_CALL_MET(action)	BIT(8 + (action))
#define DIO_CALL_COPIED		BIT(7)

static inline bool dio_sync(const struct dio_call *call)
{
	return call->kind == DIO_KIND_SYNC || call->kind == DIO_KIND_IOCTL;
}

/* Whether a direct call is queued, not served at once. */
static inline bool dio_must_queue(const struct dio_call *call)
{
	switch (call->params.completion) {
	case DIO_COMPLETION_INLINE:
		return false;
	case DIO_COMPLETION_WORKER:
	case DIO_COMPLETION_TIMER:
		return true;
	default:
		return dio_takes_time(&call->params) || call->kind == DIO_KIND_POLLED;
	}
}

/* pages.c, release.c: taking hold of the caller's pages and letting go */
void dio_io_free(struct dio_dev *dev, struct dio_io *io);
int dio_io_take(struct dio_call *call, struct dio_io *io);
void dio_io_release(struct dio_dev *dev, struct dio_io *io, ssize_t moved);

/* model.c: what the device does with the bytes */
bool dio_model_pass(struct dio_call *call);
ssize_t dio_model_move(struct dio_dev *dev, struct dio_io *io, gfp_t gfp);

/* copy.c: the same, copying */
ssize_t dio_copy(struct dio_call *call);

/* rw.c */
ssize_t dio_read_iter(struct kiocb *iocb, struct iov_iter *iter);
ssize_t dio_write_iter(struct kiocb *iocb, struct iov_iter *iter);
ssize_t dio_serve(struct dio_call *call);

/* splice.c */
bool dio_sync_as_async(struct kiocb *iocb);
ssize_t dio_splice_read(struct file *file, loff_t *pos,
			struct pipe_inode_info *pipe, size_t len,
			unsigned int flags);

/* transfer.c */
int dio_transfer(struct dio_file *file, fmode_t mode, struct dio_transfer *t);

/* discard.c */
int dio_discard(struct dio_file *file, fmode_t mode, struct dio_discard *d);

/* ioctl.c */
long dio_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

#endif /* _DIO_IO_H */
