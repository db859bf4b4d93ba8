// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes one mistake when it is loaded, each of a kind that another checker of
 * the debug kernel must find: insmod mistake.ko kind=KIND. Nothing here leaves
 * the kernel unusable.
 */
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>

static char *kind = "none";
module_param(kind, charp, 0444);
MODULE_PARM_DESC(kind, "none, after-free, out-of-bounds, leak, atomic-sleep, lock-order, held-lock, array-index or free-timer");

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(two);
static DEFINE_SPINLOCK(spin);

struct odd {
	struct timer_list timer;
	int array[4];
};

/* Out of the compiler's sight: it would see the mistakes, or undo them. */
static volatile int five = 5;
static volatile u8 sink;

static void never(struct timer_list *t)
{
}

static void after_free(void)
{
	u8 *p = kmalloc(64, GFP_KERNEL);

	if (!p)
		return;
	OPTIMIZER_HIDE_VAR(p);
	kfree(p);
	sink = READ_ONCE(p[7]);
}

static void out_of_bounds(void)
{
	u8 *p = kmalloc(61, GFP_KERNEL);

	if (!p)
		return;
	OPTIMIZER_HIDE_VAR(p);
	sink = READ_ONCE(p[61]);
	kfree(p);
}

static void leak(void)
{
	int i;

	/* Several: a stale word on some stack may keep one of them. */
	for (i = 0; i < 16; i++)
		sink = !kmalloc(77, GFP_KERNEL);
}

static void atomic_sleep(void)
{
	spin_lock(&spin);
	might_sleep();
	spin_unlock(&spin);
}

static void lock_order(void)
{
	mutex_lock(&one);
	mutex_lock(&two);
	mutex_unlock(&two);
	mutex_unlock(&one);
	mutex_lock(&two);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&two);
}

static void held_lock(void)
{
	struct mutex *m = kmalloc(sizeof(*m), GFP_KERNEL);

	if (!m)
		return;
	mutex_init(m);
	mutex_lock(m);
	kfree(m);
}

static void array_index(void)
{
	struct odd *o = kzalloc(sizeof(*o) + 64, GFP_KERNEL);

	if (!o)
		return;
	o->array[five] = 1;
	sink = o->array[five];
	kfree(o);
}

static void free_timer(void)
{
	struct odd *o = kzalloc(sizeof(*o), GFP_KERNEL);

	if (!o)
		return;
	timer_setup(&o->timer, never, 0);
	mod_timer(&o->timer, jiffies + 3600 * HZ);
	kfree(o);
}

static const struct {
	const char *name;
	void (*make)(void);
} mistakes[] = {
	{ "after-free", after_free },
	{ "out-of-bounds", out_of_bounds },
	{ "leak", leak },
	{ "atomic-sleep", atomic_sleep },
	{ "lock-order", lock_order },
	{ "held-lock", held_lock },
	{ "array-index", array_index },
	{ "free-timer", free_timer },
};

static int __init mistake_init(void)
{
	int i;

	if (!strcmp(kind, "none"))
		return 0;
	for (i = 0; i < ARRAY_SIZE(mistakes); i++) {
		if (!strcmp(kind, mistakes[i].name)) {
			mistakes[i].make();
			return 0;
		}
	}
	return -EINVAL;
}

static void __exit mistake_exit(void)
{
}

module_init(mistake_init);
module_exit(mistake_exit);
MODULE_DESCRIPTION("Makes one mistake on load");
MODULE_LICENSE("GPL");
