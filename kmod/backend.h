/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hardware that a device may have in place of the software models.
 *
 * Requests of such a device are always queued, for its completion is worker and
 * can't be set otherwise: dio_request_queue() hands them to
 * the backend, whose queue they're in while they're QUEUED. When their turn comes
 * the backend claims them (MOVING), works on them, and gives them back by
 * dio_request_hand(), with `result` and `served` set. Who cancels a request, or
 * removes the device, asks for it with withdraw(); of these two and the backend
 * exactly one gets it.
 */
#ifndef _DIO_BACKEND_H
#define _DIO_BACKEND_H

#include <linux/types.h>

struct dio_call;
struct dio_dev;
struct dio_request;

struct dio_backend {
	const char *driver;	/* dio_info.driver */
	u32 capacity;		/* bytes: a page at most */
	u8 model;		/* enum dio_model */
	/* All that can fail: the pages are held, the caller waits; 0 or an error. */
	int (*prepare)(struct dio_dev *dev, struct dio_request *req, gfp_t gfp);
	/* Takes the request over. Under dio_counters.lock. */
	void (*submit)(struct dio_dev *dev, struct dio_request *req);
	/* True: it was in the queue still, and is the caller's again. Any context. */
	bool (*withdraw)(struct dio_dev *dev, struct dio_request *req);
	/* Frees dio_dev.hardware: nobody has the device open any more. */
	void (*release)(struct dio_dev *dev);
};

/* backend.c */
ssize_t dio_copy_hardware(struct dio_call *call);

/* edu.c: QEMU's teaching device */
#ifdef CONFIG_PCI
int dio_edu_init(void);
void dio_edu_exit(void);
#else
static inline int dio_edu_init(void)
{
	return 0;
}

static inline void dio_edu_exit(void)
{
}
#endif

#endif /* _DIO_BACKEND_H */
