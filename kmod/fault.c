// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bugs on purpose: when each is to be committed, and those that are committed
 * while pages are given back. The others stand where they happen, each behind
 * dio_fault_hit(): finish.c (completions), rw.c (splice).
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

/* Pages whose dirty flag is nobody's business but swap's. */
static u32 dio_leading_anon(const struct dio_io *io)
{
	u32 i;

	for (i = 0; i < io->nr_pages; i++)
		if (!PageAnon(io->pages[i]))
			break;
	return i;
}

/* Gives @page back once more than it was taken, and makes that good first. */
static void dio_over_unpin(struct dio_dev *dev, struct dio_io *io)
{
	u32 i;

	for (i = 0; i < io->nr_pages; i++) {
		struct page *page = io->pages[i];

		/* A large folio counts its pins elsewhere; the zero page, not at all. */
		if (PageCompound(page) || PageReserved(page))
			continue;
		if (!dio_fault_hit(dev, DIO_FAULT_OVER_UNPIN))
			return;
		page_ref_add(page, GUP_PIN_COUNTING_BIAS);
		unpin_user_page(page);
		return;
	}
}

/*
 * On the way into dio_io_release(): changes what is going to be done there.
 * @dirty is how many leading pages would be marked, and the answer how many will.
 */
u32 dio_fault_release(struct dio_dev *dev, struct dio_io *io, u32 dirty)
{
	u32 anon;

	if (dirty && dio_fault_hit(dev, DIO_FAULT_DIRTY_MISSING))
		dirty = 0;

	/* Marking takes a page lock, so not from the timer. */
	if (io->write && in_task()) {
		anon = dio_leading_anon(io);
		if (anon && dio_fault_hit(dev, DIO_FAULT_DIRTY_NEEDLESS))
			dirty = anon;
	}

	if (io->hold == DIO_HOLD_PIN)
		dio_over_unpin(dev, io);

	if (dio_quarantine_has_room(dev) && dio_fault_hit(dev, DIO_FAULT_PIN_LEAK)) {
		struct page *page = io->pages[io->nr_pages - 1];

		if (!dio_quarantine_page(dev, page, io->hold))
			return dirty;
		io->nr_pages--;
		if (dirty > io->nr_pages) {
			dirty = io->nr_pages;
			set_page_dirty_lock(page);
			dio_count(dev, pages_dirtied);
		}
	}
	return dirty;
}

int dio_fault_arm(struct dio_dev *dev, const struct dio_fault *fault)
{
	struct dio_fault_state *s;
	unsigned long flags;
	bool was;

	if (fault->fault == DIO_FAULT_NONE || fault->fault >= DIO_FAULT_COUNT ||
	    !fault->every || fault->flags || fault->hold_ms > DIO_HOLD_MS_MAX ||
	    (fault->hold_ms && fault->fault != DIO_FAULT_LOST_COMPLETE))
		return -EINVAL;

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
