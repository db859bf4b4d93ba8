/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dio: what the files of the driver share.
 *
 * Objects and who keeps them
 * --------------------------
 * struct dio_dev       The device. Made when it's bound, gone when it's unbound:
 *                      then nobody can begin a request any more. Freed when the
 *                      last open file is closed, which each kiocb and each
 *                      mapping holds; that keeps the module, too.
 * struct dio_file      An open file. Freed in ->release().
 * struct dio_buffer    Registered memory: its pages, and the charge for them.
 *                      Reference counted: the id in the file has one, and so
 *                      has each call and each dio_io that uses it.
 * struct dio_io        What one request holds: the caller's pages and where its
 *                      bytes go. On the caller's stack for a request that is
 *                      served at once; else inside a struct dio_request.
 * struct dio_request   A request that waits: on a timer, in a worker's list, or
 *                      for its poller. From a slab; reference counted, for a
 *                      killed caller leaves while the queue still has it.
 * struct dio_settings  The configuration in force. Never changed in place:
 *                      replaced as a whole, under RCU. A request copies what it
 *                      needs when it begins and so finishes as it was begun.
 * a store page         Allocated when first written or mapped; goes when the
 *                      capacity shrinks below it, when it's discarded, or with
 *                      the device. The first two need a device that is idle and
 *                      not mapped (dio_enter(), dio_leave()), so between these
 *                      two a page found in the store stays there and needs no
 *                      reference.
 * struct dio_backend   Hardware in place of the models; dio_dev.hardware is its
 *                      own, and lives as long as the dio_dev.
 *
 * Life of a waiting request: one state word, one owner per state
 * ---------------------------------------------------------------
 *   QUEUED     the queue owns it: timer, worker's list, poller or the backend's
 *              queue. Who takes it from here wins, by one cmpxchg of the state:
 *   MOVING     the finisher (worker, timer or poller) owns it: moves the bytes,
 *              releases the pages, tells the result. Or the hardware does: then
 *              the bytes are moved, the pages unmapped, and the finisher has the
 *              rest.
 *   CANCELLED  it was cancelled first. An asynchronous one is still handed to
 *              the worker, which releases the pages and tells -ECANCELED; the
 *              pages of a synchronous one are released by the killed caller.
 *
 * An asynchronous request is told by ->ki_complete(), exactly once and last:
 * the pages are released and the request is out of every count before, and the
 * kiocb is not touched after.
 *
 * Removal takes no request from its owner: it makes those that wait due at once,
 * and who finishes one sees that the device is gone. So a request is linked into
 * its CPU's list, and its timer started, in one go.
 *
 * Lock order
 * ----------
 *   mmap_lock > dio_dev.config_lock
 *   mmap_lock > a store page's lock, or the store's xa_lock
 *   dio_dev.config_lock > dio_dev.schedule.lock
 *   dio_dev.config_lock > dio_dev.faults.lock (reading the counters)
 *   dio_dev.config_lock > the store's xa_lock (taking pages away)
 *   dio_dev.files_lock > the mappings' and page tables' locks
 *   dio_dev.files_lock > dio_file.buffers' xa_lock
 *   dio_dev.fsync_lock: alone, and waited under
 *   dio_dev.inject.arm_lock > the static key's locks, or dio_dev.inject.lock
 *   dio_dev.faults.arm_lock > the static key's locks, or dio_dev.faults.lock
 *   a pipe's mutex > dio_file.splice_lock > what a read takes (see below)
 *   a pipe's mutex or io_uring's uring_lock > what a request takes
 *   aio's ctx_lock (io_cancel) or io_uring's uring_lock > dio_counters.lock
 *   dio_counters.lock > hrtimer's and workqueue's own locks, dio_edu.lock, or
 *                       dio_dev.faults.lock
 *   dio_edu.lock > dio_edu.idle's, the timer's, workqueue's, DMA's and PCI's own locks
 *   dio_dev.inject.lock > hrtimer's and workqueue's own locks
 *   dio_dev.faults.lock > the timer's and workqueue's own locks; interrupts off
 *   dio_dev.schedule.lock, and the xa_locks of dio_file.buffers and of the store:
 *                       innermost, but for the allocator's
 * User memory is never touched under config_lock or faults.lock.
 *
 * What a request takes, one after the other: config_lock, when it finds the gate closed
 * and may wait (never under uring_lock); inject.lock, when a rule is set; schedule.lock,
 * of disk and tape; dio_counters.lock, when it's queued; the store's xa_lock, when it
 * writes where there is no page yet; the locks of pages that it marks dirty;
 * faults.lock, when a fault is armed. So what is served at once, through an open gate and
 * with nothing set or armed, takes none of the driver's, but the xa_lock for a new page.
 */
#ifndef _DIO_H
#define _DIO_H

#include <linux/atomic.h>
#include <linux/cdev.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/jump_label.h>
#include <linux/ktime.h>
#include <linux/llist.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "uapi/dio.h"
#include "backend.h"
#include "buffer.h"
#include "fault.h"
#include "inject.h"
#include "schedule.h"

#define DIO_NAME		"dio"
#define DIO_ALIGN		512	/* of addresses, lengths and offsets for O_DIRECT */
#define DIO_INLINE_PAGES	8
#define DIO_EPOCH_POLLED	2	/* dio_dev.in_flight's, beside the two that take turns */
#define DIO_EPOCHS		3
#define DIO_MODEL_BROKEN	U8_MAX	/* dio_io.model: fails with EIO */

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

struct dio_store {
	struct xarray pages;	/* struct page by offset >> PAGE_SHIFT */
	atomic_long_t count;
	unsigned long limit;	/* pages; READ_ONCE, WRITE_ONCE */
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

/* How a request came. */
enum dio_kind {
	DIO_KIND_SYNC,		/* read, write and kin: the caller waits */
	DIO_KIND_ASYNC,		/* a kiocb with ki_complete */
	DIO_KIND_POLLED,	/* the same, finished by ->iopoll() */
	DIO_KIND_IOCTL,		/* DIO_IOC_TRANSFER */
};

/* How a request's pages are held. */
enum dio_hold {
	DIO_HOLD_NONE,		/* by somebody else: a bvec */
	DIO_HOLD_PIN,
	DIO_HOLD_GET,
	DIO_HOLD_BUFFER,	/* by a registered buffer, of which this is a reference */
};

/* Bytes that follow each other in the pages of a dio_io. */
struct dio_extent {
	u32 first;		/* index of the first page */
	u32 offset;		/* in that page */
	u32 length;
};

struct dio_io {
	u64 req;		/* number, for the tracepoints */
	loff_t pos;
	struct page **pages;
	struct dio_extent *extents;
	u32 nr_pages;
	u32 nr_extents;
	u32 bytes;		/* held */
	u32 goal;		/* of these, to be moved */
	u8 write;		/* from the caller's pages to the store */
	u8 model;
	u8 kind;
	u8 hold;
	bool linear;		/* the pages follow each other, in huge pages */
	struct dio_extent inline_extent;
	u32 array_bytes;	/* of what `pages` points to, if that was allocated */
	union {
		struct page *inline_pages[DIO_INLINE_PAGES];
		struct dio_buffer *buffer;	/* DIO_HOLD_BUFFER */
	};
};

/* One call of read, write or transfer on its way in. */
struct dio_call {
	struct dio_file *file;
	struct dio_dev *dev;
	struct kiocb *iocb;		/* NULL: DIO_IOC_TRANSFER, or a command */
	struct io_uring_cmd *cmd;	/* NULL: any other */
	unsigned int issue_flags;	/* io_uring's, for cmd */
	struct iov_iter *iter;
	struct dio_buffer *buffer;	/* the memory; then iter only counts */
	u64 buffer_pos;
	loff_t pos;
	struct dio_params params;
	bool write;
	bool nowait;
	u8 kind;
	u16 injected;		/* DIO_CALL_*: what the rules decided */
};

/*
 * Of dio_call.injected: BIT(enum dio_inject_action), it's to be done; DIO_CALL_MET of
 * the action, the call was an occasion; and: the pages are a copy of the caller's.
 */
#define DIO_CALL_MET(action)	BIT(8 + (action))
#define DIO_CALL_COPIED		BIT(7)

static inline bool dio_sync(const struct dio_call *call)
{
	return call->kind == DIO_KIND_SYNC || call->kind == DIO_KIND_IOCTL;
}

/* Whether a direct call is queued, not served at once. */
static inline bool dio_must_queue(const struct dio_call *call)
{
	switch (call->params.completion) {
	case DIO_COMPLETION_INLINE:
		return false;
	case DIO_COMPLETION_WORKER:
	case DIO_COMPLETION_TIMER:
		return true;
	default:
		return dio_takes_time(&call->params) || call->kind == DIO_KIND_POLLED;
	}
}

#define dio_count(dev, field)		this_cpu_inc((dev)->counters->field)
#define dio_add(dev, field, n)		this_cpu_add((dev)->counters->field, n)

static __always_inline void dio_moved(struct dio_dev *dev, bool write, u32 bytes)
{
	if (write)
		dio_add(dev, bytes_written, bytes);
	else
		dio_add(dev, bytes_read, bytes);
}

/* Unique since the module was loaded, without a shared counter. */
static inline u64 dio_next_req(struct dio_dev *dev)
{
	return this_cpu_add_return(dev->counters->next_req, nr_cpu_ids);
}

static inline bool dio_gone(const struct dio_dev *dev)
{
	return READ_ONCE(dev->gone);
}

/* device.c: a device's life */
struct dio_dev *dio_dev_add(struct device *parent, const char *format, u32 index,
			    const struct dio_backend *backend, void *hardware);
void dio_dev_remove(struct dio_dev *dev);

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

/* store.c */
static inline gfp_t dio_store_gfp(bool nowait)
{
	return nowait ? (DIO_GFP_STORE & ~__GFP_DIRECT_RECLAIM) | __GFP_NOWARN :
			DIO_GFP_STORE;
}

void dio_store_init(struct dio_store *store);
struct page *dio_store_lookup(struct dio_store *store, pgoff_t index);
struct page *dio_store_get(struct dio_store *store, pgoff_t index, gfp_t gfp);
int dio_store_reserve(struct dio_store *store, loff_t pos, u32 bytes, gfp_t gfp,
		      u32 *got);
void dio_store_zero(struct page *page, pgoff_t index, u64 pos, u64 end);
void dio_store_drop(struct dio_store *store, u64 pos, u64 end);

/* pages.c, release.c: taking hold of the caller's pages and letting go */
void dio_io_free(struct dio_dev *dev, struct dio_io *io);
int dio_io_take(struct dio_call *call, struct dio_io *io);
void dio_io_release(struct dio_dev *dev, struct dio_io *io, ssize_t moved);

/* model.c: what the device does with the bytes */
bool dio_model_pass(struct dio_call *call);
ssize_t dio_model_move(struct dio_dev *dev, struct dio_io *io, gfp_t gfp);

/* copy.c: the same, copying */
ssize_t dio_copy(struct dio_call *call);

/* rw.c */
ssize_t dio_read_iter(struct kiocb *iocb, struct iov_iter *iter);
ssize_t dio_write_iter(struct kiocb *iocb, struct iov_iter *iter);
ssize_t dio_serve(struct dio_call *call);

/* splice.c */
bool dio_sync_as_async(struct kiocb *iocb);
ssize_t dio_splice_read(struct file *file, loff_t *pos,
			struct pipe_inode_info *pipe, size_t len,
			unsigned int flags);

/* transfer.c */
int dio_transfer(struct dio_file *file, fmode_t mode, struct dio_transfer *t);

/* flight.c: how many wait, and waiting for them */
int dio_flight_begin(struct dio_file *file, const struct dio_params *params, bool polled);
void dio_flight_end(struct dio_file *file, unsigned int epoch);
unsigned int dio_flight_awaited(struct dio_dev *dev);
unsigned int dio_flight_count(struct dio_dev *dev);
int dio_flight_nap(const struct dio_call *call);
int dio_fsync_try(struct dio_dev *dev);
int dio_fsync(struct file *file, loff_t start, loff_t end, int datasync);

/* discard.c */
int dio_discard(struct dio_file *file, fmode_t mode, struct dio_discard *d);

/* mmap.c */
int dio_mmap(struct file *file, struct vm_area_struct *vma);
void dio_unmap(struct dio_dev *dev);

/* ioctl.c */
long dio_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/* chrdev.c */
int dio_chrdev_init(void);
void dio_chrdev_exit(void);
int dio_chrdev_add(struct dio_dev *dev);
void dio_chrdev_del(struct dio_dev *dev);

#endif /* _DIO_H */
