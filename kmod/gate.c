// SPDX-License-Identifier: GPL-2.0-only
/*
 * The gate in front of the device.
 *
 * Entering and leaving are per-CPU counts, so the only cost on the hot path is
 * an increment each. The one change that may not happen under a request, taking
 * store pages away, closes the gate: new settings with the gate closed are published,
 * and after synchronize_rcu() nobody can enter any more, so that "all who
 * entered have left" is a stable truth.
 */
#include <linux/slab.h>

#include "dio.h"

/* The rest of dio_enter(): waits for the gate to open, or finds that it won't. */
int dio_enter_closed(struct dio_dev *dev, struct dio_params *params, bool nowait)
{
	do {
		if (dio_gone(dev))
			return -ENODEV;
		if (nowait)
			return -EAGAIN;
		if (mutex_lock_killable(&dev->config_lock))
			return -EINTR;
		mutex_unlock(&dev->config_lock);
	} while (!dio_enter_open(dev, params));
	return 0;
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

/*
 * Puts @new in force in place of @old and takes what the store has from @pos to
 * @end away; from an idle, unmapped device only, else EBUSY and @old stays.
 */
static int dio_drop_pages(struct dio_dev *dev, struct dio_settings *old,
			  struct dio_settings *new, u64 pos, u64 end)
{
	struct dio_settings *shut;
	int ret = 0;

	lockdep_assert_held(&dev->config_lock);

	shut = kmemdup(old, sizeof(*old), GFP_KERNEL);
	if (!shut)
		return -ENOMEM;
	shut->gate = DIO_GATE_CLOSED;

	rcu_assign_pointer(dev->settings, shut);
	/* Who saw the gate open is counted in after this. */
	synchronize_rcu();
	if (!dio_all_left(dev) || atomic_read(&dev->mappings)) {
		ret = -EBUSY;
		new = old;
	} else {
		/* Leaving is no barrier: what the last ones did is done now. */
		synchronize_rcu();
		dio_store_drop(&dev->store, pos, end);
	}
	rcu_assign_pointer(dev->settings, new);
	kfree_rcu(shut, rcu);
	return ret;
}

/* @new has a smaller capacity than @old. */
int dio_shrink(struct dio_dev *dev, struct dio_settings *old,
	       struct dio_settings *new)
{
	return dio_drop_pages(dev, old, new, new->params.capacity, U64_MAX);
}

/* The same for the bytes from @pos to @end, the settings kept. */
int dio_drop(struct dio_dev *dev, u64 pos, u64 end)
{
	struct dio_settings *s;
	int ret;

	if (mutex_lock_killable(&dev->config_lock))
		return -EINTR;
	s = rcu_dereference_protected(dev->settings,
				      lockdep_is_held(&dev->config_lock));
	ret = dev->gone ? -ENODEV : dio_drop_pages(dev, s, s, pos, end);
	mutex_unlock(&dev->config_lock);
	return ret;
}

/* Closes the gate for good. Who was in may still be. */
void dio_shut(struct dio_dev *dev)
{
	struct dio_settings *last = dev->last_settings;
	struct dio_settings *old;

	mutex_lock(&dev->config_lock);
	old = rcu_dereference_protected(dev->settings,
					lockdep_is_held(&dev->config_lock));
	*last = *old;
	last->gate = DIO_GATE_GONE;
	dev->last_settings = NULL;
	/* Before the gate's: who is turned away there looks for the reason here. */
	WRITE_ONCE(dev->gone, true);
	rcu_assign_pointer(dev->settings, last);
	mutex_unlock(&dev->config_lock);
	kfree_rcu(old, rcu);
}
