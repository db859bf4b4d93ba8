// SPDX-License-Identifier: GPL-2.0-only
/*
 * The character device: its class, its number, opening and seeking.
 */
#include <linux/cdev.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "dio.h"

#define DIO_MINORS	16

static dev_t dio_devt;
static DEFINE_IDA(dio_minors);
static struct class *dio_class;

static int dio_open(struct inode *inode, struct file *file)
{
	struct dio_dev *dev = container_of(inode->i_cdev, struct dio_dev, cdev);
	struct dio_file *f;
	bool gone;

	f = kzalloc_obj(*f, GFP_KERNEL_ACCOUNT);
	if (!f)
		return -ENOMEM;

	f->dev = dev;
	f->filp = file;
	mutex_init(&f->splice_lock);
	dio_buffers_init(f);
	file->private_data = f;
	/* dio_enter() and dio_request_submit() give EAGAIN instead of waiting. */
	file->f_mode |= FMODE_NOWAIT;
	dio_allow_odirect(file, &f->mapping);

	mutex_lock(&dev->files_lock);
	/* Looked up before it was deleted, opened after. */
	gone = dev->gone;
	if (!gone)
		list_add(&f->link, &dev->files);
	mutex_unlock(&dev->files_lock);
	if (gone) {
		kfree(f);
		return -ENODEV;
	}
	return 0;
}

static int dio_release(struct inode *inode, struct file *file)
{
	struct dio_file *f = file->private_data;

	/* Each waiting request's kiocb holds the file. */
	WARN_ON_ONCE(atomic_read(&f->in_flight));

	mutex_lock(&f->dev->files_lock);
	list_del(&f->link);
	mutex_unlock(&f->dev->files_lock);
	dio_buffers_exit(f);
	kfree(f);
	return 0;
}

static loff_t dio_llseek(struct file *file, loff_t offset, int whence)
{
	struct dio_file *f = file->private_data;

	switch (whence) {
	case SEEK_SET:
	case SEEK_CUR:
	case SEEK_END:
		return fixed_size_llseek(file, offset, whence,
					 dio_capacity(f->dev));
	default:
		return -EINVAL;
	}
}

static const struct file_operations dio_fops = {
	.owner		= THIS_MODULE,
	DIO_FOP_FLAGS
	DIO_FOP_URING_CMD
	.open		= dio_open,
	.release	= dio_release,
	.llseek		= dio_llseek,
	.read_iter	= dio_read_iter,
	.write_iter	= dio_write_iter,
	.iopoll		= dio_iopoll,
	.fsync		= dio_fsync,
	.mmap		= dio_mmap,
	.splice_read	= dio_splice_read,
	.splice_write	= iter_file_splice_write,
	.unlocked_ioctl	= dio_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

int dio_chrdev_init(void)
{
	int ret;

	ret = alloc_chrdev_region(&dio_devt, 0, DIO_MINORS, DIO_NAME);
	if (ret)
		return ret;

	dio_class = dio_class_create(DIO_NAME);
	if (IS_ERR(dio_class)) {
		unregister_chrdev_region(dio_devt, DIO_MINORS);
		return PTR_ERR(dio_class);
	}
	return 0;
}

void dio_chrdev_exit(void)
{
	class_destroy(dio_class);
	unregister_chrdev_region(dio_devt, DIO_MINORS);
}

/* @dev has a name. An open file keeps it: cdev_device_add() sees to that. */
int dio_chrdev_add(struct dio_dev *dev)
{
	int minor, ret;

	minor = ida_alloc_max(&dio_minors, DIO_MINORS - 1, GFP_KERNEL);
	if (minor < 0)
		return minor;

	dev->dev.class = dio_class;
	dev->dev.devt = dio_devt + minor;
	cdev_init(&dev->cdev, &dio_fops);
	dev->cdev.owner = THIS_MODULE;
	ret = cdev_device_add(&dev->cdev, &dev->dev);
	if (ret)
		ida_free(&dio_minors, minor);
	return ret;
}

/* Nobody finds it any more; who has it open keeps it. */
void dio_chrdev_del(struct dio_dev *dev)
{
	cdev_device_del(&dev->cdev, &dev->dev);
	ida_free(&dio_minors, MINOR(dev->dev.devt) - MINOR(dio_devt));
}
