// SPDX-License-Identifier: GPL-2.0-only
/*
 * The configuration, and the gate in front of the device.
 *
 * Settings are replaced as a whole under RCU; a request copies what it needs
 * when it enters. Entering and leaving are per-CPU counts, so the only cost on
 * the hot path is an increment each. The one change that may not happen under
 * a request, taking store pages away, closes the gate: new settings with
 * `closed` are published, and after synchronize_rcu() nobody can enter any
 * more, so that "all who entered have left" is a stable truth.
 */
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "dio.h"

#define DIO_CONFIG_ALL	(DIO_CONFIG_MODEL | DIO_CONFIG_FAMILY |		\
			 DIO_CONFIG_COMPLETION | DIO_CONFIG_LATENCY |	\
			 DIO_CONFIG_CAPACITY | DIO_CONFIG_STORE_LIMIT |	\
			 DIO_CONFIG_MAX_REQUEST |			\
			 DIO_CONFIG_MAX_IN_FLIGHT_FILE |		\
			 DIO_CONFIG_MAX_IN_FLIGHT)

int dio_settings_init(struct dio_dev *dev)
{
	struct dio_settings *s;
	u64 memory = (u64)totalram_pages() << PAGE_SHIFT;

	s = kzalloc_obj(*s, GFP_KERNEL);
	if (!s)
		return -ENOMEM;

	s->params.model = DIO_MODEL_RAM;
	s->params.family = DIO_FAMILY_PIN;
	s->params.completion = DIO_COMPLETION_AUTO;
	s->params.capacity = SZ_1G;
	s->params.max_request = SZ_64M;
	s->params.max_in_flight_file = 65536;
	s->params.max_in_flight = 131072;
	s->store_limit = min_t(u64, s->params.capacity, PAGE_ALIGN(memory / 4));

	WRITE_ONCE(dev->store.limit, s->store_limit >> PAGE_SHIFT);
	rcu_assign_pointer(dev->settings, s);
	return 0;
}

/*
 * Begins a request: fills @params and counts it in, until dio_leave(). Waits
 * only while a change of configuration has the gate closed.
 */
int dio_enter(struct dio_dev *dev, struct dio_params *params, bool nowait)
{
	const struct dio_settings *s;

	for (;;) {
		rcu_read_lock();
		s = rcu_dereference(dev->settings);
		if (likely(!s->closed)) {
			dio_count(dev, entered);
			*params = s->params;
			rcu_read_unlock();
			return 0;
		}
		rcu_read_unlock();

		if (nowait)
			return -EAGAIN;
		if (mutex_lock_killable(&dev->config_lock))
			return -EINTR;
		mutex_unlock(&dev->config_lock);
	}
}

/* Whether all who entered have left. Exact while the gate is closed. */
static bool dio_all_left(struct dio_dev *dev)
{
	u64 entered = 0, left = 0;
	int cpu;

	lockdep_assert_held(&dev->config_lock);

	for_each_possible_cpu(cpu) {
		const struct dio_counters *c = per_cpu_ptr(dev->counters, cpu);

		left += READ_ONCE(c->left);
		entered += READ_ONCE(c->entered);
	}
	return entered == left;
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

/* Puts the fields of @c that are set over @s. */
static int dio_apply(struct dio_settings *s, const struct dio_config *c)
{
	struct dio_params *p = &s->params;

	if (c->flags || c->reserved || c->fields & ~DIO_CONFIG_ALL)
		return -EINVAL;

	if (c->fields & DIO_CONFIG_MODEL) {
		if (c->model > DIO_MODEL_NULL)
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
	if (p->completion == DIO_COMPLETION_INLINE && p->latency_ns)
		return -EINVAL;
	return 0;
}

static struct dio_settings *dio_locked_settings(struct dio_dev *dev)
{
	return rcu_dereference_protected(dev->settings,
					 lockdep_is_held(&dev->config_lock));
}

/*
 * Puts @new in force, which has a smaller capacity: takes the store pages past
 * it away, from an idle device only.
 */
static int dio_shrink(struct dio_dev *dev, struct dio_settings *old,
		      struct dio_settings *new)
{
	struct dio_settings *shut;
	int ret = 0;

	lockdep_assert_held(&dev->config_lock);

	shut = kmemdup(old, sizeof(*old), GFP_KERNEL);
	if (!shut)
		return -ENOMEM;
	shut->closed = true;

	rcu_assign_pointer(dev->settings, shut);
	/* Who saw the gate open is counted in after this. */
	synchronize_rcu();
	if (!dio_all_left(dev) || atomic_read(&dev->mappings)) {
		ret = -EBUSY;
		new = old;
	} else {
		/* Leaving is no barrier: what the last ones did is done now. */
		synchronize_rcu();
		dio_store_truncate(&dev->store, new->params.capacity);
	}
	rcu_assign_pointer(dev->settings, new);
	kfree_rcu(shut, rcu);
	return ret;
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

	old = dio_locked_settings(dev);
	*new = *old;
	ret = dio_apply(new, config);
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
	mutex_unlock(&dev->config_lock);
	kfree_rcu(old, rcu);
	return 0;

out_unlock:
	mutex_unlock(&dev->config_lock);
out_free:
	kfree(new);
	return ret;
}
