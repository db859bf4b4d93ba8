// SPDX-License-Identifier: GPL-2.0-only
/*
 * DIO_IOC_TRANSFER: the classic ioctl, on any memory of the caller's or on a
 * registered buffer. Checked here, served as any direct call.
 */
#include <linux/kernel.h>
#include <linux/uio.h>

#include "dio.h"

/* DIO_IOC_TRANSFER. The struct's size and flags were checked. */
int dio_transfer(struct dio_file *file, fmode_t mode, struct dio_transfer *t)
{
	struct dio_call call = {
		.file = file,
		.dev = file->dev,
		.pos = t->offset,
		.write = t->flags & DIO_TRANSFER_WRITE,
		.kind = DIO_KIND_IOCTL,
	};
	struct iov_iter iter;
	struct iovec iov;
	ssize_t ret;
	u64 end;

	if (!(mode & (call.write ? FMODE_WRITE : FMODE_READ)))
		return -EBADF;
	if (!t->length || t->length > DIO_REQUEST_MAX || t->addr > ULONG_MAX ||
	    check_add_overflow(t->addr, t->length, &end) ||
	    check_add_overflow(t->offset, t->length, &end) || end > LLONG_MAX)
		return -EINVAL;

	call.iter = &iter;
	if (t->flags & DIO_TRANSFER_BUFFER) {
		ret = dio_buffer_find(&call, t);
		/* Of either direction: it only counts. */
		iov_iter_discard(&iter, READ, t->length);
	} else {
		ret = dio_import_user(call.write ? ITER_SOURCE : ITER_DEST,
				      u64_to_user_ptr(t->addr), t->length, &iov, &iter);
	}
	if (ret)
		return ret;

	ret = dio_serve(&call);
	dio_buffer_put(call.buffer);
	t->done = max(ret, 0L);
	return min(ret, 0L);
}
