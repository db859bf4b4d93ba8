// SPDX-License-Identifier: GPL-2.0-only
/*
 * Completions out of order: one request at a time is held back, its timer set
 * late, until one that was to end after it has ended. Which one that is, inject.c
 * decides.
 */
#include "request.h"

#define DIO_REORDER_NS	(100 * NSEC_PER_MSEC)

/*
 * Holds @req, which would end @at, back until a later one has ended: how much
 * later its timer is to fire at most; 0, and it's not held, if another is by now.
 * dio_reorder_forget() comes before it's freed.
 */
u64 dio_reorder_hold(struct dio_dev *dev, struct dio_request *req, u64 at)
{
	struct dio_injection *inject = &dev->inject;
	u64 ns = 0;

	spin_lock_bh(&inject->lock);
	if (!dio_reorder_holds(inject)) {
		inject->held = req;
		inject->held_at = at;
		ns = inject->rules[DIO_INJECT_REORDER].rule.delay_ns;
		if (!ns)
			ns = DIO_REORDER_NS;
	} else {
		req->held = false;
	}
	spin_unlock_bh(&inject->lock);
	return ns;
}

/* @req won't wait any more, or is about to go. */
void dio_reorder_forget(struct dio_dev *dev, struct dio_request *req)
{
	struct dio_injection *inject = &dev->inject;

	spin_lock_bh(&inject->lock);
	if (inject->held == req)
		inject->held = NULL;
	spin_unlock_bh(&inject->lock);
}

/* A request that was to end @at has: did it go past the one that is held back? */
void __dio_reorder_passed(struct dio_dev *dev, u64 at)
{
	struct dio_injection *inject = &dev->inject;
	struct dio_request *req;

	spin_lock_bh(&inject->lock);
	req = inject->held;
	/*
	 * Not started yet, or it fires right now: then the timer sees to it, and
	 * until its end is forgotten the request is there to be looked at.
	 */
	if (req && at > inject->held_at && hrtimer_try_to_cancel(&req->timer) == 1) {
		inject->held = NULL;
		dio_request_due(dev, req);
	}
	spin_unlock_bh(&inject->lock);
}
