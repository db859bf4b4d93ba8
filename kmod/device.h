/* SPDX-License-Identifier: GPL-2.0-only */
/* The device and its open files, their configuration and counters. */
#ifndef _DIO_DEVICE_H
#define _DIO_DEVICE_H

#include <linux/atomic.h>
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/llist.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "uapi/dio.h"
#include "fault.h"
#include "inject.h"
#include "schedule.h"
#include "store.h"

struct dio_backend;
struct dio_call;

#define DIO_NAME		"dio"
#define DIO_EPOCH_POLLED	2	/* dio_dev.in_flight's, beside the two that take turns */
#define DIO_EPOCHS		3
#define DIO_EPOCH_CALLERS	3	/* dio_request.epoch: its caller is in flight for it */

/* What a request needs of the configuration; copied when it begins. */
struct dio_params {
	u64 latency_ns;
	u64 capacity;
	u32 max_request;
	u32 max_in_flight_file;
	u32 max_in_flight;
	u8 model;		/* enum dio_model */
	u8 family;		/* enum dio_family */
	u8 completion;		/* enum dio_completion */
};

/* Whether the model keeps its own time: schedule.c. */
static inline bool dio_timed(const struct dio_params *params)
{
	return params->model == DIO_MODEL_DISK || params->model == DIO_MODEL_TAPE;
}

/* Whether the device takes time at all. */
static inline bool dio_takes_time(const struct dio_params *params)
{
	return params->latency_ns || dio_timed(params);
}

/* Who may begin. */
enum dio_gate {
	DIO_GATE_OPEN,
	DIO_GATE_CLOSED,	/* nobody: config_lock's holder wants the device idle */
	DIO_GATE_GONE,		/* nobody, for the device is */
};

struct dio_settings {
	struct rcu_head rcu;
	u8 gate;		/* enum dio_gate */
	u64 store_limit;
	struct dio_params params;
	struct dio_timing timing;
};

/* Per CPU, each with its own counts; sums are exact once nobody begins. */
struct dio_counters {
	u64 entered;		/* requests (and mmap calls) begun and ended: the gate's */
	u64 left;
	u64 next_req;		/* the last request number given out here */
	u64 reads;
	u64 writes;
	u64 bytes_read;
	u64 bytes_written;
	u64 bytes_copied;
	u64 pages_pinned;
	u64 pages_released;
	u64 pages_dirtied;
	u64 submitted;
	u64 queued;
	u64 completed;
	u64 cancelled;
	u64 failed;
	u64 faults_committed;
	u64 depth_waits;
	u64 stalls;
	u64 seeks;
	u64 discards;
	u64 bytes_discarded;
	u64 injected_errors;
	u64 injected_shorts;
	u64 injected_delays;
	u64 injected_reorders;
	u64 dma_segments;
	u64 dma_bounced;
	u64 dma_timeouts;
	u64 interrupts;
	/* Requests that were queued here, until they're finished. */
	spinlock_t lock ____cacheline_aligned_in_smp;	/* interrupts off */
	struct list_head waiting;
	/* Requests whose time has come, for this CPU's work item. */
	struct llist_head due;
	struct work_struct work;
};

struct dio_dev {
	struct device dev;
	struct cdev cdev;
	u32 index;			/* the N of its name */
	bool gone;			/* removed: set once, under config_lock */
	const struct dio_backend *backend;	/* NULL: the software models */
	void *hardware;			/* the backend's own */
	struct dio_settings __rcu *settings;
	struct dio_counters __percpu *counters;
	struct workqueue_struct *wq;
	struct dio_store store;
	struct dio_schedule schedule;
	atomic_t mappings;		/* vmas of the store */
	atomic_t buffers;		/* registered ones, and unregistered ones in use */
	atomic_long_t buffer_pages;

	/*
	 * Requests that wait, by the parity of the fsync that will wait for them;
	 * polled ones, for which none does, apart.
	 */
	atomic_t in_flight[DIO_EPOCHS] ____cacheline_aligned_in_smp;
	atomic_t in_flight_peak;
	unsigned int epoch;		/* changed under fsync_lock */
	wait_queue_head_t idle;
	struct mutex fsync_lock;	/* one fsync flips the epoch at a time */

	struct mutex files_lock;	/* the list below */
	struct list_head files;		/* struct dio_file */
	wait_queue_head_t removal;	/* woken by it */

	struct dio_settings *last_settings;	/* what removal will put in force */
	struct mutex config_lock;	/* settings and counter_base are replaced */
	struct dio_stats counter_base;	/* sums at the last reset */
	struct dio_faults faults;
	struct dio_injection inject;
};

struct dio_file {
	struct dio_dev *dev;
	struct file *filp;
	struct list_head link;		/* in dio_dev.files */
	atomic_t in_flight;
	struct task_struct *splicer;	/* within ->splice_read() for DIO_FAULT_SYNC_AS_ASYNC */
	struct mutex splice_lock;
	struct xarray buffers;		/* struct dio_buffer by id */
	struct dio_own_mapping mapping;	/* where open(2) wants one */
};

#define dio_count(dev, field)		this_cpu_inc((dev)->counters->field)
#define dio_add(dev, field, n)		this_cpu_add((dev)->counters->field, n)

static __always_inline void dio_moved(struct dio_dev *dev, bool write, u32 bytes)
{
	if (write)
		dio_add(dev, bytes_written, bytes);
	else
		dio_add(dev, bytes_read, bytes);
}

/* Unique since the device was bound, without a shared counter. */
static inline u64 dio_next_req(struct dio_dev *dev)
{
	return this_cpu_add_return(dev->counters->next_req, nr_cpu_ids);
}

static inline bool dio_gone(const struct dio_dev *dev)
{
	return READ_ONCE(dev->gone);
}

/* device.c: a device's life */
struct dio_dev *dio_dev_create(struct device *parent, const char *format, u32 index,
			       const struct dio_backend *backend, void *hardware);
int dio_dev_show(struct dio_dev *dev);
void dio_dev_remove(struct dio_dev *dev);
void dio_devices_exit(void);

/* config.c: the configuration */
int dio_settings_init(struct dio_dev *dev);
void dio_settings_exit(struct dio_dev *dev);
void dio_get_config(struct dio_dev *dev, struct dio_config *config);
int dio_set_config(struct dio_dev *dev, const struct dio_config *config);
u64 dio_capacity(struct dio_dev *dev);

/* gate.c: who is in, and keeping others out */
int dio_enter_closed(struct dio_dev *dev, struct dio_params *params, bool nowait);
int dio_shrink(struct dio_dev *dev, struct dio_settings *old,
	       struct dio_settings *new);
int dio_drop(struct dio_dev *dev, u64 pos, u64 end);
void dio_shut(struct dio_dev *dev);

/* Fills @params and counts the caller in, unless the gate is closed. */
static inline bool dio_enter_open(struct dio_dev *dev, struct dio_params *params)
{
	const struct dio_settings *s;
	bool open;

	/* As good as rcu_read_lock(), which is a call on preemptible kernels. */
	preempt_disable();
	s = rcu_dereference_sched(dev->settings);
	open = s->gate == DIO_GATE_OPEN;
	if (likely(open)) {
		dio_count(dev, entered);
		*params = s->params;
	}
	preempt_enable();
	return open;
}

/*
 * Begins a request: fills @params and counts it in, until dio_leave(). Waits
 * only while a change of configuration has the gate closed. ENODEV: removed.
 */
static inline int dio_enter(struct dio_dev *dev, struct dio_params *params, bool nowait)
{
	return likely(dio_enter_open(dev, params)) ? 0 :
	       dio_enter_closed(dev, params, nowait);
}

static inline void dio_leave(struct dio_dev *dev)
{
	this_cpu_inc(dev->counters->left);
}

/* stats.c */
int dio_stats_read(struct dio_dev *dev, struct dio_stats *stats, bool reset);

/* flight.c: how many wait, and waiting for them */
int dio_flight_begin(struct dio_file *file, const struct dio_params *params, bool polled);
void dio_flight_end(struct dio_file *file, unsigned int epoch);
unsigned int dio_flight_awaited(struct dio_dev *dev);
unsigned int dio_flight_count(struct dio_dev *dev);
int dio_flight_nap(const struct dio_call *call);
int dio_fsync_try(struct dio_dev *dev);
int dio_fsync(struct file *file, loff_t start, loff_t end, int datasync);

/* mmap.c */
int dio_mmap(struct file *file, struct vm_area_struct *vma);
void dio_unmap(struct dio_dev *dev);

/* chrdev.c */
int dio_chrdev_init(void);
void dio_chrdev_exit(void);
int dio_chrdev_add(struct dio_dev *dev);
void dio_chrdev_del(struct dio_dev *dev);

#endif /* _DIO_DEVICE_H */
