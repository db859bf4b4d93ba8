/* SPDX-License-Identifier: GPL-2.0-only */
/* From a request's pages to addresses that a device understands: dma.c. */
#ifndef _DIO_DMA_H
#define _DIO_DMA_H

#include <linux/list.h>
#include <linux/scatterlist.h>
#include <linux/types.h>

struct device;
struct dio_dev;
struct dio_io;
struct dio_request;

/* How a request's bytes come within the device's reach. */
enum dio_dma_way {
	DIO_DMA_DIRECT,		/* bus addresses are the pages' own */
	DIO_DMA_REMAPPED,	/* the kernel put others in their place: swiotlb, an IOMMU */
	DIO_DMA_BOUNCED,	/* through the buffer of struct dio_dma_engine */
};

/* What of a device its mappings need. One request is mapped at a time. */
struct dio_dma_engine {
	struct device *dev;
	void *bounce;		/* coherent, within the device's reach */
	dma_addr_t bounce_addr;
	size_t size;		/* of it: no request is larger */
	bool all_reached;	/* mapping any page gives addresses that the device has */
};

/* A request's part: in struct dio_request, for the time that it's a backend's. */
struct dio_dma {
	struct list_head queue;	/* the backend's */
	struct sg_table table;	/* of the pages, as far as bytes are to be moved */
	struct scatterlist *sg;	/* what's being moved */
	u32 left;		/* segments, this one included */
	u32 done;		/* bytes */
	u8 way;			/* enum dio_dma_way */
};

int dio_dma_init(struct dio_dma_engine *engine, struct device *dev, u32 bits, size_t size);
void dio_dma_exit(struct dio_dma_engine *engine);
int dio_dma_map(struct dio_dma_engine *engine, struct dio_request *req);
void dio_dma_unmap(struct dio_dma_engine *engine, struct dio_request *req);
dma_addr_t dio_dma_segment(const struct dio_dma_engine *engine,
			   const struct dio_request *req, u32 *bytes);
bool dio_dma_next(struct dio_dma *dma, u32 bytes);

int dio_dma_prepare(struct dio_dma *dma, const struct dio_io *io, gfp_t gfp);

static inline void dio_dma_free(struct dio_dma *dma)
{
	sg_free_table(&dma->table);
}

#endif /* _DIO_DMA_H */
