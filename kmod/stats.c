// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters: per CPU, never stopped, never written by a reader. A reset keeps
 * the sums of its moment as the base of later readings, so no count is lost.
 */
#include "dio.h"

static void dio_stats_sum(struct dio_dev *dev, struct dio_stats *sum)
{
	int cpu;

	*sum = (struct dio_stats) {};
	for_each_possible_cpu(cpu) {
		const struct dio_counters *c = per_cpu_ptr(dev->counters, cpu);

		sum->reads += READ_ONCE(c->reads);
		sum->writes += READ_ONCE(c->writes);
		sum->bytes_read += READ_ONCE(c->bytes_read);
		sum->bytes_written += READ_ONCE(c->bytes_written);
		sum->bytes_copied += READ_ONCE(c->bytes_copied);
		sum->pages_pinned += READ_ONCE(c->pages_pinned);
		sum->pages_released += READ_ONCE(c->pages_released);
		sum->pages_dirtied += READ_ONCE(c->pages_dirtied);
		sum->submitted += READ_ONCE(c->submitted);
		sum->queued += READ_ONCE(c->queued);
		sum->completed += READ_ONCE(c->completed);
		sum->cancelled += READ_ONCE(c->cancelled);
		sum->failed += READ_ONCE(c->failed);
		sum->depth_waits += READ_ONCE(c->depth_waits);
		sum->stalls += READ_ONCE(c->stalls);
		sum->seeks += READ_ONCE(c->seeks);
		sum->injected_errors += READ_ONCE(c->injected_errors);
		sum->injected_shorts += READ_ONCE(c->injected_shorts);
		sum->injected_delays += READ_ONCE(c->injected_delays);
		sum->injected_reorders += READ_ONCE(c->injected_reorders);
		sum->discards += READ_ONCE(c->discards);
		sum->bytes_discarded += READ_ONCE(c->bytes_discarded);
		sum->dma_segments += READ_ONCE(c->dma_segments);
		sum->dma_bounced += READ_ONCE(c->dma_bounced);
		sum->dma_timeouts += READ_ONCE(c->dma_timeouts);
		sum->interrupts += READ_ONCE(c->interrupts);
		sum->faults_committed += READ_ONCE(c->faults_committed);
	}
}

/* Reads the counters into @stats, but for its size and flags. */
int dio_stats_read(struct dio_dev *dev, struct dio_stats *stats, bool reset)
{
	struct dio_stats *base = &dev->counter_base;
	struct dio_stats sum;

	if (mutex_lock_killable(&dev->config_lock))
		return -EINTR;

	dio_stats_sum(dev, &sum);
	*stats = (struct dio_stats) {
		.reads = sum.reads - base->reads,
		.writes = sum.writes - base->writes,
		.bytes_read = sum.bytes_read - base->bytes_read,
		.bytes_written = sum.bytes_written - base->bytes_written,
		.bytes_copied = sum.bytes_copied - base->bytes_copied,
		.pages_pinned = sum.pages_pinned - base->pages_pinned,
		.pages_released = sum.pages_released - base->pages_released,
		.pages_dirtied = sum.pages_dirtied - base->pages_dirtied,
		.submitted = sum.submitted - base->submitted,
		.queued = sum.queued - base->queued,
		.completed = sum.completed - base->completed,
		.cancelled = sum.cancelled - base->cancelled,
		.failed = sum.failed - base->failed,
		.depth_waits = sum.depth_waits - base->depth_waits,
		.stalls = sum.stalls - base->stalls,
		.seeks = sum.seeks - base->seeks,
		.injected_errors = sum.injected_errors - base->injected_errors,
		.injected_shorts = sum.injected_shorts - base->injected_shorts,
		.injected_delays = sum.injected_delays - base->injected_delays,
		.injected_reorders = sum.injected_reorders - base->injected_reorders,
		.discards = sum.discards - base->discards,
		.bytes_discarded = sum.bytes_discarded - base->bytes_discarded,
		.dma_segments = sum.dma_segments - base->dma_segments,
		.dma_bounced = sum.dma_bounced - base->dma_bounced,
		.dma_timeouts = sum.dma_timeouts - base->dma_timeouts,
		.interrupts = sum.interrupts - base->interrupts,
		.faults_committed = sum.faults_committed - base->faults_committed,
		.in_flight = dio_flight_count(dev),
		.in_flight_peak = atomic_read(&dev->in_flight_peak),
		.head = READ_ONCE(dev->schedule.head),
		.store_pages = atomic_long_read(&dev->store.count),
		.buffers = atomic_read(&dev->buffers),
		.buffer_pages = atomic_long_read(&dev->buffer_pages),
	};
	dio_quarantine_count(dev, &stats->quarantined_pages,
			     &stats->quarantined_requests);

	if (reset) {
		*base = sum;
		atomic_set(&dev->in_flight_peak, dio_flight_count(dev));
	}
	mutex_unlock(&dev->config_lock);
	return 0;
}
