// SPDX-License-Identifier: GPL-2.0-only
/*
 * edu at work. The hardware moves one stretch of memory at a time, takes 100 ms for
 * it, ends it with an interrupt, and has no queue: so the driver keeps one.
 *
 * The request at its head is claimed, mapped, and moved a segment at a time, each
 * started by the interrupt of the one before. The last interrupt unmaps it, hands
 * it to the worker, that marks pages dirty and releases them, and starts the next.
 *
 * A transfer can't be stopped once it's started. So removal waits for the one that
 * runs; and when an interrupt doesn't come in time, the device is kept from memory
 * altogether (no bus mastering) before the caller's pages are let go.
 */
#include <linux/io.h>
#include <linux/moduleparam.h>

#include "edu.h"
#include "trace.h"

#define DIO_EDU_TIMEOUT_MAX_MS	600000U

static unsigned int edu_timeout_ms = 5000;
module_param(edu_timeout_ms, uint, 0644);
MODULE_PARM_DESC(edu_timeout_ms, "how long an edu transfer may take before it fails with EIO");

/* Starts the transfer of the active request's segment at hand. */
static void dio_edu_start(struct dio_edu *edu)
{
	struct dio_request *req = edu->active;
	struct dio_io *io = &req->io;
	u64 inside = EDU_BUFFER + io->pos + req->dma.done;
	unsigned int ms;
	u64 memory;
	u32 bytes;

	memory = dio_dma_segment(&edu->engine, req, &bytes);
	writeq(io->write ? memory : inside, edu->regs + EDU_DMA_SRC);
	writeq(io->write ? inside : memory, edu->regs + EDU_DMA_DST);
	writeq(bytes, edu->regs + EDU_DMA_COUNT);

	ms = clamp(READ_ONCE(edu_timeout_ms), 1U, DIO_EDU_TIMEOUT_MAX_MS);
	edu->deadline = jiffies + msecs_to_jiffies(ms);
	mod_timer(&edu->watchdog, edu->deadline);

	writeq(EDU_DMA_RUN | EDU_DMA_IRQ | (io->write ? 0 : EDU_DMA_TO_MEMORY),
	       edu->regs + EDU_DMA_CMD);
}

/* @req, which was claimed, is over. */
static void dio_edu_hand(struct dio_request *req, ssize_t result)
{
	struct dio_dev *dev = req->file->dev;

	req->result = result;
	req->served = true;
	trace_dio_move(&req->io, req->io.nr_pages, max_t(ssize_t, result, 0));
	if (result > 0)
		dio_moved(dev, req->io.write, result);
	dio_request_hand(dev, req);
}

/* Makes @req the active one. EIO: the device or the mapping doesn't work. */
static int dio_edu_begin(struct dio_edu *edu, struct dio_request *req)
{
	int ret;

	/* Still at one that was given up, or that somebody left: it can't take another. */
	if (readq(edu->regs + EDU_DMA_CMD) & EDU_DMA_RUN)
		return -EIO;

	ret = dio_dma_map(&edu->engine, req);
	if (ret)
		return ret;
	if (unlikely(edu->stopped)) {
		/* What was left is over, and so may its interrupt be. */
		writel(EDU_IRQ_DMA, edu->regs + EDU_IRQ_ACK);
		pci_set_master(edu->pdev);
		edu->stopped = false;
	}
	edu->active = req;
	dio_edu_start(edu);
	return 0;
}

/* Begins with the next request, if the hardware is free. */
static void dio_edu_next(struct dio_edu *edu)
{
	struct dio_request *req;
	int ret;

	lockdep_assert_held(&edu->lock);

	while (!edu->active) {
		req = list_first_entry_or_null(&edu->queue, struct dio_request,
					       dma.queue);
		if (!req)
			break;
		list_del_init(&req->dma.queue);
		if (!dio_request_claim(req, DIO_STATE_MOVING)) {
			/* Cancelled just now; who did it couldn't withdraw it. */
			dio_request_hand(req->dev, req);
			continue;
		}
		ret = dio_edu_begin(edu, req);
		if (ret)
			dio_edu_hand(req, ret);
	}
}

/* The hardware is done with the active request, or was stopped. */
static void dio_edu_end(struct dio_edu *edu, ssize_t result)
{
	struct dio_request *req = edu->active;

	dio_dma_unmap(&edu->engine, req);
	edu->active = NULL;
	dio_edu_hand(req, result);
	dio_edu_next(edu);
	if (!edu->active)
		wake_up(&edu->idle);
}

irqreturn_t dio_edu_interrupt(int irq, void *data)
{
	struct dio_edu *edu = data;
	u32 status = readl(edu->regs + EDU_IRQ_STATUS);
	struct dio_request *req;
	u32 bytes;

	/* Somebody else's line; all ones: there is no device any more. */
	if (!(status & EDU_IRQ_DMA) || status == U32_MAX)
		return IRQ_NONE;
	writel(EDU_IRQ_DMA, edu->regs + EDU_IRQ_ACK);

	spin_lock(&edu->lock);
	req = edu->active;
	/* A late one, of a transfer that was given up, finds another one running. */
	if (req && !(readq(edu->regs + EDU_DMA_CMD) & EDU_DMA_RUN)) {
		dio_count(req->file->dev, interrupts);
		dio_count(req->file->dev, dma_segments);
		dio_dma_segment(&edu->engine, req, &bytes);
		if (dio_dma_next(&req->dma, bytes))
			dio_edu_start(edu);
		else
			dio_edu_end(edu, req->io.goal);
	}
	spin_unlock(&edu->lock);
	return IRQ_HANDLED;
}

/* No interrupt came in time. What was moved by then counts. */
static void dio_edu_watchdog(struct timer_list *timer)
{
	struct dio_edu *edu = container_of(timer, struct dio_edu, watchdog);
	struct dio_request *req;
	unsigned long flags;

	spin_lock_irqsave(&edu->lock, flags);
	req = edu->active;
	if (req && time_after_eq(jiffies, edu->deadline)) {
		dev_err_ratelimited(&edu->pdev->dev,
				    "no interrupt at the end of a transfer: given up\n");
		/* It may still run, and its memory is about to be somebody else's. */
		pci_clear_master(edu->pdev);
		edu->stopped = true;
		dio_count(req->file->dev, dma_timeouts);
		dio_edu_end(edu, req->dma.done ? (ssize_t)req->dma.done : -EIO);
	}
	spin_unlock_irqrestore(&edu->lock, flags);
}

int dio_edu_prepare(struct dio_dev *dev, struct dio_request *req, gfp_t gfp)
{
	return dio_dma_prepare(&req->dma, &req->io, gfp);
}

void dio_edu_submit(struct dio_dev *dev, struct dio_request *req)
{
	struct dio_edu *edu = dev->hardware;
	unsigned long flags;

	spin_lock_irqsave(&edu->lock, flags);
	list_add_tail(&req->dma.queue, &edu->queue);
	dio_edu_next(edu);
	spin_unlock_irqrestore(&edu->lock, flags);
}

bool dio_edu_withdraw(struct dio_dev *dev, struct dio_request *req)
{
	struct dio_edu *edu = dev->hardware;
	unsigned long flags;
	bool queued;

	spin_lock_irqsave(&edu->lock, flags);
	queued = !list_empty(&req->dma.queue);
	if (queued)
		list_del_init(&req->dma.queue);
	spin_unlock_irqrestore(&edu->lock, flags);
	return queued;
}

void dio_edu_queue_init(struct dio_edu *edu)
{
	spin_lock_init(&edu->lock);
	INIT_LIST_HEAD(&edu->queue);
	init_waitqueue_head(&edu->idle);
	timer_setup(&edu->watchdog, dio_edu_watchdog, 0);
}

/* Nobody gives it work any more, and what was queued is withdrawn: waits until it's idle. */
void dio_edu_queue_exit(struct dio_edu *edu)
{
	/* The watchdog bounds it. */
	wait_event(edu->idle, !READ_ONCE(edu->active));
	timer_delete_sync(&edu->watchdog);
}
