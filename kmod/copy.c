// SPDX-License-Identifier: GPL-2.0-only
/*
 * The copying path: without O_DIRECT, and for buffers with no pages to hold.
 * Between the caller's buffer, of any kind and alignment, and the store; in the
 * caller's context, which may fault and sleep, as a page cache would. A latency is
 * slept through here: so native AIO waits in io_submit(), and io_uring goes to a
 * thread of its own, because IOCB_NOWAIT gets EAGAIN. Hardware can't copy: there,
 * a page between the two is the buffer of a direct request that is waited for.
 */
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>

#include "dio.h"
#include "trace.h"

static ssize_t dio_copy_null(struct dio_call *call)
{
	struct iov_iter *iter = call->iter;
	size_t n = iov_iter_count(iter);

	if (call->write || user_backed_iter(iter)) {
		iov_iter_advance(iter, n);
		return n;
	}
	return iov_iter_zero(n, iter);
}

/* Bytes, or an error when none. */
static ssize_t dio_model_copy(struct dio_call *call)
{
	struct dio_store *store = &call->dev->store;
	struct iov_iter *iter = call->iter;
	loff_t pos = call->pos;
	ssize_t done = 0;
	int ret = 0;

	if (call->params.model == DIO_MODEL_NULL)
		return dio_copy_null(call);

	while (iov_iter_count(iter)) {
		u32 offset = offset_in_page(pos);
		size_t n = min_t(size_t, iov_iter_count(iter), PAGE_SIZE - offset);
		struct page *page;
		size_t copied;

		if (call->write) {
			page = dio_store_get(store, pos >> PAGE_SHIFT,
					     dio_store_gfp(call->nowait));
			if (IS_ERR(page)) {
				ret = PTR_ERR(page);
				break;
			}
			copied = copy_page_from_iter(page, offset, n, iter);
		} else {
			page = dio_store_lookup(store, pos >> PAGE_SHIFT);
			copied = page ? dio_copy_page_to_iter(page, offset, n, iter) :
					iov_iter_zero(n, iter);
		}
		done += copied;
		pos += copied;
		if (copied < n) {
			ret = -EFAULT;
			break;
		}
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		cond_resched();
	}
	return done ? done : ret;
}

/* The bytes, or what the rules decided. */
static ssize_t dio_copy_move(struct dio_call *call)
{
	struct dio_dev *dev = call->dev;
	size_t shorted = 0;
	ssize_t ret;

	if (call->injected & BIT(DIO_INJECT_EIO))
		return -EIO;
	if (call->injected & BIT(DIO_INJECT_SHORT)) {
		shorted = iov_iter_count(call->iter) - iov_iter_count(call->iter) / 2;
		iov_iter_truncate(call->iter, iov_iter_count(call->iter) - shorted);
	}
	ret = dio_model_copy(call);
	iov_iter_reexpand(call->iter, iov_iter_count(call->iter) + shorted);

	if (ret > 0) {
		dio_add(dev, bytes_copied, ret);
		dio_moved(dev, call->write, ret);
	}
	return ret == -ENOMEM && call->nowait ? -EAGAIN : ret;
}

/* The same, of a device that takes time: fsync waits until the bytes are there. */
static ssize_t dio_copy_timed(struct dio_call *call)
{
	ssize_t ret;
	int epoch;

	if (call->nowait)
		return -EAGAIN;
	epoch = dio_flight_begin(call->file, &call->params, false);
	if (epoch < 0)
		return epoch;

	ret = dio_flight_nap(call);
	if (!ret)
		ret = dio_copy_move(call);
	dio_flight_end(call->file, epoch);
	return ret;
}

ssize_t dio_copy(struct dio_call *call)
{
	struct dio_dev *dev = call->dev;
	ssize_t ret;
	u64 req;

	if (dev->backend)
		return dio_copy_hardware(call);

	req = dio_next_req(dev);
	trace_dio_submit(req, call, iov_iter_count(call->iter), false);
	ret = dio_inject(call, iov_iter_count(call->iter), false);
	if (!ret)
		ret = dio_takes_time(&call->params) ? dio_copy_timed(call) :
						      dio_copy_move(call);
	trace_dio_complete(req, call->kind, ret);
	return ret;
}
