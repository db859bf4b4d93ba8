// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device models: what happens to the bytes of a request.
 *
 *   ram   moves them between the pages and the store.
 *   disk, tape  do the same, and take their time: schedule.c.
 *   null  takes them all and moves none. For its reads the caller's pages count
 *         as written, as they would for a device that the CPU can't watch.
 *   edu   isn't here: hardware moves the bytes, backend.h.
 */
#include <linux/highmem.h>
#include <linux/mm.h>

#include "dio.h"
#include "trace.h"

/*
 * Moves bytes within one page of the caller's and one of the store's. @store is
 * NULL for a hole that is read.
 */
static void dio_move_page(struct dio_io *io, struct page *page, u32 page_off,
			  struct page *store, u32 store_off, u32 n)
{
	void *mem = kmap_local_page(page);

	if (trace_dio_map_enabled() && io->hold == DIO_HOLD_GET)
		trace_dio_map(io, 1, n);

	if (!store && n == PAGE_SIZE) {
		clear_page(mem);
	} else if (!store) {
		memset(mem + page_off, 0, n);
	} else {
		void *data = kmap_local_page(store);

		/* For a whole page there is a faster way than for so many bytes. */
		if (n == PAGE_SIZE)
			copy_page(io->write ? data : mem, io->write ? mem : data);
		else if (io->write)
			memcpy(data + store_off, mem + page_off, n);
		else
			memcpy(mem + page_off, data + store_off, n);
		kunmap_local(data);
	}
	kunmap_local(mem);
	if (!io->write)
		flush_dcache_page(page);
}

/* Between pages. A timer moves few, and may not. */
static void dio_move_breathe(void)
{
	if (in_task())
		cond_resched();
}

/* ram: @gfp 0 allocates nothing. */
static noinline ssize_t dio_move_ram(struct dio_dev *dev, struct dio_io *io, gfp_t gfp)
{
	const struct dio_extent *e = io->extents;
	u32 in_extent = 0, done = 0;
	loff_t pos = io->pos;
	int ret = 0;

	while (done < io->goal) {
		u32 at = e->offset + in_extent;
		u32 page_off = offset_in_page(at);
		u32 store_off = offset_in_page(pos);
		u32 n = min3(e->length - in_extent, (u32)PAGE_SIZE - page_off,
			     (u32)PAGE_SIZE - store_off);
		struct page *store;

		n = min(n, io->goal - done);
		if (io->write && gfp)
			store = dio_store_get(&dev->store, pos >> PAGE_SHIFT, gfp);
		else
			store = dio_store_lookup(&dev->store, pos >> PAGE_SHIFT);
		if (IS_ERR(store)) {
			ret = PTR_ERR(store);
			break;
		}
		if (WARN_ON_ONCE(!store && io->write)) {
			ret = -EIO;
			break;
		}

		dio_move_page(io, io->pages[e->first + (at >> PAGE_SHIFT)], page_off,
			      store, store_off, n);
		done += n;
		pos += n;
		in_extent += n;
		if (in_extent == e->length) {
			e++;
			in_extent = 0;
		}
		dio_move_breathe();
	}
	return done ? (ssize_t)done : ret;
}

/*
 * null, read into pages of nobody: splice hands in fresh ones, whose old content
 * must not get out. io_uring's registered buffers are mostly anonymous or of a
 * file, but may be a driver's memory that was mapped, this one's store too: so
 * nothing beside the request's own bytes is touched.
 */
static noinline void dio_null_clear(struct dio_io *io)
{
	const struct dio_extent *e = io->extents;
	u32 in_extent = 0, done = 0;

	while (done < io->goal) {
		u32 at = e->offset + in_extent;
		u32 offset = offset_in_page(at);
		struct page *page = io->pages[e->first + (at >> PAGE_SHIFT)];
		u32 n = min3(e->length - in_extent, (u32)PAGE_SIZE - offset,
			     io->goal - done);

		if (!dio_page_has_owner(page)) {
			void *mem = kmap_local_page(page);

			memset(mem + offset, 0, n);
			kunmap_local(mem);
			flush_dcache_page(page);
		}
		done += n;
		in_extent += n;
		if (in_extent == e->length) {
			e++;
			in_extent = 0;
		}
		dio_move_breathe();
	}
}

/*
 * Does the I/O on pages that are held: how many bytes were moved, or an error
 * when none. @gfp is for store pages; 0 when they were reserved; any context then.
 */
ssize_t dio_model_move(struct dio_dev *dev, struct dio_io *io, gfp_t gfp)
{
	ssize_t moved;
	u32 unmoved = 0;

	if (static_branch_unlikely(&dio_faults_armed)) {
		unmoved = dio_fault_move(dev, io);
		io->goal -= unmoved;
	}
	if (unlikely(io->model == DIO_MODEL_BROKEN)) {
		moved = -EIO;
	} else if (io->model == DIO_MODEL_NULL) {
		moved = io->goal;
		if (!io->write && io->hold == DIO_HOLD_NONE)
			dio_null_clear(io);
	} else {
		if (trace_dio_map_enabled() && io->hold != DIO_HOLD_GET)
			trace_dio_map(io, io->nr_pages, io->goal);
		moved = dio_move_ram(dev, io, gfp);
	}
	trace_dio_move(io, io->nr_pages, max(moved, 0L));
	if (unlikely(unmoved)) {
		if (moved == io->goal)
			moved += unmoved;	/* the bug */
		io->goal += unmoved;
	}

	if (moved > 0)
		dio_moved(dev, io->write, moved);
	return moved;
}

/* Whether every page of a bvec has an owner: see dio_null_clear(). */
static noinline bool dio_bvecs_owned(const struct iov_iter *iter)
{
	const struct bio_vec *v = iter->bvec;
	size_t left = iov_iter_count(iter);
	size_t at = iter->iov_offset;

	for (; left; v++, at = 0) {
		size_t from = v->bv_offset + at;
		size_t n = min(left, v->bv_len - at);
		size_t i;

		if (!n)
			continue;
		for (i = from >> PAGE_SHIFT; i <= (from + n - 1) >> PAGE_SHIFT; i++) {
			if (!dio_page_has_owner(v->bv_page + i))
				return false;
		}
		left -= n;
	}
	return true;
}

/* The same, with a short way for what lies within one page. */
static bool dio_bvec_owned(const struct iov_iter *iter)
{
	const struct bio_vec *v = iter->bvec;
	size_t at = v->bv_offset + iter->iov_offset;
	size_t bytes = iov_iter_count(iter);

	if (offset_in_page(at) + bytes <= PAGE_SIZE &&
	    iter->iov_offset + bytes <= v->bv_len)
		return dio_page_has_owner(v->bv_page + (at >> PAGE_SHIFT));
	return dio_bvecs_owned(iter);
}

/*
 * null with a bvec, such as io_uring's registered buffers: there are no pages to
 * hold, nothing to move and nothing to release, so that all of it is passed over
 * here. Saves 350 of such a request's instructions. Who traces the steps, or
 * makes them fail, gets them one by one.
 */
bool dio_model_pass(struct dio_call *call)
{
	struct iov_iter *iter = call->iter;
	size_t bytes = iov_iter_count(iter);

	if (call->injected || trace_dio_pin_enabled() || trace_dio_move_enabled() ||
	    (!call->write && !dio_bvec_owned(iter)))
		return false;

	iov_iter_advance(iter, bytes);
	dio_moved(call->dev, call->write, bytes);
	return true;
}
