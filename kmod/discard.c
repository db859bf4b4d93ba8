// SPDX-License-Identifier: GPL-2.0-only
/*
 * Discarding a range: it reads as zero afterwards.
 *
 * A page that is found in the store is used without a reference, by requests and
 * mappings alike, and that rests on pages staying until the device is idle. So
 * discard takes a page away only when it has the gate closed on an idle, unmapped
 * device, as shrinking does; else it zeroes in place. Either way the bytes are
 * gone; only the memory may stay. A request in flight over the same bytes races
 * with it as it would with a write.
 */
#include <linux/highmem.h>
#include <linux/sched/signal.h>

#include "dio.h"

static int dio_zero_range(struct dio_dev *dev, u64 pos, u64 end)
{
	unsigned long index;
	struct page *page;

	xa_for_each_range(&dev->store.pages, index, page, pos >> PAGE_SHIFT,
			  (end - 1) >> PAGE_SHIFT) {
		u64 at = (u64)index << PAGE_SHIFT;
		u32 first = at < pos ? pos - at : 0;
		u32 last = min_t(u64, end - at, PAGE_SIZE);
		void *mem;

		mem = kmap_local_page(page);
		memset(mem + first, 0, last - first);
		kunmap_local(mem);
		flush_dcache_page(page);
		cond_resched();
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	return 0;
}

/* DIO_IOC_DISCARD. The struct's size and flags were checked. */
int dio_discard(struct dio_file *file, fmode_t mode, struct dio_discard *d)
{
	struct dio_dev *dev = file->dev;
	struct dio_params params;
	u64 whole, whole_end, end;
	int ret;

	if (!(mode & FMODE_WRITE))
		return -EBADF;
	if (!d->length || check_add_overflow(d->offset, d->length, &end) ||
	    end > LLONG_MAX)
		return -EINVAL;
	if (dev->backend)
		return -EOPNOTSUPP;

	ret = dio_enter(dev, &params, false);
	if (ret)
		return ret;
	if (d->offset >= params.capacity) {
		dio_leave(dev);
		return -ENOSPC;
	}
	end = min(end, params.capacity);
	if (params.model != DIO_MODEL_NULL)
		ret = dio_zero_range(dev, d->offset, end);
	dio_leave(dev);
	if (ret)
		return ret;

	/* The memory of whole pages, if nobody is using the device. */
	whole = round_up(d->offset, PAGE_SIZE);
	whole_end = round_down(end, PAGE_SIZE);
	if (params.model != DIO_MODEL_NULL && whole < whole_end) {
		ret = dio_drop(dev, whole, whole_end);
		if (ret && ret != -EBUSY)
			return ret;
	}
	d->done = end - d->offset;
	dio_count(dev, discards);
	dio_add(dev, bytes_discarded, d->done);
	return 0;
}
