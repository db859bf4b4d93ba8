// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module whose kernel warns when it is loaded, once and for real: what a
 * run must see and tell.
 */
#include <linux/bug.h>
#include <linux/module.h>

static bool wrong = true;
module_param(wrong, bool, 0444);
MODULE_PARM_DESC(wrong, "warn on load");

static int __init warn_init(void)
{
	WARN_ON(wrong);
	return 0;
}

static void __exit warn_exit(void)
{
}

module_init(warn_init);
module_exit(warn_exit);
MODULE_DESCRIPTION("Warns on load");
MODULE_LICENSE("GPL");
