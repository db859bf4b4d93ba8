/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Requests that wait: request.c submits, cancels and awaits them, finish.c ends
 * them. Their life is told in dio.h.
 */
#ifndef _DIO_REQUEST_H
#define _DIO_REQUEST_H

#include <linux/hrtimer.h>
#include <linux/list.h>
#include <linux/llist.h>
#include <linux/refcount.h>

#include "dio.h"
#include "dma.h"

#define DIO_SOFTIRQ_BYTES	(64U << 10)	/* the most that a timer releases */

struct io_uring_cmd;

enum dio_state {
	DIO_STATE_QUEUED,
	DIO_STATE_MOVING,
	DIO_STATE_CANCELLED,
};

/* Who is told a request's result. */
enum dio_owner {
	DIO_OWNER_CALLER,	/* waits in its call */
	DIO_OWNER_KIOCB,	/* asynchronous */
	DIO_OWNER_CMD,		/* io_uring's command, asynchronous too */
};

struct dio_request {
	struct dio_io io;
	/* A killed caller may close the file while the queue still has the request. */
	struct dio_file *file;
	struct dio_dev *dev;
	union {				/* by `owner` */
		struct completion *done;	/* on the waiter's stack */
		struct kiocb *iocb;
		struct io_uring_cmd *cmd;
	};
	struct dio_counters *queue;	/* the CPU's where it was queued */
	/* In queue->waiting until it's finished; then perhaps in dio_faults.requests. */
	struct list_head link;
	union {
		struct hrtimer timer;
		struct dio_dma dma;	/* of a backend's request */
	};
	union {
		struct llist_node due;
		unsigned long release_at;	/* jiffies, parked */
	};
	ssize_t result;
	atomic_t state;			/* enum dio_state */
	refcount_t refs;		/* the queue's, and a synchronous waiter's */
	u8 owner;			/* enum dio_owner */
	u8 epoch;
	u8 by_timer;
	u8 held;		/* it was held back: dio_injection.held may be this one */
	u8 hardware;		/* a backend's: `dma`, and no timer */
	u8 served;		/* by the hardware; `result` is its */
	u8 ready;		/* a backend's, polled: out of its hands */
};

/* What a request that waits takes, beside a page array of its own. */
static_assert(sizeof(struct dio_request) <= 256);

/* The one transition that decides between finishing and cancelling. */
static inline bool dio_request_claim(struct dio_request *req, enum dio_state state)
{
	return atomic_cmpxchg(&req->state, DIO_STATE_QUEUED, state) == DIO_STATE_QUEUED;
}

/*
 * Takes a request that was claimed, or is to be, out of the queue: true when it
 * still waited there, and is the caller's now.
 */
static inline bool dio_request_withdraw(struct dio_dev *dev, struct dio_request *req)
{
	return req->hardware ? dev->backend->withdraw(dev, req) :
			       hrtimer_try_to_cancel(&req->timer) == 1;
}

/* request.c */
int dio_requests_init(void);
void dio_requests_exit(void);
void dio_request_put(struct dio_request *req);
ssize_t dio_request_submit(struct dio_call *call);
int dio_request_cancel(struct dio_request *req);

/* finish.c */
enum hrtimer_restart dio_request_timer(struct hrtimer *timer);
void dio_request_work(struct work_struct *work);
void dio_request_due(struct dio_dev *dev, struct dio_request *req);
void dio_request_hand(struct dio_dev *dev, struct dio_request *req);
void dio_request_uncount(struct dio_request *req);
void dio_request_tell(struct dio_request *req);
void dio_request_unlink(struct dio_request *req);
void dio_requests_hurry(struct dio_dev *dev);
int dio_request_poll(struct dio_request *req);

/* uring.c: io_uring's commands; what waits of them is a request like others */
#ifdef DIO_HAS_URING_CMD
void dio_uring_expect(struct dio_request *req, unsigned int issue_flags);
void dio_uring_forget(struct io_uring_cmd *cmd);
void dio_uring_tell(struct io_uring_cmd *cmd, ssize_t result, bool polled);
#else
static inline void dio_uring_expect(struct dio_request *req, unsigned int issue_flags)
{
}

static inline void dio_uring_forget(struct io_uring_cmd *cmd)
{
}

static inline void dio_uring_tell(struct io_uring_cmd *cmd, ssize_t result, bool polled)
{
}
#endif

#endif /* _DIO_REQUEST_H */
