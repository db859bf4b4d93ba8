// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mapping the store, page by page as it is touched. A touched hole gets its page
 * at once, even for reading: a later write(2) must be seen through the mapping.
 * Page tables hold a reference on each page, the vma one on the file and so on
 * the device and the module.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "dio.h"

static vm_fault_t dio_vm_fault(struct vm_fault *vmf)
{
	struct dio_dev *dev = vmf->vma->vm_private_data;
	struct page *page;

	/* Shrinking is refused while there is a mapping, so this stays true. */
	if (vmf->pgoff >= dio_capacity(dev) >> PAGE_SHIFT)
		return VM_FAULT_SIGBUS;

	page = dio_store_get(&dev->store, vmf->pgoff, DIO_GFP_STORE);
	if (IS_ERR(page))
		return PTR_ERR(page) == -ENOMEM ? VM_FAULT_OOM : VM_FAULT_SIGBUS;

	/* Locked until it's in the page table, so that dio_unmap() can't miss it. */
	lock_page(page);
	if (dio_gone(dev)) {
		unlock_page(page);
		return VM_FAULT_SIGBUS;
	}
	get_page(page);
	vmf->page = page;
	return VM_FAULT_LOCKED;
}

/* A vma was copied or split. */
static void dio_vm_open(struct vm_area_struct *vma)
{
	struct dio_dev *dev = vma->vm_private_data;

	atomic_inc(&dev->mappings);
}

static void dio_vm_close(struct vm_area_struct *vma)
{
	struct dio_dev *dev = vma->vm_private_data;

	atomic_dec(&dev->mappings);
}

static const struct vm_operations_struct dio_vm_ops = {
	.open	= dio_vm_open,
	.close	= dio_vm_close,
	.fault	= dio_vm_fault,
};

int dio_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct dio_file *file = filp->private_data;
	struct dio_dev *dev = file->dev;
	struct dio_params params;
	int ret;

	/* Its bytes aren't memory of ours. */
	if (dev->backend)
		return -ENODEV;

	/* The first mapping must not meet the store being truncated. */
	ret = dio_enter(dev, &params, false);
	if (ret)
		return ret;
	atomic_inc(&dev->mappings);
	dio_leave(dev);

	vma->vm_private_data = dev;
	vma->vm_ops = &dio_vm_ops;
	return 0;
}

/* The device is gone: takes it out of all page tables. Touching it is SIGBUS then. */
void dio_unmap(struct dio_dev *dev)
{
	struct dio_file *file;
	unsigned long index;
	struct page *page;

	/* A fault that didn't see the removal has its page locked until it's mapped. */
	xa_for_each(&dev->store.pages, index, page) {
		lock_page(page);
		unlock_page(page);
		cond_resched();
	}

	mutex_lock(&dev->files_lock);
	list_for_each_entry(file, &dev->files, link)
		unmap_mapping_range(file->filp->f_mapping, 0, 0, 1);
	mutex_unlock(&dev->files_lock);
}
