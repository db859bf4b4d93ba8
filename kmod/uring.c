// SPDX-License-Identifier: GPL-2.0-only
/*
 * io_uring's commands: IORING_OP_URING_CMD, without a kiocb.
 *
 * A command that is done at once returns its result. One that waits returns
 * -EIOCBQUEUED and is told by io_uring_cmd_done(), which wants the context that
 * io_uring gives: so the finisher, whatever it is, hands the telling over to the
 * submitter's task. A polled one is told by its poller, which runs there already.
 *
 * The SQE lies in memory that the user shares: each of its fields is read once.
 */
#include <linux/fs.h>
#include <linux/mm.h>

#include "request.h"
#include "trace.h"

#ifdef DIO_HAS_URING_CMD

/* What is kept of a waiting command within io_uring's own request. */
struct dio_uring_pdu {
	struct dio_request *req;	/* under queue->lock: NULL when it's being finished */
	struct dio_counters *queue;
	ssize_t result;
};

static struct dio_uring_pdu *dio_uring_pdu(struct io_uring_cmd *cmd)
{
	BUILD_BUG_ON(sizeof(struct dio_uring_pdu) > sizeof(cmd->pdu));
	return (struct dio_uring_pdu *)cmd->pdu;
}

/* In the task that submitted @cmd. */
void dio_uring_done(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	dio_io_uring_cmd_done(cmd, dio_uring_pdu(cmd)->result, issue_flags);
}

/* Tells @cmd's result, from any context; polled: from its poller's. */
void dio_uring_tell(struct io_uring_cmd *cmd, ssize_t result, bool polled)
{
	dio_uring_pdu(cmd)->result = result;
	if (polled)
		dio_uring_done(cmd, 0);
	else
		io_uring_cmd_complete_in_task(cmd, dio_uring_task_work);
}

/* @req is about to wait. From here on io_uring may want it cancelled. */
void dio_uring_expect(struct dio_request *req, unsigned int issue_flags)
{
	struct dio_uring_pdu *pdu = dio_uring_pdu(req->cmd);

	pdu->req = req;
	pdu->queue = req->queue;
	if (req->io.kind != DIO_KIND_POLLED)
		dio_uring_mark_cancelable(req->cmd, issue_flags);
}

/* @cmd's request is being finished: nobody may look for it any more. */
void dio_uring_forget(struct io_uring_cmd *cmd)
{
	struct dio_uring_pdu *pdu = dio_uring_pdu(cmd);

	lockdep_assert_held(&pdu->queue->lock);
	pdu->req = NULL;
}

/* The ring goes, or the task that submitted @cmd: the answer comes by its end. */
static int dio_uring_cancel(struct io_uring_cmd *cmd)
{
	struct dio_uring_pdu *pdu = dio_uring_pdu(cmd);
	struct dio_counters *queue = pdu->queue;
	unsigned long flags;

	spin_lock_irqsave(&queue->lock, flags);
	if (pdu->req)
		dio_request_cancel(pdu->req);
	spin_unlock_irqrestore(&queue->lock, flags);
	return 0;
}

int dio_uring_iopoll(struct io_uring_cmd *cmd, struct io_comp_batch *batch,
		     unsigned int flags)
{
	return dio_request_poll(dio_uring_pdu(cmd)->req);
}

static ssize_t dio_uring_move(struct io_uring_cmd *cmd, const struct dio_uring_cmd *c,
			      bool write, unsigned int issue_flags)
{
	struct dio_file *file = cmd->file->private_data;
	int dir = write ? ITER_SOURCE : ITER_DEST;
	struct dio_call call __uninitialized;	/* filled in below */
	struct iov_iter iter __uninitialized;	/* by its import */
	struct iovec iov;
	int ret;

	if (!(cmd->file->f_mode & (write ? FMODE_WRITE : FMODE_READ)))
		return -EBADF;
	if (!c->length || (c->addr | c->length) & (DIO_ALIGN - 1))
		return -EINVAL;

	if (cmd->flags & IORING_URING_CMD_FIXED)
		ret = dio_uring_import_fixed(c->addr, c->length, dir, &iter, cmd,
					     issue_flags);
	else
		ret = dio_import_user(dir, u64_to_user_ptr(c->addr), c->length, &iov,
				      &iter);
	if (ret)
		return ret;

	call.file = file;
	call.dev = file->dev;
	call.iocb = NULL;
	call.cmd = cmd;
	call.issue_flags = issue_flags;
	call.iter = &iter;
	call.buffer = NULL;
	call.pos = (loff_t)c->block * DIO_URING_BLOCK;
	call.write = write;
	call.nowait = issue_flags & IO_URING_F_NONBLOCK;
	call.kind = issue_flags & IO_URING_F_IOPOLL ? DIO_KIND_POLLED : DIO_KIND_ASYNC;
	return dio_serve(&call);
}

static int dio_uring_flush(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct dio_file *file = cmd->file->private_data;

	/*
	 * Whoever has to wait is going to come again from a thread of io_uring. Not
	 * here: the ring's lock is held, and who wants it, to have its request marked,
	 * is in flight already.
	 */
	if (issue_flags & IO_URING_F_NONBLOCK)
		return dio_fsync_try(file->dev);
	return dio_fsync(cmd->file, 0, LLONG_MAX, 0);
}

static ssize_t dio_uring_discard(struct io_uring_cmd *cmd, const struct dio_uring_cmd *c,
				 unsigned int issue_flags)
{
	struct dio_discard d = {
		.offset = (u64)c->block * DIO_URING_BLOCK,
		/* What the result can tell. */
		.length = min_t(u32, c->length, ALIGN_DOWN(INT_MAX, DIO_URING_BLOCK)),
	};
	int ret;

	if (issue_flags & IO_URING_F_NONBLOCK)
		return -EAGAIN;
	ret = dio_discard(cmd->file->private_data, cmd->file->f_mode, &d);
	return ret ? ret : (ssize_t)d.done;
}

int dio_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	const struct dio_uring_cmd *shared;
	struct dio_uring_cmd c;
	ssize_t ret;

	/* Of what is cancelled, the SQE may be gone. */
	if (issue_flags & IO_URING_F_CANCEL)
		return dio_uring_cancel(cmd);
	/* One command, one result: what is returned would not be told. */
	if (cmd->flags & DIO_URING_MULTISHOT)
		return -EINVAL;

	shared = dio_uring_bytes(cmd);
	c.addr = READ_ONCE(shared->addr);
	c.length = READ_ONCE(shared->length);
	c.block = READ_ONCE(shared->block);

	switch (cmd->cmd_op) {
	case DIO_URING_READ:
		ret = dio_uring_move(cmd, &c, false, issue_flags);
		break;
	case DIO_URING_WRITE:
		ret = dio_uring_move(cmd, &c, true, issue_flags);
		break;
	case DIO_URING_FLUSH:
		if (c.addr || c.length || c.block || cmd->flags & IORING_URING_CMD_FIXED)
			return -EINVAL;
		ret = dio_uring_flush(cmd, issue_flags);
		break;
	case DIO_URING_DISCARD:
		if (c.addr || cmd->flags & IORING_URING_CMD_FIXED)
			return -EINVAL;
		ret = dio_uring_discard(cmd, &c, issue_flags);
		break;
	default:
		return -ENOTTY;
	}
	return dio_uring_result(cmd, ret, issue_flags);
}

#endif /* DIO_HAS_URING_CMD */
