// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the faults leak: pages that weren't given back, page arrays that weren't
 * freed, requests that weren't told. They are only put aside, and come back by
 * DIO_IOC_DRAIN, with the fault's end, with the module's, and some by themselves
 * after hold_ms.
 */
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "request.h"

/* The work is due at @at, or earlier; it looks after what comes later. */
static void dio_give_back_by(struct dio_faults *f, unsigned long at)
{
	lockdep_assert_held(&f->lock);

	if (!delayed_work_pending(&f->give_back) || time_before(at, f->give_back_at)) {
		f->give_back_at = at;
		cancel_delayed_work(&f->give_back);
		schedule_delayed_work(&f->give_back,
				      time_after(at, jiffies) ? at - jiffies : 0);
	}
}

struct dio_leaked {
	struct list_head link;
	struct page *page;		/* or NULL: */
	void *memory;			/* from kvmalloc() */
	unsigned long release_at;	/* jiffies, if it ripens */
	u32 pages;			/* it counts for */
	u8 hold;			/* enum dio_hold */
	bool ripens;
};

bool dio_quarantine_has_room(struct dio_dev *dev)
{
	return READ_ONCE(dev->faults.nr_pages) < DIO_QUARANTINE_PAGES;
}

/* A page that a request held. */
void dio_give_back_page(struct dio_dev *dev, struct page *page, u8 hold)
{
	if (hold == DIO_HOLD_GET)
		put_page(page);
	else
		unpin_user_page(page);
	dio_count(dev, pages_released);
}

/*
 * Puts aside what the fault @id leaks; until it's drained, but for what is to be held
 * for a time. False without memory, or when it was cleared or the device removed since
 * it was hit, for nobody would drain that: then nothing is leaked.
 */
static bool dio_quarantine_add(struct dio_dev *dev, const struct dio_leaked *what,
			       enum dio_fault_id id)
{
	struct dio_faults *f = &dev->faults;
	const struct dio_fault_state *s = &f->state[id];
	struct dio_leaked *leaked;
	unsigned long flags;
	bool armed;

	leaked = kmalloc_obj(*leaked, GFP_ATOMIC | __GFP_NOWARN);
	if (!leaked)
		return false;
	*leaked = *what;
	leaked->ripens = id == DIO_FAULT_LONGTERM_MISSING;

	spin_lock_irqsave(&f->lock, flags);
	armed = s->armed && !dio_gone(dev);
	if (armed) {
		leaked->release_at = jiffies + msecs_to_jiffies(s->hold_ms);
		list_add_tail(&leaked->link, &f->pages);
		f->nr_pages += leaked->pages;
		if (leaked->ripens)
			dio_give_back_by(f, leaked->release_at);
	}
	spin_unlock_irqrestore(&f->lock, flags);
	if (!armed)
		kfree(leaked);
	return armed;
}

/* Puts a held page aside. */
bool dio_quarantine_page(struct dio_dev *dev, struct page *page, u8 hold,
			 enum dio_fault_id id)
{
	return dio_quarantine_add(dev, &(struct dio_leaked) {
		.page = page, .hold = hold, .pages = 1,
	}, id);
}

/* Puts memory aside that should be given to kvfree(). */
bool dio_quarantine_memory(struct dio_dev *dev, void *memory, size_t bytes)
{
	return dio_quarantine_add(dev, &(struct dio_leaked) {
		.memory = memory, .pages = DIV_ROUND_UP(bytes, PAGE_SIZE),
	}, DIO_FAULT_ARRAY_LEAK);
}

/* For how many pages it stood. */
static u32 dio_release_leaked(struct dio_dev *dev, struct dio_leaked *leaked)
{
	u32 pages = leaked->pages;

	if (leaked->page)
		dio_give_back_page(dev, leaked->page, leaked->hold);
	kvfree(leaked->memory);
	kfree(leaked);
	return pages;
}

/* Puts a finished request aside, untold. */
void dio_quarantine_request(struct dio_request *req)
{
	struct dio_dev *dev = req->file->dev;
	struct dio_faults *f = &dev->faults;
	unsigned long flags;

	spin_lock_irqsave(&f->lock, flags);
	/* Its removal has emptied this, or is about to. */
	if (dio_gone(dev)) {
		spin_unlock_irqrestore(&f->lock, flags);
		dio_request_tell(req);
		return;
	}
	req->release_at = jiffies +
			  msecs_to_jiffies(f->state[DIO_FAULT_LOST_COMPLETE].hold_ms);
	list_add_tail(&req->link, &f->requests);
	f->nr_requests++;
	dio_give_back_by(f, req->release_at);
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

static u64 dio_release_all_leaked(struct dio_dev *dev, struct list_head *list)
{
	struct dio_leaked *leaked, *next;
	u64 pages = 0;

	list_for_each_entry_safe(leaked, next, list, link)
		pages += dio_release_leaked(dev, leaked);
	return pages;
}

static void dio_give_back(struct work_struct *work)
{
	struct dio_faults *f = container_of(work, struct dio_faults, give_back.work);
	struct dio_dev *dev = container_of(f, struct dio_dev, faults);
	struct dio_leaked *leaked, *next_leaked;
	struct dio_request *req, *next;
	unsigned long flags;
	LIST_HEAD(requests);
	LIST_HEAD(pages);

	spin_lock_irqsave(&f->lock, flags);
	list_for_each_entry_safe(req, next, &f->requests, link) {
		if (time_after_eq(jiffies, req->release_at)) {
			list_move_tail(&req->link, &requests);
			f->nr_requests--;
		} else {
			dio_give_back_by(f, req->release_at);
		}
	}
	list_for_each_entry_safe(leaked, next_leaked, &f->pages, link) {
		if (!leaked->ripens)
			continue;
		if (time_after_eq(jiffies, leaked->release_at)) {
			list_move_tail(&leaked->link, &pages);
			f->nr_pages -= leaked->pages;
		} else {
			dio_give_back_by(f, leaked->release_at);
		}
	}
	spin_unlock_irqrestore(&f->lock, flags);

	dio_release_all_leaked(dev, &pages);
	dio_tell_parked(&requests);
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
	LIST_HEAD(requests_list);
	LIST_HEAD(pages_list);
	unsigned long flags;

	spin_lock_irqsave(&f->lock, flags);
	list_splice_init(&f->pages, &pages_list);
	list_splice_init(&f->requests, &requests_list);
	f->nr_pages = 0;
	f->nr_requests = 0;
	spin_unlock_irqrestore(&f->lock, flags);

	*pages = dio_release_all_leaked(dev, &pages_list);
	*requests = dio_tell_parked(&requests_list);
}
