// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bugs on purpose: when each is to be committed. Those that have to do with pages
 * are in fault_pages.c; the others stand where they happen, each behind
 * dio_fault_hit(): buffer.c (accounting), finish.c (completions), release.c (the
 * page array), request.c (cancel), splice.c (a synchronous kiocb).
 *
 * With nothing armed all this costs one static branch per place.
 */
#include <linux/mm.h>
#include <linux/slab.h>

#include "dio.h"

#define DIO_HOLD_MS_DEFAULT	5000
#define DIO_HOLD_MS_MAX		600000

DEFINE_STATIC_KEY_FALSE(dio_faults_armed);

void dio_faults_init(struct dio_dev *dev)
{
	spin_lock_init(&dev->faults.lock);
	mutex_init(&dev->faults.arm_lock);
	dio_quarantine_init(dev);
}

static void dio_fault_disarm(struct dio_dev *dev, enum dio_fault_id id)
{
	struct dio_fault_state *s = &dev->faults.state[id];
	unsigned long flags;
	bool was;

	lockdep_assert_held(&dev->faults.arm_lock);

	spin_lock_irqsave(&dev->faults.lock, flags);
	was = s->armed;
	/* As if it had never been armed: what is used up looks otherwise. */
	*s = (struct dio_fault_state) { .committed = s->committed };
	spin_unlock_irqrestore(&dev->faults.lock, flags);

	if (was)
		static_branch_dec(&dio_faults_armed);
}

/* Disarms all, gives all back. */
void dio_faults_disarm(struct dio_dev *dev)
{
	u64 pages, requests;
	int id;

	mutex_lock(&dev->faults.arm_lock);
	for (id = 1; id < DIO_FAULT_COUNT; id++)
		dio_fault_disarm(dev, id);
	mutex_unlock(&dev->faults.arm_lock);
	dio_quarantine_drain(dev, &pages, &requests);
}

/* No request is left. */
void dio_faults_exit(struct dio_dev *dev)
{
	dio_faults_disarm(dev);
	cancel_delayed_work_sync(&dev->faults.give_back);
}

/* An occasion for @id has come: is the bug to be committed? Any context. */
bool __dio_fault_hit(struct dio_dev *dev, enum dio_fault_id id)
{
	struct dio_fault_state *s = &dev->faults.state[id];
	unsigned long flags;
	bool hit = false;

	spin_lock_irqsave(&dev->faults.lock, flags);
	if (s->armed) {
		s->occasions++;
		hit = s->occasions % s->every == 0 && (!s->limited || s->left);
		if (hit) {
			if (s->limited)
				s->left--;
			s->committed++;
			dio_count(dev, faults_committed);
		}
	}
	spin_unlock_irqrestore(&dev->faults.lock, flags);
	return hit;
}

/* Whether it is worth a look if an occasion has come. */
bool dio_fault_armed(struct dio_dev *dev, enum dio_fault_id id)
{
	return READ_ONCE(dev->faults.state[id].armed);
}

/* Whether a bug would wreck this kernel, or is refused by it. */
static bool dio_fault_impossible(enum dio_fault_id id)
{
	switch (id) {
	case DIO_FAULT_USE_AFTER_COMPLETE:
		/* What is freed is unmapped there. */
		return IS_ENABLED(CONFIG_DEBUG_PAGEALLOC) && debug_pagealloc_enabled();
	case DIO_FAULT_LONGTERM_FILE:
		return DIO_REFUSES_LONGTERM_FILE;
	default:
		return false;
	}
}

static bool dio_fault_is_held(enum dio_fault_id id)
{
	return id == DIO_FAULT_LOST_COMPLETE || id == DIO_FAULT_LONGTERM_MISSING;
}

int dio_fault_arm(struct dio_dev *dev, const struct dio_fault *fault)
{
	struct dio_fault_state *s;
	unsigned long flags;
	bool was;

	if (fault->fault == DIO_FAULT_NONE || fault->fault >= DIO_FAULT_COUNT ||
	    !fault->every || fault->flags || fault->hold_ms > DIO_HOLD_MS_MAX ||
	    (fault->hold_ms && !dio_fault_is_held(fault->fault)))
		return -EINVAL;
	if (dio_fault_impossible(fault->fault))
		return -EOPNOTSUPP;

	if (mutex_lock_killable(&dev->faults.arm_lock))
		return -EINTR;

	s = &dev->faults.state[fault->fault];
	spin_lock_irqsave(&dev->faults.lock, flags);
	was = s->armed;
	s->every = fault->every;
	s->left = fault->count;
	s->limited = fault->count;
	s->hold_ms = fault->hold_ms ? fault->hold_ms : DIO_HOLD_MS_DEFAULT;
	s->occasions = 0;
	s->armed = true;
	spin_unlock_irqrestore(&dev->faults.lock, flags);

	if (!was)
		static_branch_inc(&dio_faults_armed);
	mutex_unlock(&dev->faults.arm_lock);
	return 0;
}

int dio_fault_get(struct dio_dev *dev, struct dio_fault *fault)
{
	u32 id = fault->fault;
	struct dio_fault_state s;
	unsigned long flags;

	if (id == DIO_FAULT_NONE || id >= DIO_FAULT_COUNT || fault->flags)
		return -EINVAL;

	spin_lock_irqsave(&dev->faults.lock, flags);
	s = dev->faults.state[id];
	spin_unlock_irqrestore(&dev->faults.lock, flags);

	*fault = (struct dio_fault) {
		.fault = id,
		.every = s.every,
		.count = s.left,
		.hold_ms = s.hold_ms,
		/* One that is used up won't be committed any more. */
		.armed = s.armed && (!s.limited || s.left),
		.occasions = s.occasions,
		.committed = s.committed,
	};
	return 0;
}

int dio_fault_clear(struct dio_dev *dev, const struct dio_fault *fault)
{
	u64 pages, requests;
	int id;

	if (fault->fault >= DIO_FAULT_COUNT || fault->flags)
		return -EINVAL;

	if (mutex_lock_killable(&dev->faults.arm_lock))
		return -EINTR;
	if (fault->fault != DIO_FAULT_NONE)
		dio_fault_disarm(dev, fault->fault);
	else
		for (id = 1; id < DIO_FAULT_COUNT; id++)
			dio_fault_disarm(dev, id);
	mutex_unlock(&dev->faults.arm_lock);
	dio_quarantine_drain(dev, &pages, &requests);
	return 0;
}
