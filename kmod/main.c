// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loading and unloading: one device, /dev/dio0.
 *
 * An open file, and through it each kiocb and each mapping, keeps the module.
 * What may still run when the last file is gone is the tail of a completion:
 * code of this module after ->ki_complete(). dio_dev_destroy() waits for it.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "request.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static struct dio_dev *dio_dev0;

static int dio_counters_init(struct dio_dev *dev)
{
	int cpu;

	dev->counters = alloc_percpu(struct dio_counters);
	if (!dev->counters)
		return -ENOMEM;

	for_each_possible_cpu(cpu) {
		struct dio_counters *c = per_cpu_ptr(dev->counters, cpu);

		c->next_req = cpu;
		init_llist_head(&c->due);
		INIT_WORK(&c->work, dio_request_work);
	}
	return 0;
}

static struct dio_dev *dio_dev_create(void)
{
	struct dio_dev *dev;
	int ret = -ENOMEM;

	dev = kzalloc_obj(*dev, GFP_KERNEL);
	if (!dev)
		goto fail;

	mutex_init(&dev->config_lock);
	mutex_init(&dev->fsync_lock);
	init_waitqueue_head(&dev->idle);
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
	return dev;

fail_settings:
	kfree(rcu_dereference_protected(dev->settings, true));
fail_counters:
	free_percpu(dev->counters);
fail_free:
	kfree(dev);
fail:
	return ERR_PTR(ret);
}

/* No file is open, so no request waits; tails of told ones may still run. */
static void dio_dev_destroy(struct dio_dev *dev)
{
	/* Timer callbacks run in softirq, which is a reader of RCU. */
	synchronize_rcu();
	destroy_workqueue(dev->wq);
	dio_faults_exit(dev);
	dio_inject_exit(dev);
	dio_store_drop(&dev->store, 0, U64_MAX);
	kfree(rcu_dereference_protected(dev->settings, true));
	free_percpu(dev->counters);
	kfree(dev);
}

static int __init dio_init(void)
{
	int ret;

	ret = dio_requests_init();
	if (ret)
		return ret;

	dio_dev0 = dio_dev_create();
	if (IS_ERR(dio_dev0)) {
		ret = PTR_ERR(dio_dev0);
		goto fail_requests;
	}

	ret = dio_chrdev_init();
	if (ret)
		goto fail_dev;

	ret = dio_chrdev_add(dio_dev0);
	if (ret)
		goto fail_chrdev;
	return 0;

fail_chrdev:
	dio_chrdev_exit();
fail_dev:
	dio_dev_destroy(dio_dev0);
fail_requests:
	dio_requests_exit();
	return ret;
}

static void __exit dio_exit(void)
{
	dio_chrdev_del(dio_dev0);
	dio_chrdev_exit();
	dio_dev_destroy(dio_dev0);
	dio_requests_exit();
}

module_init(dio_init);
module_exit(dio_exit);

MODULE_DESCRIPTION("Model character device for direct and asynchronous I/O");
MODULE_AUTHOR("The dio authors");
MODULE_LICENSE("GPL");
MODULE_ALIAS("devname:dio0");
