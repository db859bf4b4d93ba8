/* SPDX-License-Identifier: GPL-2.0-only */
/* What goes wrong with the modelled device, as opposed to the driver: inject.c. */
#ifndef _DIO_INJECT_H
#define _DIO_INJECT_H

#include <linux/jump_label.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#include "uapi/dio.h"

struct dio_call;
struct dio_dev;
struct dio_io;
struct dio_request;

struct dio_inject_rule {
	struct dio_inject rule;	/* as it was set, .armed */
	u64 left;		/* U64_MAX: no limit */
	u64 random;
	u64 occasions;
	u64 injected;
};

struct dio_injection {
	struct mutex arm_lock;	/* arming and disarming move the static key in step */
	spinlock_t lock;	/* all below; softirqs off */
	struct dio_inject_rule rules[DIO_INJECT_COUNT];
	struct dio_request *held;	/* until a later request has ended */
	u64 held_at;			/* when it was to end */
};

DECLARE_STATIC_KEY_FALSE(dio_injecting);

int __dio_inject(struct dio_call *call, size_t bytes, bool direct);
void dio_inject_back(const struct dio_call *call);

static inline int dio_inject(struct dio_call *call, size_t bytes, bool direct)
{
	if (static_branch_unlikely(&dio_injecting))
		return __dio_inject(call, bytes, direct);
	return 0;
}

void dio_inject_init(struct dio_dev *dev);
void dio_inject_exit(struct dio_dev *dev);
void dio_inject_io(struct dio_io *io, const struct dio_call *call);
int dio_inject_set(struct dio_dev *dev, const struct dio_inject *inject);
int dio_inject_get(struct dio_dev *dev, struct dio_inject *inject);
int dio_inject_clear(struct dio_dev *dev, const struct dio_inject *inject);

/* Completions out of order: reorder.c. */
u64 dio_reorder_hold(struct dio_dev *dev, struct dio_request *req, u64 at);
void dio_reorder_forget(struct dio_dev *dev, struct dio_request *req);
void __dio_reorder_passed(struct dio_dev *dev, u64 at);

/* Whether a request is held back already. */
static inline bool dio_reorder_holds(const struct dio_injection *inject)
{
	lockdep_assert_held(&inject->lock);
	return inject->held;
}

static inline void dio_reorder_passed(struct dio_dev *dev, u64 at)
{
	if (static_branch_unlikely(&dio_injecting))
		__dio_reorder_passed(dev, at);
}

#endif /* _DIO_INJECT_H */
