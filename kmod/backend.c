// SPDX-License-Identifier: GPL-2.0-only
/* The copying path of hardware, which can't copy: it only moves whole requests. */
#include <linux/bvec.h>
#include <linux/mm.h>

#include "request.h"

/*
 * Without O_DIRECT: the bytes come and go by way of a page, which is the buffer of
 * a direct request that is waited for. In flight until what was read is the caller's.
 */
ssize_t dio_copy_hardware(struct dio_call *call)
{
	size_t count = iov_iter_count(call->iter);
	struct dio_call inner = *call;
	struct iov_iter between;
	struct bio_vec bvec;
	size_t copied = 0;
	ssize_t ret;
	int epoch;

	if (call->nowait)
		return -EAGAIN;
	ret = dio_inject(&inner, count, true);
	if (ret)
		return ret;
	call->injected = inner.injected;	/* given back if it's turned away */

	/* A page holds all that the device does. */
	bvec.bv_page = alloc_page(GFP_KERNEL_ACCOUNT);
	if (!bvec.bv_page)
		return -ENOMEM;
	if (call->write) {
		copied = copy_page_from_iter(bvec.bv_page, 0, count, call->iter);
		if (!copied) {
			ret = -EFAULT;
			goto out;
		}
		count = copied;
	}

	bvec.bv_offset = 0;
	bvec.bv_len = count;
	iov_iter_bvec(&between, call->write ? ITER_SOURCE : ITER_DEST, &bvec, 1, count);
	inner.iter = &between;
	inner.iocb = NULL;
	inner.cmd = NULL;
	inner.buffer = NULL;
	inner.kind = DIO_KIND_SYNC;
	inner.injected |= DIO_CALL_COPIED;
	epoch = dio_flight_begin(call->file, &call->params, false);
	ret = epoch < 0 ? epoch : dio_request_submit(&inner);

	if (call->write) {
		iov_iter_revert(call->iter, copied - max_t(ssize_t, ret, 0));
	} else if (ret > 0) {
		ret = dio_copy_page_to_iter(bvec.bv_page, 0, ret, call->iter);
		if (!ret)
			ret = -EFAULT;
	}
	if (ret > 0)
		dio_add(call->dev, bytes_copied, ret);
	if (epoch >= 0)
		dio_flight_end(call->file, epoch);
out:
	__free_page(bvec.bv_page);
	return ret;
}
