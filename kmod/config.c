// SPDX-License-Identifier: GPL-2.0-only
/*
 * The configuration. Settings are replaced as a whole under RCU; a request copies
 * what it needs when it enters.
 */
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "dio.h"

#define DIO_CONFIG_TIMING	(DIO_CONFIG_BANDWIDTH | DIO_CONFIG_JITTER |	\
				 DIO_CONFIG_REPOSITION | DIO_CONFIG_SEED |	\
				 DIO_CONFIG_DISTRIBUTION | DIO_CONFIG_QUEUE_DEPTH)

#define DIO_CONFIG_ALL	(DIO_CONFIG_MODEL | DIO_CONFIG_FAMILY |		\
			 DIO_CONFIG_COMPLETION | DIO_CONFIG_LATENCY |	\
			 DIO_CONFIG_CAPACITY | DIO_CONFIG_STORE_LIMIT |	\
			 DIO_CONFIG_MAX_REQUEST |			\
			 DIO_CONFIG_MAX_IN_FLIGHT_FILE |		\
			 DIO_CONFIG_MAX_IN_FLIGHT | DIO_CONFIG_TIMING)

int dio_settings_init(struct dio_dev *dev)
{
	struct dio_settings *s;
	u64 memory = (u64)totalram_pages() << PAGE_SHIFT;

	s = kzalloc_obj(*s, GFP_KERNEL);
	if (!s)
		return -ENOMEM;
	/* Removal can't fail. */
	dev->last_settings = kzalloc_obj(*s, GFP_KERNEL);
	if (!dev->last_settings) {
		kfree(s);
		return -ENOMEM;
	}

	s->params.model = dev->backend ? dev->backend->model : DIO_MODEL_RAM;
	s->params.family = DIO_FAMILY_PIN;
	s->params.completion = dev->backend ? DIO_COMPLETION_WORKER : DIO_COMPLETION_AUTO;
	s->params.capacity = dev->backend ? dev->backend->capacity : SZ_1G;
	s->params.max_request = SZ_64M;
	s->params.max_in_flight_file = 65536;
	s->params.max_in_flight = 131072;
	s->timing.bandwidth = 100 * 1000 * 1000;
	s->timing.reposition_ns = 50 * NSEC_PER_MSEC;
	s->timing.queue_depth = 32;
	s->store_limit = min_t(u64, s->params.capacity, PAGE_ALIGN(memory / 4));

	WRITE_ONCE(dev->store.limit, s->store_limit >> PAGE_SHIFT);
	rcu_assign_pointer(dev->settings, s);
	return 0;
}

/* Nobody reads them any more. */
void dio_settings_exit(struct dio_dev *dev)
{
	kfree(rcu_dereference_protected(dev->settings, true));
	kfree(dev->last_settings);
}

u64 dio_capacity(struct dio_dev *dev)
{
	u64 capacity;

	rcu_read_lock();
	capacity = rcu_dereference(dev->settings)->params.capacity;
	rcu_read_unlock();
	return capacity;
}

void dio_get_config(struct dio_dev *dev, struct dio_config *config)
{
	const struct dio_settings *s;

	rcu_read_lock();
	s = rcu_dereference(dev->settings);
	*config = (struct dio_config) {
		.fields = DIO_CONFIG_ALL,
		.model = s->params.model,
		.family = s->params.family,
		.completion = s->params.completion,
		.latency_ns = s->params.latency_ns,
		.capacity = s->params.capacity,
		.store_limit = s->store_limit,
		.max_request = s->params.max_request,
		.max_in_flight_file = s->params.max_in_flight_file,
		.max_in_flight = s->params.max_in_flight,
		.bandwidth = s->timing.bandwidth,
		.jitter_ns = s->timing.jitter_ns,
		.reposition_ns = s->timing.reposition_ns,
		.seed = s->timing.seed,
		.distribution = s->timing.distribution,
		.queue_depth = s->timing.queue_depth,
	};
	rcu_read_unlock();
}

static bool dio_bad_size(u64 bytes, u64 max)
{
	return bytes < PAGE_SIZE || bytes > max || !PAGE_ALIGNED(bytes);
}

static bool dio_bad_limit(u32 requests)
{
	return requests < 1 || requests > DIO_IN_FLIGHT_MAX;
}

static int dio_apply_timing(struct dio_timing *t, const struct dio_config *c)
{
	if (c->fields & DIO_CONFIG_BANDWIDTH) {
		if (c->bandwidth && (c->bandwidth < DIO_BANDWIDTH_MIN ||
				     c->bandwidth > DIO_BANDWIDTH_MAX))
			return -EINVAL;
		t->bandwidth = c->bandwidth;
	}
	if (c->fields & DIO_CONFIG_JITTER) {
		if (c->jitter_ns > DIO_LATENCY_MAX_NS)
			return -EINVAL;
		t->jitter_ns = c->jitter_ns;
	}
	if (c->fields & DIO_CONFIG_REPOSITION) {
		if (c->reposition_ns > DIO_LATENCY_MAX_NS)
			return -EINVAL;
		t->reposition_ns = c->reposition_ns;
	}
	if (c->fields & DIO_CONFIG_SEED)
		t->seed = c->seed;
	if (c->fields & DIO_CONFIG_DISTRIBUTION) {
		if (c->distribution > DIO_DISTRIBUTION_EXPONENTIAL)
			return -EINVAL;
		t->distribution = c->distribution;
	}
	if (c->fields & DIO_CONFIG_QUEUE_DEPTH) {
		if (c->queue_depth < 1 || c->queue_depth > DIO_QUEUE_DEPTH_MAX)
			return -EINVAL;
		t->queue_depth = c->queue_depth;
	}
	return 0;
}

/* Puts the fields of @c that are set over @s. */
static int dio_apply(struct dio_settings *s, const struct dio_config *c)
{
	struct dio_params *p = &s->params;

	if (c->flags || c->reserved || c->fields & ~DIO_CONFIG_ALL)
		return -EINVAL;

	if (c->fields & DIO_CONFIG_MODEL) {
		if (c->model > DIO_MODEL_TAPE && c->model != p->model)
			return -EINVAL;
		p->model = c->model;
	}
	if (c->fields & DIO_CONFIG_FAMILY) {
		if (c->family > DIO_FAMILY_GET)
			return -EINVAL;
		p->family = c->family;
	}
	if (c->fields & DIO_CONFIG_COMPLETION) {
		if (c->completion > DIO_COMPLETION_TIMER)
			return -EINVAL;
		p->completion = c->completion;
	}
	if (c->fields & DIO_CONFIG_LATENCY) {
		if (c->latency_ns > DIO_LATENCY_MAX_NS)
			return -EINVAL;
		p->latency_ns = c->latency_ns;
	}
	if (c->fields & DIO_CONFIG_CAPACITY) {
		if (dio_bad_size(c->capacity, DIO_CAPACITY_MAX))
			return -EINVAL;
		p->capacity = c->capacity;
	}
	if (c->fields & DIO_CONFIG_STORE_LIMIT) {
		if (dio_bad_size(c->store_limit, U64_MAX))
			return -EINVAL;
		s->store_limit = c->store_limit;
	}
	if (c->fields & DIO_CONFIG_MAX_REQUEST) {
		if (dio_bad_size(c->max_request, DIO_REQUEST_MAX))
			return -EINVAL;
		p->max_request = c->max_request;
	}
	if (c->fields & DIO_CONFIG_MAX_IN_FLIGHT_FILE) {
		if (dio_bad_limit(c->max_in_flight_file))
			return -EINVAL;
		p->max_in_flight_file = c->max_in_flight_file;
	}
	if (c->fields & DIO_CONFIG_MAX_IN_FLIGHT) {
		if (dio_bad_limit(c->max_in_flight))
			return -EINVAL;
		p->max_in_flight = c->max_in_flight;
	}

	/* Served by the caller at once: there is nobody to wait for. */
	if (p->completion == DIO_COMPLETION_INLINE && dio_takes_time(p))
		return -EINVAL;
	return dio_apply_timing(&s->timing, c);
}

/* Hardware is what it is: whether @new would have it otherwise than @old. */
static bool dio_beyond_hardware(const struct dio_settings *old,
				const struct dio_settings *new)
{
	const struct dio_params *p = &new->params;

	return p->model != old->params.model ||
	       p->capacity != old->params.capacity || p->latency_ns ||
	       p->completion != old->params.completion ||
	       new->store_limit != old->store_limit ||
	       memcmp(&new->timing, &old->timing, sizeof(new->timing));
}

static struct dio_settings *dio_locked_settings(struct dio_dev *dev)
{
	return rcu_dereference_protected(dev->settings,
					 lockdep_is_held(&dev->config_lock));
}

int dio_set_config(struct dio_dev *dev, const struct dio_config *config)
{
	struct dio_settings *old, *new;
	int ret;

	new = kmalloc_obj(*new, GFP_KERNEL);
	if (!new)
		return -ENOMEM;

	if (mutex_lock_killable(&dev->config_lock)) {
		ret = -EINTR;
		goto out_free;
	}

	if (dev->gone) {
		ret = -ENODEV;
		goto out_unlock;
	}
	old = dio_locked_settings(dev);
	*new = *old;
	ret = dio_apply(new, config);
	if (!ret && dev->backend && dio_beyond_hardware(old, new))
		ret = -EINVAL;
	if (ret)
		goto out_unlock;

	if (new->params.capacity < old->params.capacity) {
		ret = dio_shrink(dev, old, new);
		if (ret)
			goto out_unlock;
	} else {
		rcu_assign_pointer(dev->settings, new);
	}
	WRITE_ONCE(dev->store.limit, new->store_limit >> PAGE_SHIFT);
	if (config->fields & (DIO_CONFIG_TIMING | DIO_CONFIG_MODEL))
		dio_schedule_reset(dev, &new->timing);
	mutex_unlock(&dev->config_lock);
	kfree_rcu(old, rcu);
	return 0;

out_unlock:
	mutex_unlock(&dev->config_lock);
out_free:
	kfree(new);
	return ret;
}
