// SPDX-License-Identifier: GPL-2.0-only
/*
 * Taking hold of the caller's pages; release.c lets go of them.
 *
 * Two families. "pin" is for access to a page's data, which is what I/O does:
 * the kernel knows such pages and keeps them from copy-on-write and writeback
 * surprises. "get" is the classic sequence, a plain reference: shown, and good
 * enough while nobody forks. Pages of a bvec belong to who built it and are
 * neither taken nor given back; those of a registered buffer are lent by it.
 *
 * A request is held as a whole before a byte moves.
 */
#include <linux/mm.h>
#include <linux/slab.h>

#include "dio.h"
#include "trace.h"

/* Room for @pages and @extents: within @io, or else in one allocation. */
static int dio_io_room(struct dio_io *io, u32 pages, u32 extents, bool nowait)
{
	size_t bytes;

	if (likely(pages <= DIO_INLINE_PAGES && extents == 1)) {
		io->pages = io->inline_pages;
		io->extents = &io->inline_extent;
		return 0;
	}

	/* Bounded by max_request and the kernel's segment limits: an extent has a page. */
	bytes = pages * sizeof(*io->pages);
	if (extents > 1)
		bytes += extents * sizeof(*io->extents);
	if (nowait) {
		io->pages = kmalloc(bytes, GFP_NOWAIT | __GFP_NOWARN | __GFP_ACCOUNT);
		if (!io->pages)
			return -EAGAIN;
	} else {
		io->pages = kvmalloc(bytes, GFP_KERNEL_ACCOUNT);
		if (!io->pages)
			return -ENOMEM;
	}
	io->extents = extents > 1 ? (struct dio_extent *)(io->pages + pages) :
				    &io->inline_extent;
	io->array_bytes = bytes;
	return 0;
}

/* get family: takes pages of the segment at hand; bytes, or an error. */
static ssize_t dio_get_segment(struct dio_io *io, struct iov_iter *iter,
			       struct page **pages, u32 room, size_t *offset)
{
	unsigned long addr;
	size_t length;
	int wanted, got;

	/* Steps over empty segments. */
	while (!iov_iter_single_seg_count(iter))
		iov_iter_advance(iter, 0);

	addr = (unsigned long)dio_iter_addr(iter);
	length = iov_iter_single_seg_count(iter);
	*offset = offset_in_page(addr);
	wanted = min_t(size_t, room, DIV_ROUND_UP(*offset + length, PAGE_SIZE));

	got = get_user_pages_fast(addr - *offset, wanted,
				  io->write ? 0 : FOLL_WRITE, pages);
	if (got <= 0)
		return got ? got : -EFAULT;

	length = min_t(size_t, length, ((size_t)got << PAGE_SHIFT) - *offset);
	iov_iter_advance(iter, length);
	return length;
}

/* Enters @length bytes in the next pages, which begin at @offset of the first. */
static void dio_io_append(struct dio_io *io, size_t offset, size_t length)
{
	struct dio_extent *e = &io->extents[io->nr_extents];
	u32 first = io->nr_pages;

	io->nr_pages += DIV_ROUND_UP(offset + length, PAGE_SIZE);
	io->bytes += length;

	/* What goes on at a page boundary is one extent. */
	if (io->nr_extents && !offset) {
		struct dio_extent *last = e - 1;

		if (PAGE_ALIGNED(last->offset + last->length)) {
			last->length += length;
			return;
		}
	}
	*e = (struct dio_extent) { .first = first, .offset = offset, .length = length };
	io->nr_extents++;
}

/* Whether the pages are those of a huge page, or of several in a row. */
static bool dio_io_linear(const struct dio_io *io)
{
	unsigned long pfn;
	u32 i;

	if (io->nr_pages < 2 || !PageCompound(io->pages[0]))
		return false;

	pfn = page_to_pfn(io->pages[0]);
	for (i = 1; i < io->nr_pages; i++) {
		if (page_to_pfn(io->pages[i]) != pfn + i)
			return false;
	}
	return true;
}

/* Any number of pages, of anybody: 0, or why there aren't more. */
static noinline int dio_take_all(struct dio_call *call, struct dio_io *io)
{
	struct iov_iter *iter = call->iter;
	u32 room = iov_iter_npages(iter, INT_MAX);
	u32 extents = 1;
	int ret;

	io->nr_pages = 0;
	io->nr_extents = 0;
	io->bytes = 0;

	/* What io_uring registered comes with all segments to its end, wanted or not. */
	if (!iter_is_ubuf(iter))
		extents = min_t(unsigned long, room, max(iter->nr_segs, 1UL));

	ret = dio_io_room(io, room, extents, call->nowait);
	if (ret)
		return ret;

	/*
	 * One call below may give no more than a segment, a single bvec, or what
	 * a fault left.
	 */
	while (iov_iter_count(iter)) {
		struct page **pages = io->pages + io->nr_pages;
		size_t offset = 0;
		ssize_t n;

		if (io->hold == DIO_HOLD_GET)
			n = dio_get_segment(io, iter, pages, room - io->nr_pages,
					    &offset);
		else
			n = iov_iter_extract_pages(iter, &pages, SIZE_MAX,
						   room - io->nr_pages, 0, &offset);
		if (unlikely(n <= 0)) {
			ret = n ? n : -EFAULT;
			break;
		}
		dio_io_append(io, offset, n);
	}
	io->linear = dio_io_linear(io);
	return ret;
}

/* What lies within one page of user memory, as most small requests do. */
static bool dio_takes_one(const struct iov_iter *iter)
{
	return iter_is_ubuf(iter) &&
	       offset_in_page(dio_iter_addr(iter)) + iov_iter_count(iter) <= PAGE_SIZE;
}

/*
 * The same for such a request: what dio_take_all() would come to, without its
 * loop, and without asking how much room and how many turns are needed. Saves
 * 200 of a request's instructions.
 */
static int dio_take_one(struct dio_call *call, struct dio_io *io)
{
	unsigned long addr = (unsigned long)dio_iter_addr(call->iter);
	unsigned int flags = io->write ? 0 : FOLL_WRITE;
	u32 bytes = iov_iter_count(call->iter);
	int got;

	io->pages = io->inline_pages;
	io->extents = &io->inline_extent;
	io->linear = false;

	if (io->hold == DIO_HOLD_GET)
		got = get_user_pages_fast(addr & PAGE_MASK, 1, flags, io->pages);
	else
		got = pin_user_pages_fast(addr & PAGE_MASK, 1, flags, io->pages);
	if (unlikely(got != 1)) {
		io->nr_pages = 0;
		io->nr_extents = 0;
		io->bytes = 0;
		return got ? got : -EFAULT;
	}

	io->nr_pages = 1;
	io->nr_extents = 1;
	io->bytes = bytes;
	io->inline_extent = (struct dio_extent) {
		.offset = offset_in_page(addr), .length = bytes,
	};
	iov_iter_advance(call->iter, bytes);
	return 0;
}

/*
 * Takes hold of the pages of @call, as many as can be had; -EFAULT when none.
 * The caller initialised @io's req, pos, write, model and kind.
 */
int dio_io_take(struct dio_call *call, struct dio_io *io)
{
	struct iov_iter *iter = call->iter;
	int ret;

	if (call->buffer) {
		dio_buffer_take(call, io);
		return 0;
	}

	io->hold = !user_backed_iter(iter) ? DIO_HOLD_NONE :
		   call->params.family == DIO_FAMILY_GET ? DIO_HOLD_GET :
							   DIO_HOLD_PIN;
	ret = dio_takes_one(iter) ? dio_take_one(call, io) : dio_take_all(call, io);

	io->goal = io->bytes;
	if (io->hold != DIO_HOLD_NONE)
		dio_add(call->dev, pages_pinned, io->nr_pages);
	trace_dio_pin(io, ret);
	if (unlikely(!io->bytes)) {
		dio_io_free(call->dev, io);
		return ret ? ret : -EFAULT;
	}
	return 0;
}
