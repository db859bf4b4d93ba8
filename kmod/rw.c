// SPDX-License-Identifier: GPL-2.0-only
/*
 * read and write in all their forms: checks first, then one of two paths.
 *
 * Direct (O_DIRECT, or DIO_IOC_TRANSFER): the caller's pages are held, and the
 * device moves bytes between them and the store; at once, or queued.
 *
 * Copying (no O_DIRECT, and buffers with no pages to hold): copy.c.
 *
 * What a request that is served at once passes through here is one function for
 * each direction: __always_inline is worth 100 instructions to it. What it
 * meets seldom is noinline, to keep registers for the rest; and __uninitialized
 * where a compiler that zeroes the stack would clear a struct that is filled next.
 */
#include <linux/aio.h>
#include <linux/mm.h>

#include "request.h"
#include "trace.h"

/*
 * The limits, before any work: how many bytes of @count may be moved at the
 * call's position, 0 at the end of a read, or an error.
 */
static ssize_t dio_check_range(const struct dio_call *call, size_t count)
{
	u64 capacity = call->params.capacity;

	if (count > call->params.max_request)
		return -EINVAL;
	if (call->pos >= capacity)
		return call->write ? -ENOSPC : 0;
	return min_t(u64, count, capacity - call->pos);
}

/* Served at once: everything on this stack, no request object. */
static __always_inline ssize_t dio_direct_now(struct dio_call *call)
{
	size_t bytes = iov_iter_count(call->iter);
	struct dio_dev *dev = call->dev;
	struct dio_io io __uninitialized;	/* but for what dio_io_take() fills in */
	u64 req = dio_next_req(dev);
	ssize_t ret;

	trace_dio_submit(req, call, bytes, true);

	if (call->params.model == DIO_MODEL_NULL && iov_iter_is_bvec(call->iter) &&
	    dio_model_pass(call)) {
		ret = bytes;
		goto out;
	}

	io.req = req;
	io.pos = call->pos;
	io.write = call->write;
	io.model = call->params.model;
	io.kind = call->kind;
	ret = dio_io_take(call, &io);
	if (!ret) {
		if (unlikely(call->injected))
			dio_inject_io(&io, call);
		ret = dio_model_move(dev, &io, dio_store_gfp(call->nowait));
		if (unlikely(ret != io.bytes))
			iov_iter_revert(call->iter, io.bytes - max(ret, 0L));
		dio_io_release(dev, &io, ret);
	}
out:
	trace_dio_complete(req, call->kind, ret);
	return ret;
}

static __always_inline ssize_t dio_direct(struct dio_call *call)
{
	ssize_t ret;

	ret = dio_inject(call, iov_iter_count(call->iter), true);
	if (ret)
		return ret;
	if (static_branch_unlikely(&dio_faults_armed))
		dio_fault_take(call);
	if (dio_must_queue(call))
		return dio_request_submit(call);

	ret = dio_direct_now(call);
	/* Memory that can't be had without waiting: the caller may wait. */
	return ret == -ENOMEM && call->nowait ? -EAGAIN : ret;
}

/* Counts a call in; @by is -1 when it turns out not to have begun. */
static __always_inline void dio_account(struct dio_dev *dev, bool write, u8 kind,
					s64 by)
{
	if (write)
		dio_add(dev, writes, by);
	else
		dio_add(dev, reads, by);
	if (kind == DIO_KIND_ASYNC || kind == DIO_KIND_POLLED)
		dio_add(dev, submitted, by);
}

/*
 * @call was turned away with EAGAIN, and is no occasion for a rule. One that would
 * have to wait and may not is going to come again, and so is a polled one, again and
 * again, for io_uring tells no EAGAIN there: it counts once it's served.
 */
static noinline void dio_turned_away(const struct dio_call *call)
{
	struct dio_dev *dev = call->dev;

	if (call->injected)
		dio_inject_back(call);
	if (call->nowait || call->kind == DIO_KIND_POLLED) {
		dio_account(dev, call->write, call->kind, -1);
		return;
	}
	dio_count(dev, failed);
	if (!dio_sync(call))
		dio_count(dev, completed);
}

/* Ends a call that was served here; one that was queued ends elsewhere. */
static __always_inline ssize_t dio_ended(const struct dio_call *call, ssize_t ret)
{
	struct dio_dev *dev = call->dev;

	if (ret == -EIOCBQUEUED)
		return ret;

	if (ret == -EAGAIN) {
		dio_turned_away(call);
	} else {
		if (ret < 0)
			dio_count(dev, failed);
		if (call->kind == DIO_KIND_ASYNC || call->kind == DIO_KIND_POLLED)
			dio_count(dev, completed);
		if (static_branch_unlikely(&dio_injecting) && !dio_must_queue(call))
			dio_reorder_passed(dev, U64_MAX);
	}
	dio_leave(dev);
	return ret;
}

static __always_inline ssize_t dio_rw(struct kiocb *iocb, struct iov_iter *iter,
				      bool write)
{
	struct dio_file *file = iocb->ki_filp->private_data;
	struct dio_dev *dev = file->dev;
	size_t count = iov_iter_count(iter);
	size_t shorted;
	struct dio_call call __uninitialized;	/* filled in below */
	u8 kind;
	ssize_t ret;

	if (!count)
		return 0;

	call.file = file;
	call.dev = dev;
	call.iocb = iocb;
	call.cmd = NULL;
	call.iter = iter;
	call.buffer = NULL;
	call.pos = iocb->ki_pos;
	call.write = write;
	call.injected = 0;
	call.nowait = iocb->ki_flags & IOCB_NOWAIT;
	kind = is_sync_kiocb(iocb) ? DIO_KIND_SYNC :
	       iocb->ki_flags & IOCB_HIPRI ? DIO_KIND_POLLED : DIO_KIND_ASYNC;
	call.kind = kind;

	ret = dio_enter(dev, &call.params, call.nowait);
	if (ret)
		return ret;
	dio_account(dev, write, kind, 1);

	/* Like a block device: an appending write begins where there is no room. */
	if (write && (iocb->ki_flags & IOCB_APPEND))
		call.pos = call.params.capacity;

	if ((iocb->ki_flags & IOCB_DIRECT) &&
	    (call.pos | iov_iter_alignment(iter)) & (DIO_ALIGN - 1)) {
		ret = -EINVAL;
		goto out;
	}

	ret = dio_check_range(&call, count);
	if (ret <= 0)
		goto out;
	shorted = count - ret;
	iov_iter_truncate(iter, ret);

	if ((iocb->ki_flags & IOCB_DIRECT) &&
	    (user_backed_iter(iter) || iov_iter_is_bvec(iter)))
		ret = dio_direct(&call);
	else
		ret = dio_copy(&call);
	if (ret == -EIOCBQUEUED)
		return ret;	/* iocb and iter may be gone */

	if (ret > 0)
		iocb->ki_pos = call.pos + ret;
	iov_iter_reexpand(iter, iov_iter_count(iter) + shorted);
out:
	return dio_ended(&call, ret);
}

ssize_t dio_read_iter(struct kiocb *iocb, struct iov_iter *iter)
{
	if (static_branch_unlikely(&dio_faults_armed) && dio_sync_as_async(iocb))
		return -EIOCBQUEUED;
	return dio_rw(iocb, iter, false);
}

ssize_t dio_write_iter(struct kiocb *iocb, struct iov_iter *iter)
{
	return dio_rw(iocb, iter, true);
}

/*
 * A direct call that isn't read or write: DIO_IOC_TRANSFER, a command of io_uring.
 * The iterator is the caller's, and left as it comes.
 */
ssize_t dio_serve(struct dio_call *call)
{
	ssize_t ret;

	call->injected = 0;
	ret = dio_enter(call->dev, &call->params, call->nowait);
	if (ret)
		return ret;
	dio_account(call->dev, call->write, call->kind, 1);

	ret = dio_check_range(call, iov_iter_count(call->iter));
	if (ret > 0) {
		iov_iter_truncate(call->iter, ret);
		ret = dio_direct(call);
	}
	return dio_ended(call, ret);
}
