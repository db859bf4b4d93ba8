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

/*
 * What was counted since @base: none, if it had counted a call that turned out not
 * to have begun, which is taken back.
 */
static u64 dio_since(u64 sum, u64 base)
{
	return max_t(s64, sum - base, 0);
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
		.reads = dio_since(sum.reads, base->reads),
		.writes = dio_since(sum.writes, base->writes),
		.bytes_read = dio_since(sum.bytes_read, base->bytes_read),
		.bytes_written = dio_since(sum.bytes_written, base->bytes_written),
		.bytes_copied = dio_since(sum.bytes_copied, base->bytes_copied),
		.pages_pinned = dio_since(sum.pages_pinned, base->pages_pinned),
		.pages_released = dio_since(sum.pages_released, base->pages_released),
		.pages_dirtied = dio_since(sum.pages_dirtied, base->pages_dirtied),
		.submitted = dio_since(sum.submitted, base->submitted),
		.queued = dio_since(sum.queued, base->queued),
		.completed = dio_since(sum.completed, base->completed),
		.cancelled = dio_since(sum.cancelled, base->cancelled),
		.failed = dio_since(sum.failed, base->failed),
		.depth_waits = dio_since(sum.depth_waits, base->depth_waits),
		.stalls = dio_since(sum.stalls, base->stalls),
		.seeks = dio_since(sum.seeks, base->seeks),
		.injected_errors = dio_since(sum.injected_errors, base->injected_errors),
		.injected_shorts = dio_since(sum.injected_shorts, base->injected_shorts),
		.injected_delays = dio_since(sum.injected_delays, base->injected_delays),
		.injected_reorders = dio_since(sum.injected_reorders, base->injected_reorders),
		.discards = dio_since(sum.discards, base->discards),
		.bytes_discarded = dio_since(sum.bytes_discarded, base->bytes_discarded),
		.dma_segments = dio_since(sum.dma_segments, base->dma_segments),
		.dma_bounced = dio_since(sum.dma_bounced, base->dma_bounced),
		.dma_timeouts = dio_since(sum.dma_timeouts, base->dma_timeouts),
		.interrupts = dio_since(sum.interrupts, base->interrupts),
		.faults_committed = dio_since(sum.faults_committed, base->faults_committed),
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
