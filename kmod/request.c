// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests that wait: how they begin. dio.h tells their life, finish.c their end.
 *
 * All that can fail or must be charged to the caller happens at submission:
 * the limits, the request, the pin, the store pages of a write. What is left
 * for later only moves bytes.
 */
#include <linux/aio.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "request.h"
#include "trace.h"

static struct kmem_cache *dio_request_cache;

int dio_requests_init(void)
{
	dio_request_cache = KMEM_CACHE(dio_request, SLAB_ACCOUNT);
	return dio_request_cache ? 0 : -ENOMEM;
}

void dio_requests_exit(void)
{
	kmem_cache_destroy(dio_request_cache);
}

void dio_request_put(struct dio_request *req)
{
	if (!refcount_dec_and_test(&req->refs))
		return;
	if (req->hardware)
		dio_dma_free(&req->dma);
	kmem_cache_free(dio_request_cache, req);
}

/* Has an asynchronous request told -ECANCELED; -EAGAIN: it's being finished. */
int dio_request_cancel(struct dio_request *req)
{
	struct dio_dev *dev = req->file->dev;

	lockdep_assert_held(&req->queue->lock);

	if (!dio_request_claim(req, DIO_STATE_CANCELLED))
		return -EAGAIN;

	trace_dio_cancel(req->io.req, req->io.kind, -ECANCELED);
	dio_count(dev, cancelled);
	/*
	 * If it isn't ours to withdraw, the timer, the backend or the worker has
	 * the request, or it isn't queued yet.
	 */
	if (dio_request_withdraw(dev, req))
		dio_request_due(dev, req);
	return 0;
}

/*
 * io_cancel(2), and the end of the process that owns the kiocb. Called under
 * aio's ctx_lock, without which ->ki_complete() can't end: so the request is
 * here to stay meanwhile, and must be told from elsewhere.
 */
static int dio_request_io_cancel(struct kiocb *iocb)
{
	struct dio_request *req = iocb->private;
	struct dio_dev *dev = req->file->dev;
	unsigned long flags;
	int ret;

	/* The bugs here only say what isn't so: who has the request keeps it. */
	spin_lock_irqsave(&req->queue->lock, flags);
	if (atomic_read(&req->state) == DIO_STATE_QUEUED &&
	    dio_fault_hit(dev, DIO_FAULT_COMPLETE_AFTER_CANCEL))
		ret = 0;
	else
		ret = dio_request_cancel(req);
	if (ret && dio_fault_hit(dev, DIO_FAULT_CANCEL_AFTER_COMPLETE))
		ret = 0;
	spin_unlock_irqrestore(&req->queue->lock, flags);
	return ret;
}

/* Sets up the timer: when the modelled device will be done. */
static ktime_t dio_request_time(struct dio_dev *dev, struct dio_request *req,
				const struct dio_params *params)
{
	ktime_t at = ns_to_ktime(dio_schedule(dev, params, req->io.pos, req->io.goal));

	dio_hrtimer_setup(&req->timer, dio_request_timer, CLOCK_MONOTONIC,
			  HRTIMER_MODE_ABS_SOFT);
	if (unlikely(req->held))
		at = ktime_add_ns(at, dio_reorder_hold(dev, req, ktime_to_ns(at)));
	hrtimer_set_expires(&req->timer, at);
	return at;
}

static void dio_request_queue(struct dio_dev *dev, struct dio_request *req,
			      const struct dio_call *call)
{
	const struct dio_params *params = &call->params;
	struct dio_counters *c = raw_cpu_ptr(dev->counters);
	unsigned long flags;
	ktime_t at = 0;

	dio_count(dev, queued);
	if (!req->hardware)
		at = dio_request_time(dev, req, params);
	trace_dio_queue(req, ktime_to_ns(at), dio_flight_count(dev));

	req->queue = c;
	INIT_LIST_HEAD(&req->link);
	if (req->owner == DIO_OWNER_CALLER) {
		/* Here it is, and waits. */
	} else if (req->owner == DIO_OWNER_CMD) {
		dio_uring_expect(req, call->issue_flags);
	} else {
		WRITE_ONCE(req->iocb->private, req);
		/*
		 * Any other kiocb isn't part of a struct that has a place for it.
		 * The kernel sees to that, too, which makes the bug harmless.
		 */
		if (req->iocb->ki_flags & IOCB_AIO_RW ||
		    dio_fault_hit(dev, DIO_FAULT_CANCEL_FN_MISUSE))
			kiocb_set_cancel_fn(req->iocb, dio_request_io_cancel);
	}

	/* In one go, or cancelling or dio_requests_hurry() might come between. */
	spin_lock_irqsave(&c->lock, flags);
	list_add_tail(&req->link, &c->waiting);
	if (req->hardware) {
		if (atomic_read(&req->state) == DIO_STATE_QUEUED && !dio_gone(dev) &&
		    req->io.model != DIO_MODEL_BROKEN)
			dev->backend->submit(dev, req);
		else
			dio_request_hand(dev, req);
	} else if (req->io.kind != DIO_KIND_POLLED) {
		if ((dio_takes_time(params) || req->by_timer || req->held) &&
		    atomic_read(&req->state) == DIO_STATE_QUEUED && !dio_gone(dev))
			hrtimer_start(&req->timer, at, HRTIMER_MODE_ABS_SOFT);
		else
			dio_request_due(dev, req);
	}
	/* From here on the request may be gone at any time. */
	spin_unlock_irqrestore(&c->lock, flags);
}

/* Waits for a synchronous request. A fatal signal ends the wait: pages first. */
static ssize_t dio_request_wait(struct dio_request *req, struct completion *done)
{
	struct dio_dev *dev = req->file->dev;
	ssize_t ret;

	if (wait_for_completion_killable(done)) {
		if (dio_request_claim(req, DIO_STATE_CANCELLED)) {
			trace_dio_cancel(req->io.req, req->io.kind, -EINTR);
			dio_count(dev, cancelled);
			dio_io_release(dev, &req->io, 0);
			req->result = -EINTR;
			dio_request_unlink(req);
			dio_request_uncount(req);
			if (dio_request_withdraw(dev, req))
				dio_request_put(req);
		} else {
			/* Its bytes are being moved right now. */
			wait_for_completion(done);
		}
	}
	ret = req->result;
	dio_request_put(req);
	return ret;
}

static gfp_t dio_request_gfp(const struct dio_call *call)
{
	return call->nowait ? GFP_NOWAIT | __GFP_NOWARN : GFP_KERNEL;
}

/* Fills @req from @call and takes all that it needs. */
static int dio_request_prepare(struct dio_request *req, struct dio_call *call)
{
	struct dio_dev *dev = call->dev;
	struct dio_io *io = &req->io;
	int ret;

	io->req = dio_next_req(dev);
	io->pos = call->pos;
	io->write = call->write;
	io->model = call->params.model;
	io->kind = call->kind;
	trace_dio_submit(io->req, call, iov_iter_count(call->iter),
			 !(call->injected & DIO_CALL_COPIED));

	ret = dio_io_take(call, io);
	if (ret)
		goto fail;

	if (unlikely(call->injected))
		dio_inject_io(io, call);
	if (req->hardware)
		ret = dev->backend->prepare(dev, req, dio_request_gfp(call));
	else if (io->write && io->model != DIO_MODEL_NULL &&
		 io->model != DIO_MODEL_BROKEN)
		ret = dio_store_reserve(&dev->store, io->pos, io->goal,
					dio_store_gfp(call->nowait), &io->goal);
	if (ret) {
		iov_iter_revert(call->iter, io->bytes);
		dio_io_release(dev, io, 0);
		goto fail;
	}
	return 0;

fail:
	trace_dio_complete(io->req, io->kind, ret);
	return ret;
}

/*
 * Queues a request. -EIOCBQUEUED: it took over the call's place in the gate, and
 * the kiocb and the iterator may be gone. Else the result, the gate still the
 * caller's.
 */
ssize_t dio_request_submit(struct dio_call *call)
{
	DECLARE_COMPLETION_ONSTACK(done);
	struct dio_dev *dev = call->dev;
	bool sync = dio_sync(call);
	struct dio_request *req;
	int epoch = DIO_EPOCH_CALLERS;
	int ret;

	if (sync && call->nowait)
		return -EAGAIN;

	if (!(call->injected & DIO_CALL_COPIED))
		epoch = dio_flight_begin(call->file, &call->params,
					 call->kind == DIO_KIND_POLLED);
	if (epoch < 0)
		return epoch;

	req = kmem_cache_alloc(dio_request_cache, dio_request_gfp(call));
	if (!req) {
		ret = -ENOMEM;
		goto fail_flight;
	}

	req->hardware = !!dev->backend;
	ret = dio_request_prepare(req, call);
	if (ret)
		goto fail_free;

	req->file = call->file;
	req->dev = dev;
	if (sync) {
		req->owner = DIO_OWNER_CALLER;
		req->done = &done;
	} else if (call->cmd) {
		req->owner = DIO_OWNER_CMD;
		req->cmd = call->cmd;
	} else {
		req->owner = DIO_OWNER_KIOCB;
		req->iocb = call->iocb;
	}
	req->epoch = epoch;
	req->held = call->injected & BIT(DIO_INJECT_REORDER);
	req->by_timer = call->params.completion == DIO_COMPLETION_TIMER &&
			(req->io.write || req->io.hold == DIO_HOLD_NONE) &&
			req->io.bytes <= DIO_SOFTIRQ_BYTES;
	req->served = false;
	req->ready = false;
	atomic_set(&req->state, DIO_STATE_QUEUED);
	refcount_set(&req->refs, sync ? 2 : 1);

	dio_request_queue(dev, req, call);
	if (!sync)
		return -EIOCBQUEUED;

	/* Keeps its place in the gate until the caller leaves. */
	return dio_request_wait(req, &done);

fail_free:
	kmem_cache_free(dio_request_cache, req);
fail_flight:
	dio_flight_end(call->file, epoch);
	return ret == -ENOMEM && call->nowait ? -EAGAIN : ret;
}
