// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device's life: made and shown when it's bound, gone when it's unbound or the
 * module unloaded, freed when the last file that was open is closed.
 *
 * What may still run when the last file is gone is the tail of a completion:
 * code of this module after ->ki_complete(). dio_dev_free() waits for it.
 */
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>

#include "request.h"

/* Those that dio_dev_free() is still to be called for. */
static atomic_t dio_devices = ATOMIC_INIT(0);

static int dio_counters_init(struct dio_dev *dev)
{
	int cpu;

	dev->counters = alloc_percpu(struct dio_counters);
	if (!dev->counters)
		return -ENOMEM;

	for_each_possible_cpu(cpu) {
		struct dio_counters *c = per_cpu_ptr(dev->counters, cpu);

		c->next_req = cpu;
		spin_lock_init(&c->lock);
		INIT_LIST_HEAD(&c->waiting);
		init_llist_head(&c->due);
		INIT_WORK(&c->work, dio_request_work);
	}
	return 0;
}

/* No file is open, so no request waits; tails of told ones may still run. */
static void dio_dev_free(struct device *device)
{
	struct dio_dev *dev = container_of(device, struct dio_dev, dev);

	/* Timer callbacks run in softirq, which is a reader of RCU. */
	synchronize_rcu();
	destroy_workqueue(dev->wq);
	dio_faults_exit(dev);
	dio_inject_exit(dev);
	dio_store_drop(&dev->store, 0, U64_MAX);
	if (dev->backend)
		dev->backend->release(dev);
	dio_settings_exit(dev);
	free_percpu(dev->counters);
	kfree(dev);
	if (atomic_dec_and_test(&dio_devices))
		wake_up_var(&dio_devices);
}

/*
 * A device below @parent that nobody sees yet. @backend NULL: software. @hardware
 * is the device's from now on, and freed with it; ERR_PTR: still the caller's.
 * dio_dev_show() comes next.
 */
struct dio_dev *dio_dev_create(struct device *parent, const char *format, u32 index,
			       const struct dio_backend *backend, void *hardware)
{
	struct dio_dev *dev;
	int ret = -ENOMEM;

	dev = kzalloc_obj(*dev, GFP_KERNEL);
	if (!dev)
		goto fail;

	dev->backend = backend;
	dev->index = index;
	mutex_init(&dev->config_lock);
	mutex_init(&dev->fsync_lock);
	mutex_init(&dev->files_lock);
	INIT_LIST_HEAD(&dev->files);
	init_waitqueue_head(&dev->idle);
	init_waitqueue_head(&dev->removal);
	dio_store_init(&dev->store);
	spin_lock_init(&dev->schedule.lock);
	dio_inject_init(dev);
	dio_faults_init(dev);

	ret = dio_counters_init(dev);
	if (ret)
		goto fail_free;

	ret = dio_settings_init(dev);
	if (ret)
		goto fail_counters;

	dev->wq = alloc_workqueue(DIO_NAME, WQ_UNBOUND, 0);
	if (!dev->wq) {
		ret = -ENOMEM;
		goto fail_settings;
	}
	atomic_inc(&dio_devices);
	device_initialize(&dev->dev);
	dev->dev.parent = parent;
	dev->dev.release = dio_dev_free;
	ret = dev_set_name(&dev->dev, format, index);
	if (ret) {
		/* dio_dev_free() unwinds from here on. */
		put_device(&dev->dev);
		goto fail;
	}
	dev->hardware = hardware;
	return dev;

fail_settings:
	dio_settings_exit(dev);
fail_counters:
	free_percpu(dev->counters);
fail_free:
	kfree(dev);
fail:
	return ERR_PTR(ret);
}

/* Who has it open keeps the file, and gets nothing but ENODEV from it any more. */
static void dio_dev_retire(struct dio_dev *dev)
{
	dio_shut(dev);
	dio_faults_disarm(dev);
	dio_requests_hurry(dev);
	wake_up_all(&dev->removal);
	dio_unmap(dev);
	dio_buffers_drop(dev);
}

/*
 * Shows @dev under /dev. An error, and it's as after dio_dev_remove(): somebody may
 * have opened it by its number before what failed; the caller puts it.
 */
int dio_dev_show(struct dio_dev *dev)
{
	int ret = dio_chrdev_add(dev);

	if (ret)
		dio_dev_retire(dev);
	return ret;
}

/*
 * The device goes, whoever is using it. Nobody can begin a request or open it any
 * more; who waits is told ENODEV at once, who has it mapped gets SIGBUS from now
 * on. Open files keep the rest until they're closed; the caller puts its part.
 */
void dio_dev_remove(struct dio_dev *dev)
{
	dio_chrdev_del(dev);
	dio_dev_retire(dev);
}

/*
 * Waits until every removed device is freed. Files keep the module, but whoever
 * else holds a device doesn't: sysfs for a moment, and DEBUG_KOBJECT_RELEASE, which
 * frees seconds late on purpose.
 */
void dio_devices_exit(void)
{
	wait_var_event(&dio_devices, !atomic_read(&dio_devices));
	/* Who freed the last one may have been preempted on its way out of here. */
	synchronize_rcu_tasks();
}
