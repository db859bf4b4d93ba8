// SPDX-License-Identifier: GPL-2.0-only
/* Transfers on registered buffers: their pages are lent to a request. */
#include <linux/mm.h>
#include <linux/rcupdate.h>

#include "dio.h"
#include "trace.h"

/* Finds the buffer that @t names for @call, which then has a reference. */
int dio_buffer_find(struct dio_call *call, const struct dio_transfer *t)
{
	struct dio_buffer *buffer;
	int ret;

	rcu_read_lock();
	buffer = xa_load(&call->file->buffers, t->buffer);
	if (buffer && !refcount_inc_not_zero(&buffer->refs))
		buffer = NULL;
	rcu_read_unlock();
	if (!buffer)
		return dio_gone(call->dev) ? -ENODEV : -ENOENT;

	ret = -EACCES;
	if (!call->write && !buffer->writable)
		goto fail;
	ret = -EFAULT;
	if (t->addr > buffer->length || t->length > buffer->length - t->addr)
		goto fail;

	call->buffer = buffer;
	call->buffer_pos = t->addr;
	return 0;

fail:
	dio_buffer_put(buffer);
	return ret;
}

/* Lends @io the pages for all that @call's iterator counts. Can't fail. */
void dio_buffer_take(const struct dio_call *call, struct dio_io *io)
{
	struct dio_buffer *buffer = call->buffer;
	size_t at = offset_in_page(buffer->addr) + call->buffer_pos;
	u32 bytes = iov_iter_count(call->iter);

	refcount_inc(&buffer->refs);
	io->buffer = buffer;
	io->hold = DIO_HOLD_BUFFER;
	io->pages = buffer->pages + (at >> PAGE_SHIFT);
	io->nr_pages = DIV_ROUND_UP(offset_in_page(at) + bytes, PAGE_SIZE);
	io->extents = &io->inline_extent;
	io->nr_extents = 1;
	io->inline_extent = (struct dio_extent) {
		.offset = offset_in_page(at),
		.length = bytes,
	};
	io->bytes = bytes;
	io->goal = bytes;
	iov_iter_advance(call->iter, bytes);
	trace_dio_pin(io, 0);
}

/*
 * Ends the loan. The device wrote the first @dirty pages: they are marked now
 * and not when the buffer goes, for until then reclaim and writeback may take
 * them for clean any number of times, and a page that was only registered must
 * not be marked at all.
 */
void dio_buffer_end(struct dio_dev *dev, struct dio_io *io, u32 dirty, u32 written)
{
	u32 i;

	if (dirty) {
		trace_dio_dirty(io, dirty, written);
		dio_add(dev, pages_dirtied, dirty);
		/*
		 * Pairs with the cleaning of the page, which is atomic: who
		 * cleans it after it was found dirty here sees the bytes.
		 */
		smp_mb();
		for (i = 0; i < dirty; i++)
			if (!PageDirty(io->pages[i]))
				set_page_dirty_lock(io->pages[i]);
	}
	dio_buffer_put(io->buffer);
}
