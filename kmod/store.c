// SPDX-License-Identifier: GPL-2.0-only
/*
 * The store: pages in an xarray, allocated when first written or mapped, charged
 * to who caused it and bounded by the store limit.
 *
 * A page stays until dio_store_drop(), which only an idle, unmapped device
 * sees. So a lookup between dio_enter() and dio_leave(), or in a page fault,
 * needs no reference. Page tables and foreign pins hold their own.
 */
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/mm.h>

#include "dio.h"

void dio_store_init(struct dio_store *store)
{
	xa_init_flags(&store->pages, XA_FLAGS_ACCOUNT);
	atomic_long_set(&store->count, 0);
}

/* The page at @index, or NULL: nothing was written there, it reads as zero. */
struct page *dio_store_lookup(struct dio_store *store, pgoff_t index)
{
	return xa_load(&store->pages, index);
}

static bool dio_store_full(const struct dio_store *store)
{
	return atomic_long_read(&store->count) >= READ_ONCE(store->limit);
}

/*
 * Room is taken and the page put there in one go, under the xa_lock: who finds the
 * last room gone finds there, too, if it went for the very page that it wants.
 */
static struct page *dio_store_add(struct dio_store *store, pgoff_t index, gfp_t gfp)
{
	struct page *page, *other;
	int ret = 0;

	if (dio_store_full(store)) {
		/* Allocates nothing for nothing. */
		xa_lock(&store->pages);
		other = xa_load(&store->pages, index);
		xa_unlock(&store->pages);
		return other ? other : ERR_PTR(-ENOSPC);
	}

	page = alloc_page(gfp | __GFP_ZERO);
	if (!page)
		return ERR_PTR(-ENOMEM);

	xa_lock(&store->pages);
	other = xa_load(&store->pages, index);
	if (!other && dio_store_full(store)) {
		ret = -ENOSPC;
	} else if (!other) {
		/* May let the lock go when memory is short: then the room is taken. */
		atomic_long_inc(&store->count);
		other = __xa_cmpxchg(&store->pages, index, NULL, page,
				     gfp & (GFP_KERNEL | __GFP_NOWARN));
		if (other)
			atomic_long_dec(&store->count);
	}
	xa_unlock(&store->pages);

	if (xa_is_err(other))
		ret = xa_err(other);
	if (!ret && !other)
		return page;
	put_page(page);
	/* Somebody else was faster: theirs it is. */
	return ret ? ERR_PTR(ret) : other;
}

/* The page at @index, allocated if need be; ERR_PTR: ENOSPC or ENOMEM. */
struct page *dio_store_get(struct dio_store *store, pgoff_t index, gfp_t gfp)
{
	struct page *page = dio_store_lookup(store, index);

	return page ? page : dio_store_add(store, index, gfp);
}

/*
 * Makes sure that @bytes at @pos can be written without an allocation. Says how
 * many can in @got; fails when none.
 */
int dio_store_reserve(struct dio_store *store, loff_t pos, u32 bytes, gfp_t gfp,
		      u32 *got)
{
	pgoff_t first = pos >> PAGE_SHIFT;
	pgoff_t last = (pos + bytes - 1) >> PAGE_SHIFT;
	pgoff_t index;

	for (index = first; index <= last; index++) {
		struct page *page = dio_store_get(store, index, gfp);

		if (IS_ERR(page)) {
			if (index == first)
				return PTR_ERR(page);
			*got = ((loff_t)index << PAGE_SHIFT) - pos;
			return 0;
		}
		cond_resched();
	}
	*got = bytes;
	return 0;
}

/* Zeroes the bytes from @pos to @end that lie in @page, the one at @index; some do. */
void dio_store_zero(struct page *page, pgoff_t index, u64 pos, u64 end)
{
	u64 at = (u64)index << PAGE_SHIFT;
	u32 first = at < pos ? pos - at : 0;
	u32 last = min_t(u64, end - at, PAGE_SIZE);
	void *mem;

	mem = kmap_local_page(page);
	memset(mem + first, 0, last - first);
	kunmap_local(mem);
	flush_dcache_page(page);
}

/*
 * Makes the bytes from @pos to @end as if they had never been written: whole pages
 * are given back. The device is idle, unmapped.
 */
void dio_store_drop(struct dio_store *store, u64 pos, u64 end)
{
	unsigned long index;
	struct page *page;

	xa_for_each_range(&store->pages, index, page, pos >> PAGE_SHIFT,
			  (end - 1) >> PAGE_SHIFT) {
		u64 at = (u64)index << PAGE_SHIFT;

		if (at < pos || end - at < PAGE_SIZE) {
			dio_store_zero(page, index, pos, end);
			continue;
		}
		xa_erase(&store->pages, index);
		put_page(page);
		atomic_long_dec(&store->count);
		cond_resched();
	}
}
