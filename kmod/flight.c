// SPDX-License-Identifier: GPL-2.0-only
/*
 * How many requests wait, the limits on that, and fsync, which waits for them.
 *
 * An fsync waits for the requests that were in flight when it began, not for
 * later ones, or it might never end. So requests are counted by epoch, of which
 * there are two: fsync turns to the other one and waits for the old one to run
 * dry.
 *
 * Polled requests are counted apart. They end when their owner polls, which may
 * be never: an fsync that waited for them could be held up by anybody.
 *
 * Who copies is in flight until the bytes are there, and may fault the caller's memory
 * in meanwhile. So nothing that such a fault takes is held by who waits in fsync.
 */
#include <linux/hrtimer.h>
#include <linux/sched/signal.h>

#include "dio.h"

/*
 * Counts a request in: its epoch, or -EAGAIN when there are too many. Those that come
 * together for the last room may all get that: the limit holds, without a lock.
 */
int dio_flight_begin(struct dio_file *file, const struct dio_params *params, bool polled)
{
	struct dio_dev *dev = file->dev;
	unsigned int epoch = polled ? DIO_EPOCH_POLLED : READ_ONCE(dev->epoch);
	int total, peak;

	if (atomic_inc_return(&file->in_flight) > params->max_in_flight_file) {
		atomic_dec(&file->in_flight);
		return -EAGAIN;
	}

	atomic_inc(&dev->in_flight[epoch]);
	smp_mb__after_atomic();		/* of two that come together, one sees both */
	total = dio_flight_count(dev);
	if (total > params->max_in_flight) {
		dio_flight_end(file, epoch);
		return -EAGAIN;
	}

	peak = atomic_read(&dev->in_flight_peak);
	while (total > peak &&
	       !atomic_try_cmpxchg(&dev->in_flight_peak, &peak, total))
		;
	return epoch;
}

/*
 * The file is there until the request is told, so call this before. One that its
 * caller is in flight for isn't ended here, but by who copies.
 */
void dio_flight_end(struct dio_file *file, unsigned int epoch)
{
	struct dio_dev *dev = file->dev;

	if (epoch == DIO_EPOCH_CALLERS)
		return;
	atomic_dec(&file->in_flight);
	if (atomic_dec_and_test(&dev->in_flight[epoch]) && wq_has_sleeper(&dev->idle))
		wake_up(&dev->idle);
}

/* Those that an fsync would wait for. */
unsigned int dio_flight_awaited(struct dio_dev *dev)
{
	return atomic_read(&dev->in_flight[0]) + atomic_read(&dev->in_flight[1]);
}

unsigned int dio_flight_count(struct dio_dev *dev)
{
	return dio_flight_awaited(dev) + atomic_read(&dev->in_flight[DIO_EPOCH_POLLED]);
}

/*
 * The time that the copying path takes: slept through by the caller, who is in flight
 * and stays so until the bytes are moved. Killable.
 */
int dio_flight_nap(const struct dio_call *call)
{
	struct dio_dev *dev = call->dev;
	DEFINE_WAIT(wait);
	ktime_t until;
	int ret = 0;

	dio_count(dev, queued);
	until = ns_to_ktime(dio_schedule(dev, &call->params, call->pos,
					 iov_iter_count(call->iter)));

	for (;;) {
		prepare_to_wait(&dev->removal, &wait, TASK_KILLABLE);
		if (fatal_signal_pending(current))
			ret = -EINTR;
		else if (dio_gone(dev))
			ret = -ENODEV;
		if (ret || !schedule_hrtimeout(&until, HRTIMER_MODE_ABS))
			break;
	}
	finish_wait(&dev->removal, &wait);
	return ret;
}

static int dio_wait_dry(struct dio_dev *dev, unsigned int epoch)
{
	return wait_event_killable(dev->idle, !atomic_read(&dev->in_flight[epoch])) ?
	       -EINTR : 0;
}

/* fsync that never waits: -EAGAIN when it would have to. */
int dio_fsync_try(struct dio_dev *dev)
{
	if (dio_gone(dev))
		return -ENODEV;
	return dio_flight_awaited(dev) ? -EAGAIN : 0;
}

/* Nothing is cached, so there is nothing to write back: the range doesn't matter. */
int dio_fsync(struct file *filp, loff_t start, loff_t end, int datasync)
{
	struct dio_file *file = filp->private_data;
	struct dio_dev *dev = file->dev;
	unsigned int epoch;
	int ret;

	ret = dio_fsync_try(dev);
	if (ret != -EAGAIN)
		return ret;
	if (mutex_lock_killable(&dev->fsync_lock))
		return -EINTR;

	epoch = dev->epoch;
	/* What a killed fsync didn't wait for. */
	ret = dio_wait_dry(dev, !epoch);
	if (!ret) {
		WRITE_ONCE(dev->epoch, !epoch);
		ret = dio_wait_dry(dev, epoch);
	}
	mutex_unlock(&dev->fsync_lock);
	return ret;
}
