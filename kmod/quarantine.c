// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the faults leak: pages that weren't given back, requests that weren't
 * told. They are only put aside, and come back by DIO_IOC_DRAIN, with the
 * fault's end, with the module's, and requests by themselves after hold_ms.
 */
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "request.h"

struct dio_leaked_page {
	struct list_head link;
	struct page *page;
	u8 hold;		/* enum dio_hold */
};

bool dio_quarantine_has_room(struct dio_dev *dev)
{
	return READ_ONCE(dev->faults.nr_pages) < DIO_QUARANTINE_PAGES;
}

/* Puts a held page aside; false without memory, and then it isn't leaked. */
bool dio_quarantine_page(struct dio_dev *dev, struct page *page, u8 hold)
{
	struct dio_faults *f = &dev->faults;
	struct dio_leaked_page *leaked;
	unsigned long flags;

	leaked = kmalloc_obj(*leaked, GFP_ATOMIC | __GFP_NOWARN);
	if (!leaked)
		return false;
	leaked->page = page;
	leaked->hold = hold;

	spin_lock_irqsave(&f->lock, flags);
	list_add_tail(&leaked->link, &f->pages);
	f->nr_pages++;
	spin_unlock_irqrestore(&f->lock, flags);
	return true;
}

/* Puts a finished request aside, untold. */
void dio_quarantine_request(struct dio_request *req)
{
	struct dio_dev *dev = req->file->dev;
	struct dio_faults *f = &dev->faults;
	unsigned long delay, flags;

	spin_lock_irqsave(&f->lock, flags);
	/* Its removal has emptied this, or is about to. */
	if (dio_gone(dev)) {
		spin_unlock_irqrestore(&f->lock, flags);
		dio_request_tell(req);
		return;
	}
	delay = msecs_to_jiffies(f->state[DIO_FAULT_LOST_COMPLETE].hold_ms);
	req->release_at = jiffies + delay;
	list_add_tail(&req->link, &f->requests);
	f->nr_requests++;
	/* An earlier one's turn comes first; its end looks after this one. */
	schedule_delayed_work(&f->give_back, delay);
	spin_unlock_irqrestore(&f->lock, flags);
}

static u64 dio_tell_parked(struct list_head *parked)
{
	struct dio_request *req, *next;
	u64 told = 0;

	list_for_each_entry_safe(req, next, parked, link) {
		list_del(&req->link);
		dio_request_tell(req);
		told++;
	}
	return told;
}

static void dio_give_back(struct work_struct *work)
{
	struct dio_faults *f = container_of(work, struct dio_faults, give_back.work);
	struct dio_request *req, *next;
	unsigned long flags, soonest = 0;
	bool more = false;
	LIST_HEAD(ripe);

	spin_lock_irqsave(&f->lock, flags);
	list_for_each_entry_safe(req, next, &f->requests, link) {
		if (time_after_eq(jiffies, req->release_at)) {
			list_move_tail(&req->link, &ripe);
			f->nr_requests--;
		} else if (!more || time_before(req->release_at, soonest)) {
			soonest = req->release_at;
			more = true;
		}
	}
	if (more)
		schedule_delayed_work(&f->give_back, soonest - jiffies);
	spin_unlock_irqrestore(&f->lock, flags);

	dio_tell_parked(&ripe);
}

void dio_quarantine_init(struct dio_dev *dev)
{
	INIT_LIST_HEAD(&dev->faults.pages);
	INIT_LIST_HEAD(&dev->faults.requests);
	INIT_DELAYED_WORK(&dev->faults.give_back, dio_give_back);
}

void dio_quarantine_count(struct dio_dev *dev, u64 *pages, u64 *requests)
{
	struct dio_faults *f = &dev->faults;
	unsigned long flags;

	spin_lock_irqsave(&f->lock, flags);
	*pages = f->nr_pages;
	*requests = f->nr_requests;
	spin_unlock_irqrestore(&f->lock, flags);
}

/* Gives all back; says how much. */
void dio_quarantine_drain(struct dio_dev *dev, u64 *pages, u64 *requests)
{
	struct dio_faults *f = &dev->faults;
	struct dio_leaked_page *leaked, *next;
	LIST_HEAD(requests_list);
	LIST_HEAD(pages_list);
	unsigned long flags;

	spin_lock_irqsave(&f->lock, flags);
	list_splice_init(&f->pages, &pages_list);
	list_splice_init(&f->requests, &requests_list);
	f->nr_pages = 0;
	f->nr_requests = 0;
	spin_unlock_irqrestore(&f->lock, flags);

	*pages = 0;
	list_for_each_entry_safe(leaked, next, &pages_list, link) {
		if (leaked->hold == DIO_HOLD_GET)
			put_page(leaked->page);
		else
			unpin_user_page(leaked->page);
		dio_count(dev, pages_released);
		kfree(leaked);
		(*pages)++;
	}
	*requests = dio_tell_parked(&requests_list);
}
