/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints: one event a step of a request, never one a page, but for
 * dio_map in the classic family. `req` ties the steps of one request together.
 *
 *   submit  taken in; nothing is held yet
 *   pin     the caller's pages are held; hold=buffer: lent by a registered one
 *   queue   it waits until due_ns, by the monotonic clock
 *   map     a caller's page is mapped (get family), or how many were
 *   dma_map, dma_unmap  the pages are, and are about to be no longer, within the
 *           reach of hardware: entries of the scatter/gather list, segments that
 *           are left of them for the device, the first one's bus address
 *   move    bytes went between the pages and the store
 *   dirty   pages that the device wrote are about to be marked dirty
 *   release pages are about to be given back
 *   cancel  it was cancelled before it was moved
 *   complete  the result is about to be told
 *
 * Of a registered buffer:
 *   buffer_pin      it was pinned, or could not be
 *   buffer_release  its pages are about to be given back
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dio

#if !defined(_DIO_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _DIO_TRACE_H

#include <linux/tracepoint.h>

#include "request.h"

#define dio_show_dir(write)	((write) ? "write" : "read")
#define dio_show_kind(kind)				\
	__print_symbolic(kind,				\
			 { DIO_KIND_SYNC, "sync" },	\
			 { DIO_KIND_ASYNC, "async" },	\
			 { DIO_KIND_POLLED, "polled" },	\
			 { DIO_KIND_IOCTL, "ioctl" })
#define dio_show_hold(hold)				\
	__print_symbolic(hold,				\
			 { DIO_HOLD_NONE, "none" },	\
			 { DIO_HOLD_PIN, "pin" },	\
			 { DIO_HOLD_GET, "get" },	\
			 { DIO_HOLD_BUFFER, "buffer" })

TRACE_EVENT(dio_submit,
	TP_PROTO(u64 req, const struct dio_call *call, size_t bytes, bool direct),
	TP_ARGS(req, call, bytes, direct),
	TP_STRUCT__entry(
		__field(u64, req)
		__field(u64, offset)
		__field(u64, bytes)
		__field(u8, write)
		__field(u8, kind)
		__field(u8, direct)
		__field(u8, model)
	),
	TP_fast_assign(
		__entry->req = req;
		__entry->offset = call->pos;
		__entry->bytes = bytes;
		__entry->write = call->write;
		__entry->kind = call->kind;
		__entry->direct = direct;
		__entry->model = call->params.model;
	),
	TP_printk("req=%llu %s %s %s offset=%llu bytes=%llu model=%u",
		  __entry->req, dio_show_kind(__entry->kind),
		  __entry->direct ? "direct" : "copied",
		  dio_show_dir(__entry->write), __entry->offset,
		  __entry->bytes, __entry->model)
);

TRACE_EVENT(dio_pin,
	TP_PROTO(const struct dio_io *io, int result),
	TP_ARGS(io, result),
	TP_STRUCT__entry(
		__field(u64, req)
		__field(u64, offset)
		__field(u32, pages)
		__field(u32, extents)
		__field(u32, bytes)
		__field(int, result)
		__field(u8, hold)
		__field(u8, write)
	),
	TP_fast_assign(
		__entry->req = io->req;
		__entry->offset = io->pos;
		__entry->pages = io->nr_pages;
		__entry->extents = io->nr_extents;
		__entry->bytes = io->bytes;
		__entry->result = result;
		__entry->hold = io->hold;
		__entry->write = io->write;
	),
	TP_printk("req=%llu hold=%s %s pages=%u extents=%u bytes=%u result=%d",
		  __entry->req, dio_show_hold(__entry->hold),
		  dio_show_dir(__entry->write), __entry->pages,
		  __entry->extents, __entry->bytes, __entry->result)
);

DECLARE_EVENT_CLASS(dio_step,
	TP_PROTO(const struct dio_io *io, u32 pages, u32 bytes),
	TP_ARGS(io, pages, bytes),
	TP_STRUCT__entry(
		__field(u64, req)
		__field(u64, offset)
		__field(u32, pages)
		__field(u32, bytes)
		__field(u8, hold)
		__field(u8, write)
	),
	TP_fast_assign(
		__entry->req = io->req;
		__entry->offset = io->pos;
		__entry->pages = pages;
		__entry->bytes = bytes;
		__entry->hold = io->hold;
		__entry->write = io->write;
	),
	TP_printk("req=%llu hold=%s %s offset=%llu pages=%u bytes=%u",
		  __entry->req, dio_show_hold(__entry->hold),
		  dio_show_dir(__entry->write), __entry->offset,
		  __entry->pages, __entry->bytes)
);

DEFINE_EVENT(dio_step, dio_map,
	TP_PROTO(const struct dio_io *io, u32 pages, u32 bytes),
	TP_ARGS(io, pages, bytes)
);

DEFINE_EVENT(dio_step, dio_move,
	TP_PROTO(const struct dio_io *io, u32 pages, u32 bytes),
	TP_ARGS(io, pages, bytes)
);

DEFINE_EVENT(dio_step, dio_dirty,
	TP_PROTO(const struct dio_io *io, u32 pages, u32 bytes),
	TP_ARGS(io, pages, bytes)
);

DEFINE_EVENT(dio_step, dio_release,
	TP_PROTO(const struct dio_io *io, u32 pages, u32 bytes),
	TP_ARGS(io, pages, bytes)
);

#ifdef CONFIG_PCI
#define dio_show_way(way)					\
	__print_symbolic(way,					\
			 { DIO_DMA_DIRECT, "direct" },		\
			 { DIO_DMA_REMAPPED, "remapped" },	\
			 { DIO_DMA_BOUNCED, "bounced" })

DECLARE_EVENT_CLASS(dio_dma,
	TP_PROTO(const struct dio_dma_engine *engine, const struct dio_request *req),
	TP_ARGS(engine, req),
	TP_STRUCT__entry(
		__field(u64, req)
		__field(u64, address)
		__field(u32, entries)
		__field(u32, segments)
		__field(u32, bytes)
		__field(u8, way)
		__field(u8, write)
	),
	TP_fast_assign(
		const struct dio_dma *dma = &req->dma;
		bool bounced = dma->way == DIO_DMA_BOUNCED;

		__entry->req = req->io.req;
		__entry->address = bounced ? engine->bounce_addr :
				   sg_dma_address(dma->table.sgl);
		__entry->entries = dma->table.orig_nents;
		__entry->segments = bounced ? 1 : dma->table.nents;
		__entry->bytes = req->io.goal;
		__entry->way = dma->way;
		__entry->write = req->io.write;
	),
	TP_printk("req=%llu %s %s entries=%u segments=%u address=0x%llx bytes=%u",
		  __entry->req, dio_show_way(__entry->way),
		  dio_show_dir(__entry->write), __entry->entries,
		  __entry->segments, __entry->address, __entry->bytes)
);

DEFINE_EVENT(dio_dma, dio_dma_map,
	TP_PROTO(const struct dio_dma_engine *engine, const struct dio_request *req),
	TP_ARGS(engine, req)
);

DEFINE_EVENT(dio_dma, dio_dma_unmap,
	TP_PROTO(const struct dio_dma_engine *engine, const struct dio_request *req),
	TP_ARGS(engine, req)
);
#endif

TRACE_EVENT(dio_queue,
	TP_PROTO(const struct dio_request *req, u64 due_ns, u32 in_flight),
	TP_ARGS(req, due_ns, in_flight),
	TP_STRUCT__entry(
		__field(u64, req)
		__field(u64, due_ns)
		__field(u32, bytes)
		__field(u32, in_flight)
		__field(u8, kind)
		__field(u8, write)
	),
	TP_fast_assign(
		__entry->req = req->io.req;
		__entry->due_ns = due_ns;
		__entry->bytes = req->io.goal;
		__entry->in_flight = in_flight;
		__entry->kind = req->io.kind;
		__entry->write = req->io.write;
	),
	TP_printk("req=%llu %s %s bytes=%u due_ns=%llu in_flight=%u",
		  __entry->req, dio_show_kind(__entry->kind),
		  dio_show_dir(__entry->write), __entry->bytes,
		  __entry->due_ns, __entry->in_flight)
);

DECLARE_EVENT_CLASS(dio_end,
	TP_PROTO(u64 req, u8 kind, s64 result),
	TP_ARGS(req, kind, result),
	TP_STRUCT__entry(
		__field(u64, req)
		__field(s64, result)
		__field(u8, kind)
	),
	TP_fast_assign(
		__entry->req = req;
		__entry->result = result;
		__entry->kind = kind;
	),
	TP_printk("req=%llu %s result=%lld", __entry->req,
		  dio_show_kind(__entry->kind), __entry->result)
);

DEFINE_EVENT(dio_end, dio_cancel,
	TP_PROTO(u64 req, u8 kind, s64 result),
	TP_ARGS(req, kind, result)
);

DEFINE_EVENT(dio_end, dio_complete,
	TP_PROTO(u64 req, u8 kind, s64 result),
	TP_ARGS(req, kind, result)
);

DECLARE_EVENT_CLASS(dio_buffer,
	TP_PROTO(const struct dio_buffer *buffer, int result),
	TP_ARGS(buffer, result),
	TP_STRUCT__entry(
		__field(u64, addr)
		__field(u64, bytes)
		__field(u32, pages)
		__field(u32, id)
		__field(int, result)
		__field(u8, writable)
	),
	TP_fast_assign(
		__entry->addr = buffer->addr;
		__entry->bytes = buffer->length;
		__entry->pages = buffer->nr_pages;
		__entry->id = buffer->id;
		__entry->result = result;
		__entry->writable = buffer->writable;
	),
	TP_printk("id=%u addr=0x%llx bytes=%llu pages=%u %s result=%d",
		  __entry->id, __entry->addr, __entry->bytes, __entry->pages,
		  __entry->writable ? "writable" : "read-only", __entry->result)
);

DEFINE_EVENT(dio_buffer, dio_buffer_pin,
	TP_PROTO(const struct dio_buffer *buffer, int result),
	TP_ARGS(buffer, result)
);

DEFINE_EVENT(dio_buffer, dio_buffer_release,
	TP_PROTO(const struct dio_buffer *buffer, int result),
	TP_ARGS(buffer, result)
);

#endif /* _DIO_TRACE_H */

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
