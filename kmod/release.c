// SPDX-License-Identifier: GPL-2.0-only
/*
 * Letting go of the caller's pages. Those that the device wrote are marked dirty,
 * only those, and before they are given back.
 */
#include <linux/mm.h>
#include <linux/slab.h>

#include "dio.h"
#include "trace.h"

/*
 * Frees the array of @io's pages, if it got one; they themselves are somebody
 * else's now, or never were held.
 */
void dio_io_free(struct dio_dev *dev, struct dio_io *io)
{
	if (io->pages == io->inline_pages)
		return;
	if (static_branch_unlikely(&dio_faults_armed) && io->pages &&
	    dio_quarantine_has_room(dev) &&
	    dio_fault_hit(dev, DIO_FAULT_ARRAY_LEAK) &&
	    dio_quarantine_memory(dev, io->pages, io->array_bytes))
		return;
	kvfree(io->pages);
}

/* How many leading pages the first @bytes of @io lie in. */
static u32 dio_io_pages_of(const struct dio_io *io, u32 bytes)
{
	const struct dio_extent *e = io->extents;

	if (bytes == io->bytes)
		return io->nr_pages;

	for (; bytes > e->length; e++)
		bytes -= e->length;
	return bytes ? e->first + DIV_ROUND_UP(e->offset + bytes, PAGE_SIZE) :
		       e->first;
}

static noinline void dio_put_pages(struct page **pages, u32 nr, u32 dirty)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		if (i < dirty && !PageReserved(pages[i]))
			set_page_dirty_lock(pages[i]);
		put_page(pages[i]);
	}
}

/*
 * Whether a page that the device wrote is dirty already, as it is for the owner's
 * own writes, and needs no mark: what unpin_user_pages_dirty_lock() comes to then,
 * 50 instructions sooner. Who cleans the page after this look writes it, or makes
 * it dirty again; the barrier pairs with that cleaning, which is atomic: whoever
 * does it sees the device's bytes.
 */
static bool dio_still_dirty(struct page *page)
{
	smp_mb();	/* see above */
	return PageDirty(page);
}

/* pin family: gives @nr pages back, the first @dirty of them marked. */
static noinline void dio_unpin_pages(const struct dio_io *io, u32 nr, u32 dirty)
{
	struct page **pages = io->pages;

	if (io->linear) {
		/* A folio at a time, without a look at each page's. */
		if (dirty)
			dio_unpin_range(pages, dirty, true);
		if (dirty < nr)
			dio_unpin_range(pages + dirty, nr - dirty, false);
		return;
	}
	if (dirty)
		unpin_user_pages_dirty_lock(pages, dirty, true);
	if (dirty < nr)
		unpin_user_pages(pages + dirty, nr - dirty);
}

/*
 * Gives the pages back. Those that the device wrote, where the first @moved bytes
 * of a read went, are marked dirty, which sleeps. An error moved nothing.
 */
void dio_io_release(struct dio_dev *dev, struct dio_io *io, ssize_t moved)
{
	u32 written = io->write ? 0 : max(moved, 0L);
	u32 dirty;

	if (io->hold == DIO_HOLD_NONE)
		goto out;

	dirty = written ? dio_io_pages_of(io, written) : 0;
	if (io->hold == DIO_HOLD_BUFFER) {
		dio_buffer_end(dev, io, dirty, written);
		return;
	}
	if (static_branch_unlikely(&dio_faults_armed))
		dirty = dio_fault_release(dev, io, dirty);

	if (dirty) {
		trace_dio_dirty(io, dirty, written);
		dio_add(dev, pages_dirtied, dirty);
	}
	trace_dio_release(io, io->nr_pages, io->bytes);
	dio_add(dev, pages_released, io->nr_pages);

	if (io->hold == DIO_HOLD_GET)
		dio_put_pages(io->pages, io->nr_pages, dirty);
	else if (io->nr_pages == 1 && (!dirty || dio_still_dirty(io->pages[0])))
		unpin_user_page(io->pages[0]);
	else
		dio_unpin_pages(io, io->nr_pages, dirty);
out:
	dio_io_free(dev, io);
}
