// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver that an auditor knows nothing of: /dev/leaky, whose read(2) pins the
 * caller's buffer and fills it. It does that right, or wrong in one of two ways.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/slab.h>

enum { LEAKY_RIGHT, LEAKY_PIN, LEAKY_CLEAN };

static int bug = LEAKY_RIGHT;
module_param(bug, int, 0644);
MODULE_PARM_DESC(bug, "0: none, 1: one page stays pinned, 2: no page is marked dirty");

/* On 64-bit all memory has an address. */
static void leaky_fill(struct page **pages, unsigned long offset, size_t count)
{
	size_t n;

	for (; count; count -= n, offset = 0) {
		n = min_t(size_t, count, PAGE_SIZE - offset);
		memset(page_address(*pages++) + offset, 'x', n);
	}
}

static void leaky_release(struct page **pages, int nr)
{
	switch (bug) {
	case LEAKY_PIN:
		unpin_user_pages_dirty_lock(pages, nr - 1, true);
		break;
	case LEAKY_CLEAN:
		unpin_user_pages(pages, nr);
		break;
	default:
		unpin_user_pages_dirty_lock(pages, nr, true);
	}
}

/* Memory is pinned for writing whatever is done with it, as many drivers do. */
static ssize_t leaky_move(const char __user *buf, size_t count, bool read)
{
	unsigned long start = (unsigned long)buf, offset = offset_in_page(start);
	struct page **pages;
	ssize_t ret;
	int nr;

	if (!count)
		return 0;
	count = min_t(size_t, count, SZ_1M);
	nr = DIV_ROUND_UP(offset + count, PAGE_SIZE);
	pages = kmalloc_array(nr, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;

	nr = pin_user_pages_fast(start - offset, nr, FOLL_WRITE, pages);
	if (nr > 0) {
		count = min_t(size_t, count, nr * PAGE_SIZE - offset);
		if (read) {
			leaky_fill(pages, offset, count);
			leaky_release(pages, nr);
		} else {
			unpin_user_pages(pages, nr);
		}
		ret = count;
	} else {
		ret = nr ? nr : -EFAULT;
	}
	kfree(pages);
	return ret;
}

static ssize_t leaky_read(struct file *file, char __user *buf, size_t count, loff_t *pos)
{
	return leaky_move(buf, count, true);
}

static ssize_t leaky_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	return leaky_move(buf, count, false);
}

static const struct file_operations leaky_fops = {
	.owner = THIS_MODULE,
	.read = leaky_read,
	.write = leaky_write,
};

static struct miscdevice leaky_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "leaky",
	.fops = &leaky_fops,
};

module_misc_device(leaky_device);
MODULE_DESCRIPTION("Pins pages, and forgets some");
MODULE_LICENSE("GPL");
