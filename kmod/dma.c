// SPDX-License-Identifier: GPL-2.0-only
/*
 * DMA straight into and out of the caller's pages.
 *
 * The page array becomes a scatter/gather table when the request is submitted,
 * and is mapped for as long as the device works on it, no longer: so two requests
 * on the same memory are never mapped at once, and a queue that is long doesn't
 * use swiotlb up.
 *
 * A device that has fewer address lines than the machine has memory can't reach
 * every page. Mapping sees to that with swiotlb, if there is one: on x86 only
 * with memory above 4 GiB, and its buffers lie somewhere below 4 GiB. For a device
 * with 32 bits or more that is enough. For one with fewer, or without a swiotlb,
 * mapping would fail, with a warning in the log: so such pages are never mapped,
 * their bytes go through a buffer of ours, that the device does reach.
 */
#include <linux/dma-mapping.h>
#include <linux/mm.h>

#include "request.h"
#include "trace.h"

/* @bits: the device's address lines. @size: of the largest request. */
int dio_dma_init(struct dio_dma_engine *engine, struct device *dev, u32 bits,
		 size_t size)
{
	int ret;

	if (bits < 1 || bits > 64)
		return -EINVAL;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(bits));
	if (ret)
		return ret;

	engine->dev = dev;
	engine->size = size;
	engine->all_reached = !dma_addressing_limited(dev) ||
			      (bits >= 32 && dma_max_mapping_size(dev) != SIZE_MAX);
	engine->bounce = dma_alloc_coherent(dev, size, &engine->bounce_addr, GFP_KERNEL);
	return engine->bounce ? 0 : -ENOMEM;
}

void dio_dma_exit(struct dio_dma_engine *engine)
{
	dma_free_coherent(engine->dev, engine->size, engine->bounce,
			  engine->bounce_addr);
}

/* How many bytes of @e lie in the page at @at, @left at most. */
static u32 dio_dma_piece(const struct dio_extent *e, u32 at, u32 left)
{
	u32 n = PAGE_SIZE - offset_in_page(e->offset + at);

	return min3(n, e->length - at, left);
}

/* Several extents: an entry for each page of each. */
static int dio_dma_prepare_extents(struct dio_dma *dma, const struct dio_io *io,
				   gfp_t gfp)
{
	const struct dio_extent *e = io->extents;
	u32 at, n, done, entries = 0;
	struct scatterlist *sg;
	int ret;

	for (done = 0, at = 0; done < io->goal; done += n, entries++) {
		n = dio_dma_piece(e, at, io->goal - done);
		at += n;
		if (at == e->length) {
			e++;
			at = 0;
		}
	}

	ret = sg_alloc_table(&dma->table, entries, gfp);
	if (ret)
		return ret;

	e = io->extents;
	sg = dma->table.sgl;
	for (done = 0, at = 0; done < io->goal; done += n, sg = sg_next(sg)) {
		u32 first = e->offset + at;

		n = dio_dma_piece(e, at, io->goal - done);
		sg_set_page(sg, io->pages[e->first + (first >> PAGE_SHIFT)], n,
			    offset_in_page(first));
		at += n;
		if (at == e->length) {
			e++;
			at = 0;
		}
	}
	return 0;
}

/* Makes the table for the bytes that are to be moved. dio_dma_free() frees it. */
int dio_dma_prepare(struct dio_dma *dma, const struct dio_io *io, gfp_t gfp)
{
	const struct dio_extent *e = io->extents;

	INIT_LIST_HEAD(&dma->queue);
	dma->done = 0;
	dma->left = 0;
	if (e->length < io->goal)
		return dio_dma_prepare_extents(dma, io, gfp);

	/* Pages that lie side by side in memory, too, become one entry. */
	return sg_alloc_table_from_pages(&dma->table, io->pages + e->first,
					 DIV_ROUND_UP(e->offset + io->goal, PAGE_SIZE),
					 e->offset, io->goal, gfp);
}

static enum dma_data_direction dio_dma_direction(const struct dio_io *io)
{
	return io->write ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
}

/* Whether the device gets at all of the pages when they're mapped. */
static bool dio_dma_reaches(const struct dio_dma_engine *engine, struct dio_dma *dma)
{
	u64 mask = dma_get_mask(engine->dev);
	struct scatterlist *sg;
	unsigned int i;

	if (engine->all_reached)
		return true;
	for_each_sgtable_sg(&dma->table, sg, i)
		if (sg_phys(sg) + sg->length - 1 > mask)
			return false;
	return true;
}

/* Brings the request's bytes within the device's reach. With interrupts off. */
int dio_dma_map(struct dio_dma_engine *engine, struct dio_request *req)
{
	struct dio_dma *dma = &req->dma;
	struct dio_io *io = &req->io;

	if (dio_dma_reaches(engine, dma)) {
		/* Why it can't be mapped is told differently from kernel to kernel. */
		if (dma_map_sgtable(engine->dev, &dma->table, dio_dma_direction(io), 0))
			return -EIO;
		dma->sg = dma->table.sgl;
		dma->left = dma->table.nents;
		dma->way = sg_dma_address(dma->sg) == sg_phys(dma->sg) ?
			   DIO_DMA_DIRECT : DIO_DMA_REMAPPED;
	} else {
		if (WARN_ON_ONCE(io->goal > engine->size))
			return -EIO;
		if (io->write)
			sg_copy_to_buffer(dma->table.sgl, dma->table.orig_nents,
					  engine->bounce, io->goal);
		dma->left = 1;
		dma->way = DIO_DMA_BOUNCED;
		dio_count(req->file->dev, dma_bounced);
	}
	trace_dio_dma_map(engine, req);
	return 0;
}

/* The device is done, or was stopped. The caller's pages have its bytes then. */
void dio_dma_unmap(struct dio_dma_engine *engine, struct dio_request *req)
{
	struct dio_dma *dma = &req->dma;
	struct dio_io *io = &req->io;

	trace_dio_dma_unmap(engine, req);
	if (dma->way != DIO_DMA_BOUNCED)
		dma_unmap_sgtable(engine->dev, &dma->table, dio_dma_direction(io), 0);
	else if (!io->write)
		sg_copy_from_buffer(dma->table.sgl, dma->table.orig_nents,
				    engine->bounce, dma->done);
}

/* The bus address of the segment at hand, and its length. */
dma_addr_t dio_dma_segment(const struct dio_dma_engine *engine,
			   const struct dio_request *req, u32 *bytes)
{
	const struct dio_dma *dma = &req->dma;

	if (dma->way == DIO_DMA_BOUNCED) {
		*bytes = req->io.goal;
		return engine->bounce_addr;
	}
	*bytes = sg_dma_len(dma->sg);
	return sg_dma_address(dma->sg);
}

/* @bytes of the segment at hand were moved, all of it: is there another one? */
bool dio_dma_next(struct dio_dma *dma, u32 bytes)
{
	dma->done += bytes;
	if (!--dma->left)
		return false;
	dma->sg = sg_next(dma->sg);
	return true;
}
