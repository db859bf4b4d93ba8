// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests that wait: how they end. Three ways lead here: the timer, which hands
 * over to this CPU's worker or, where nothing has to sleep, finishes itself; the
 * worker; and the poller. Hardware comes back to the last two.
 */
#include <linux/file.h>

#include "request.h"
#include "trace.h"

/* Moves the bytes, unless the hardware has. */
static ssize_t dio_request_move(struct dio_dev *dev, struct dio_request *req)
{
	if (req->served)
		return req->result;
	return dio_gone(dev) ? -ENODEV : dio_model_move(dev, &req->io, 0);
}

/* Takes the request out of all counts; it's about to be told. */
void dio_request_uncount(struct dio_request *req)
{
	struct dio_dev *dev = req->file->dev;

	trace_dio_complete(req->io.req, req->io.kind, req->result);
	dio_flight_end(req->file, req->epoch);
	if (req->owner == DIO_OWNER_CALLER)
		return;		/* who does the rest: dio_ended() */

	dio_count(dev, completed);
	if (req->result < 0)
		dio_count(dev, failed);
	dio_leave(dev);
}

/* Tells an asynchronous request's result and frees it. Nothing else is held. */
void dio_request_tell(struct dio_request *req)
{
	bool twice, touch;
	struct kiocb *iocb;
	ssize_t result;

	if (req->owner == DIO_OWNER_CMD) {
		dio_request_uncount(req);
		dio_uring_tell(req->cmd, req->result, req->io.kind == DIO_KIND_POLLED);
		dio_request_put(req);
		return;
	}

	iocb = req->iocb;
	twice = req->io.kind == DIO_KIND_POLLED &&
		dio_fault_hit(req->file->dev, DIO_FAULT_DOUBLE_COMPLETE);
	touch = req->io.kind == DIO_KIND_ASYNC &&
		dio_fault_hit(req->file->dev, DIO_FAULT_USE_AFTER_COMPLETE);
	/* Native AIO hands a result on as it is; others go on to count with it. */
	if (iocb->ki_flags & IOCB_AIO_RW && req->result > 0 &&
	    dio_fault_hit(req->file->dev, DIO_FAULT_RESULT_RANGE))
		req->result = req->io.bytes + PAGE_SIZE;

	result = req->result;
	if (result > 0)
		iocb->ki_pos = req->io.pos + result;
	dio_request_uncount(req);
	dio_ki_complete(iocb, result);
	/* The bug: freed perhaps, but a slab's memory stays where it is. */
	if (touch)
		(void)READ_ONCE(iocb->ki_flags);
	/*
	 * The bug: harmless only here, for io_uring's polled completion just
	 * notes the result, and the reaper can't run before we return to it.
	 */
	if (twice)
		dio_ki_complete(iocb, result);
	dio_request_put(req);
}

/* The bug of DIO_FAULT_EARLY_COMPLETE: told first, then done. */
static void dio_request_early(struct dio_request *req)
{
	struct dio_dev *dev = req->file->dev;
	struct dio_io *io = &req->io;
	struct file *filp = get_file(req->iocb->ki_filp);

	if (!req->served)
		req->result = io->goal;
	req->iocb->ki_pos = io->pos + req->result;
	trace_dio_complete(io->req, io->kind, req->result);
	dio_count(dev, completed);
	dio_ki_complete(req->iocb, req->result);

	dio_io_release(dev, io, req->served ? req->result : dio_model_move(dev, io, 0));
	dio_flight_end(req->file, req->epoch);
	dio_leave(dev);
	dio_request_put(req);
	fput(filp);	/* req->file, and with it dev, were ours until here */
}

/* The request is being finished, or given up by its killed caller. */
void dio_request_unlink(struct dio_request *req)
{
	unsigned long flags;

	spin_lock_irqsave(&req->queue->lock, flags);
	list_del_init(&req->link);
	if (req->owner == DIO_OWNER_CMD)
		dio_uring_forget(req->cmd);
	spin_unlock_irqrestore(&req->queue->lock, flags);
}

/* A cancelled request arrives where it would have been finished. */
static void dio_request_cancelled(struct dio_request *req)
{
	if (req->owner == DIO_OWNER_CALLER) {
		/* The killed caller released the pages. */
		dio_request_put(req);
		return;
	}
	dio_io_release(req->file->dev, &req->io, 0);
	req->result = -ECANCELED;
	dio_request_tell(req);
}

/* Sleeps, unless req->by_timer. */
static void __dio_request_finish(struct dio_dev *dev, struct dio_request *req)
{
	struct dio_io *io = &req->io;
	bool async = io->kind == DIO_KIND_ASYNC;

	dio_request_unlink(req);
	if (unlikely(req->held))
		dio_reorder_forget(dev, req);
	if (!req->served && !dio_request_claim(req, DIO_STATE_MOVING)) {
		dio_request_cancelled(req);
		return;
	}

	if (async && req->owner == DIO_OWNER_KIOCB && io->hold != DIO_HOLD_NONE && !dio_gone(dev) &&
	    (!req->served || req->result > 0) &&
	    dio_fault_hit(dev, DIO_FAULT_EARLY_COMPLETE)) {
		dio_request_early(req);
		return;
	}

	req->result = dio_request_move(dev, req);
	dio_io_release(dev, io, req->result);

	if (req->owner != DIO_OWNER_CALLER) {
		if (async && dio_fault_hit(dev, DIO_FAULT_LOST_COMPLETE))
			dio_quarantine_request(req);
		else
			dio_request_tell(req);
		return;
	}
	dio_request_uncount(req);
	complete(req->done);
	dio_request_put(req);
}

static void dio_request_finish(struct dio_request *req)
{
	/* Outlives the request: see dio_dev_free(). */
	struct dio_dev *dev = req->dev;
	/* Who was held back itself goes past nobody: its timer tells no time of its own. */
	u64 at = req->hardware || req->held ? 0 :
		 ktime_to_ns(hrtimer_get_expires(&req->timer));

	__dio_request_finish(dev, req);
	dio_reorder_passed(dev, at);
}

void dio_request_work(struct work_struct *work)
{
	struct dio_counters *c = container_of(work, struct dio_counters, work);
	struct dio_request *req, *next;
	struct llist_node *due;

	/* First come, first served. */
	due = llist_reverse_order(llist_del_all(&c->due));
	llist_for_each_entry_safe(req, next, due, due) {
		dio_request_finish(req);
		cond_resched();
	}
}

/* Hands a request to the worker, from any context. It's the worker's then. */
void dio_request_due(struct dio_dev *dev, struct dio_request *req)
{
	struct dio_counters *c = raw_cpu_ptr(dev->counters);

	if (llist_add(&req->due, &c->due))
		queue_work(dev->wq, &c->work);
}

/* The same for one that a backend has no more to do with: or it's the poller's. */
void dio_request_hand(struct dio_dev *dev, struct dio_request *req)
{
	if (req->io.kind != DIO_KIND_POLLED) {
		dio_request_due(dev, req);
		return;
	}
	/* After all else that was done to it: the poller may free it at once. */
	smp_store_release(&req->ready, true);
}

enum hrtimer_restart dio_request_timer(struct hrtimer *timer)
{
	struct dio_request *req = container_of(timer, struct dio_request, timer);

	if (req->by_timer && !static_branch_unlikely(&dio_faults_armed))
		dio_request_finish(req);
	else
		dio_request_due(req->dev, req);
	return HRTIMER_NORESTART;
}

/*
 * The device is gone: nobody has to wait any longer. Those whose timer isn't ours
 * to stop are on their way, those that are polled will be seen by their poller.
 */
void dio_requests_hurry(struct dio_dev *dev)
{
	struct dio_request *req;
	unsigned long flags;
	int cpu;

	for_each_possible_cpu(cpu) {
		struct dio_counters *c = per_cpu_ptr(dev->counters, cpu);

		spin_lock_irqsave(&c->lock, flags);
		list_for_each_entry(req, &c->waiting, link)
			if (dio_request_withdraw(dev, req))
				dio_request_hand(dev, req);
		spin_unlock_irqrestore(&c->lock, flags);
	}
}

static bool dio_request_ready(const struct dio_request *req)
{
	if (req->hardware) {
		/* Before all else is looked at: dio_request_hand(). */
		return smp_load_acquire(&req->ready);
	}
	return dio_gone(req->file->dev) ||
	       !ktime_before(ktime_get(), hrtimer_get_expires(&req->timer));
}

/* A poller looks after @req: finishes it if its time has come. */
int dio_request_poll(struct dio_request *req)
{
	if (!dio_request_ready(req))
		return 0;

	dio_request_finish(req);
	return 1;
}

int dio_poll(struct kiocb *iocb)
{
	return dio_request_poll(READ_ONCE(iocb->private));
}
