// SPDX-License-Identifier: GPL-2.0-only
/*
 * Discarding a range: it reads as zero afterwards.
 *
 * A page that is found in the store is used without a reference, by requests and
 * mappings alike, and that rests on pages staying until the device is idle. So
 * discard takes pages away only when it has the gate closed on an idle, unmapped
 * device, as shrinking does; else it zeroes in place, and only the memory stays.
 * One or the other, never both: who saw zeros may have written by the time that
 * the second would come. A request in flight over the same bytes races with either
 * as it would with a write.
 */
#include <linux/sched/signal.h>

#include "dio.h"

/* Whether there's a whole page from @pos to @end. */
static bool dio_has_whole_page(u64 pos, u64 end)
{
	return round_up(pos, PAGE_SIZE) < round_down(end, PAGE_SIZE);
}

static int dio_zero_in_place(struct dio_dev *dev, u64 pos, u64 end)
{
	struct dio_params params;
	unsigned long index;
	struct page *page;
	int ret;

	ret = dio_enter(dev, &params, false);
	if (ret)
		return ret;
	xa_for_each_range(&dev->store.pages, index, page, pos >> PAGE_SHIFT,
			  (end - 1) >> PAGE_SHIFT) {
		dio_store_zero(page, index, pos, end);
		cond_resched();
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
	}
	dio_leave(dev);
	return ret;
}

/* DIO_IOC_DISCARD. The struct's size and flags were checked. */
int dio_discard(struct dio_file *file, fmode_t mode, struct dio_discard *d)
{
	struct dio_dev *dev = file->dev;
	struct dio_params params;
	u64 end;
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
	dio_leave(dev);
	end = min(end, params.capacity);

	if (params.model != DIO_MODEL_NULL) {
		ret = -EBUSY;
		if (dio_has_whole_page(d->offset, end))
			ret = dio_drop(dev, d->offset, end);
		/* Or no memory to close the gate: then the range's stays, too. */
		if (ret == -EBUSY || ret == -ENOMEM)
			ret = dio_zero_in_place(dev, d->offset, end);
		if (ret)
			return ret;
	}
	d->done = end - d->offset;
	dio_count(dev, discards);
	dio_add(dev, bytes_discarded, d->done);
	return 0;
}
