/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bugs on purpose: fault.c says when, fault_pages.c commits those that have to do
 * with pages, quarantine.c keeps what they put aside.
 */
#ifndef _DIO_FAULT_H
#define _DIO_FAULT_H

#include <linux/jump_label.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include "uapi/dio.h"

#define DIO_QUARANTINE_PAGES	65536	/* the most that faults leak at a time, by one more array */

struct dio_call;
struct dio_dev;
struct dio_io;
struct dio_request;
struct page;

struct dio_fault_state {
	u32 every;
	u32 hold_ms;
	u64 left;		/* commits left when limited */
	u64 occasions;
	u64 committed;
	bool armed;
	bool limited;
};

struct dio_faults {
	struct mutex arm_lock;	/* arming and disarming move the static key in step */
	spinlock_t lock;	/* all below */
	struct dio_fault_state state[DIO_FAULT_COUNT];
	struct list_head pages;		/* struct dio_leaked */
	struct list_head requests;	/* dio_request.link, earliest first */
	u64 nr_pages;
	u64 nr_requests;
	unsigned long give_back_at;	/* jiffies, while that is pending */
	struct delayed_work give_back;	/* of what is held for hold_ms */
};

DECLARE_STATIC_KEY_FALSE(dio_faults_armed);

bool __dio_fault_hit(struct dio_dev *dev, enum dio_fault_id id);

/* True when @id is to be committed now; false costs one static branch. */
static inline bool dio_fault_hit(struct dio_dev *dev, enum dio_fault_id id)
{
	return static_branch_unlikely(&dio_faults_armed) && __dio_fault_hit(dev, id);
}

void dio_faults_init(struct dio_dev *dev);
void dio_faults_disarm(struct dio_dev *dev);
void dio_faults_exit(struct dio_dev *dev);
int dio_fault_arm(struct dio_dev *dev, const struct dio_fault *fault);
int dio_fault_get(struct dio_dev *dev, struct dio_fault *fault);
int dio_fault_clear(struct dio_dev *dev, const struct dio_fault *fault);
bool dio_fault_armed(struct dio_dev *dev, enum dio_fault_id id);

/* fault_pages.c: each to be called when something is armed */
void dio_fault_take(struct dio_call *call);
u32 dio_fault_move(struct dio_dev *dev, struct dio_io *io);
u32 dio_fault_release(struct dio_dev *dev, struct dio_io *io, u32 dirty);

void dio_quarantine_init(struct dio_dev *dev);
bool dio_quarantine_has_room(struct dio_dev *dev);
bool dio_quarantine_page(struct dio_dev *dev, struct page *page, u8 hold,
			 enum dio_fault_id id);
bool dio_quarantine_memory(struct dio_dev *dev, void *memory, size_t bytes);
void dio_give_back_page(struct dio_dev *dev, struct page *page, u8 hold);
void dio_quarantine_request(struct dio_request *req);
void dio_quarantine_count(struct dio_dev *dev, u64 *pages, u64 *requests);
void dio_quarantine_drain(struct dio_dev *dev, u64 *pages, u64 *requests);

#endif /* _DIO_FAULT_H */
