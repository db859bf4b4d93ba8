/* SPDX-License-Identifier: GPL-2.0-only */
/* The software models' bytes, in pages that are there once they were written: store.c. */
#ifndef _DIO_STORE_H
#define _DIO_STORE_H

#include <linux/atomic.h>
#include <linux/gfp.h>
#include <linux/types.h>
#include <linux/xarray.h>

struct page;

struct dio_store {
	struct xarray pages;	/* struct page by offset >> PAGE_SHIFT */
	atomic_long_t count;
	unsigned long limit;	/* pages; READ_ONCE, WRITE_ONCE */
};

static inline gfp_t dio_store_gfp(bool nowait)
{
	return nowait ? (DIO_GFP_STORE & ~__GFP_DIRECT_RECLAIM) | __GFP_NOWARN :
			DIO_GFP_STORE;
}

void dio_store_init(struct dio_store *store);
struct page *dio_store_lookup(struct dio_store *store, pgoff_t index);
struct page *dio_store_get(struct dio_store *store, pgoff_t index, gfp_t gfp);
int dio_store_reserve(struct dio_store *store, loff_t pos, u32 bytes, gfp_t gfp,
		      u32 *got);
void dio_store_zero(struct page *page, pgoff_t index, u64 pos, u64 end);
void dio_store_drop(struct dio_store *store, u64 pos, u64 end);

#endif /* _DIO_STORE_H */
