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

static struct page *dio_store_add(struct dio_store *store, pgoff_t index, gfp_t gfp)
{
	struct page *page, *other;
	int ret;

	if (atomic_long_inc_return(&store->count) > READ_ONCE(store->limit)) {
		ret = -ENOSPC;
		goto fail;
	}

	page = alloc_page(gfp | __GFP_ZERO);
	if (!page) {
		ret = -ENOMEM;
		goto fail;
	}

	other = xa_cmpxchg(&store->pages, index, NULL, page,
			   gfp & (GFP_KERNEL | __GFP_NOWARN));
	if (!other)
		return page;

	put_page(page);
	if (!xa_is_err(other)) {
		/* Somebody else was faster: theirs it is. */
		atomic_long_dec(&store->count);
		return other;
	}
	ret = xa_err(other);
fail:
	atomic_long_dec(&store->count);
	return ERR_PTR(ret);
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

/* Gives back the pages from @pos to @end, whole ones. The device is idle, unmapped. */
void dio_store_drop(struct dio_store *store, u64 pos, u64 end)
{
	unsigned long index;
	struct page *page;

	xa_for_each_range(&store->pages, index, page, pos >> PAGE_SHIFT,
			  (end - 1) >> PAGE_SHIFT) {
		xa_erase(&store->pages, index);
		put_page(page);
		atomic_long_dec(&store->count);
		cond_resched();
	}
}
