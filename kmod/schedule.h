/* SPDX-License-Identifier: GPL-2.0-only */
/* When the modelled device is done with a request: schedule.c. */
#ifndef _DIO_SCHEDULE_H
#define _DIO_SCHEDULE_H

#include <linux/spinlock.h>
#include <linux/types.h>

#include "uapi/dio.h"

struct dio_dev;
struct dio_params;

/* What disk and tape need; in force when the request is submitted. */
struct dio_timing {
	u64 bandwidth;
	u64 jitter_ns;
	u64 reposition_ns;
	u64 seed;
	u32 distribution;	/* enum dio_distribution */
	u32 queue_depth;
};

/* The modelled device's time: ktime_get_ns() at which it will be free. */
struct dio_schedule {
	spinlock_t lock;	/* all below; task context only */
	u64 busy_until;		/* disk: the link; tape: the head */
	u64 head;		/* tape: position */
	u64 random;
	bool started;		/* tape: it was moved since it was rewound */
	u64 slots[DIO_QUEUE_DEPTH_MAX];	/* disk: when each ends; a heap, earliest first */
};

u64 dio_random(u64 *state);
void dio_random_back(u64 *state);
u64 dio_schedule(struct dio_dev *dev, const struct dio_params *params, loff_t pos,
		 u32 bytes);
void dio_schedule_reset(struct dio_dev *dev, const struct dio_timing *timing);

#endif /* _DIO_SCHEDULE_H */
