// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ioctls: what comes from user space is checked here, once for all of them,
 * as uapi/dio.h promises.
 */
#include <linux/capability.h>
#include <linux/ioctl.h>
#include <linux/uaccess.h>

#include "dio.h"

#ifdef DIO_HAS_URING_CMD
#define DIO_URING_FEATURE	DIO_FEATURE_URING_CMD
#else
#define DIO_URING_FEATURE	0
#endif

/* Each struct begins with its size. */
union dio_arg {
	__u32 size;
	struct dio_info info;
	struct dio_config config;
	struct dio_stats stats;
	struct dio_transfer transfer;
	struct dio_fault fault;
	struct dio_drain drain;
	struct dio_inject inject;
	struct dio_discard discard;
	struct {
		struct dio_buffer_register buffer_register;
		/* Past what user space sees: what was registered, a reference. */
		struct dio_buffer *registered;
	};
	struct dio_buffer_unregister buffer_unregister;
};

static int dio_do_info(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;
	struct dio_dev *dev = file->dev;

	arg->info = (struct dio_info) {
		.abi_version = DIO_ABI_VERSION,
		.features = DIO_FEATURE_PIN | DIO_FEATURE_GET | DIO_FEATURE_ASYNC |
			    DIO_FEATURE_SPLICE |
			    DIO_FEATURE_IOPOLL | DIO_FEATURE_NOWAIT |
			    DIO_FEATURE_FAULTS | DIO_FEATURE_CANCEL |
			    DIO_FEATURE_INJECT | DIO_FEATURE_BUFFERS |
			    DIO_FEATURE_REMOVAL | DIO_URING_FEATURE,
		.capacity = dio_capacity(dev),
		.mem_align = DIO_ALIGN,
		.offset_align = DIO_ALIGN,
		.page_size = PAGE_SIZE,
		.index = dev->index,
		.driver = DIO_NAME,
	};
	if (dev->backend) {
		arg->info.features |= DIO_FEATURE_DMA;
		strscpy(arg->info.driver, dev->backend->driver,
			sizeof(arg->info.driver));
	} else {
		arg->info.features |= DIO_FEATURE_MMAP | DIO_FEATURE_DISCARD;
	}
	return 0;
}

static int dio_do_get_config(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;

	if (arg->config.flags || arg->config.reserved)
		return -EINVAL;
	dio_get_config(file->dev, &arg->config);
	return 0;
}

static int dio_do_set_config(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;

	return dio_set_config(file->dev, &arg->config);
}

static int dio_do_stats(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;
	u32 flags = arg->stats.flags;
	int ret;

	if (flags & ~DIO_STATS_RESET)
		return -EINVAL;
	if (flags && !capable(CAP_SYS_ADMIN))
		return -EPERM;

	ret = dio_stats_read(file->dev, &arg->stats, flags & DIO_STATS_RESET);
	arg->stats.flags = flags;
	return ret;
}

static int dio_do_transfer(struct file *filp, union dio_arg *arg)
{
	if ((arg->transfer.flags & ~(DIO_TRANSFER_WRITE | DIO_TRANSFER_BUFFER)) ||
	    (arg->transfer.buffer && !(arg->transfer.flags & DIO_TRANSFER_BUFFER)) ||
	    arg->transfer.reserved)
		return -EINVAL;
	return dio_transfer(filp->private_data, filp->f_mode, &arg->transfer);
}

static int dio_do_fault_arm(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;

	return dio_fault_arm(file->dev, &arg->fault);
}

static int dio_do_fault_get(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;

	return dio_fault_get(file->dev, &arg->fault);
}

static int dio_do_fault_clear(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;

	return dio_fault_clear(file->dev, &arg->fault);
}

static int dio_do_drain(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;

	if (arg->drain.flags)
		return -EINVAL;
	dio_quarantine_drain(file->dev, &arg->drain.pages, &arg->drain.requests);
	return 0;
}

static int dio_do_inject(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;

	return dio_inject_set(file->dev, &arg->inject);
}

static int dio_do_inject_get(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;

	return dio_inject_get(file->dev, &arg->inject);
}

static int dio_do_inject_clear(struct file *filp, union dio_arg *arg)
{
	struct dio_file *file = filp->private_data;

	return dio_inject_clear(file->dev, &arg->inject);
}

static int dio_do_discard(struct file *filp, union dio_arg *arg)
{
	if (arg->discard.flags || arg->discard.reserved)
		return -EINVAL;
	return dio_discard(filp->private_data, filp->f_mode, &arg->discard);
}

static int dio_do_buffer_register(struct file *filp, union dio_arg *arg)
{
	return dio_buffer_register(filp->private_data, &arg->buffer_register,
				   &arg->registered);
}

/* Who wasn't told the id can't give it back. Another buffer may have it by now. */
static void dio_end_buffer_register(struct file *filp, union dio_arg *arg, bool told)
{
	if (!told)
		dio_buffer_withdraw(filp->private_data, arg->registered);
	dio_buffer_put(arg->registered);
}

static int dio_do_buffer_unregister(struct file *filp, union dio_arg *arg)
{
	if (arg->buffer_unregister.flags || arg->buffer_unregister.reserved)
		return -EINVAL;
	return dio_buffer_unregister(filp->private_data, arg->buffer_unregister.id);
}

#define DIO_ADMIN	BIT(0)	/* needs CAP_SYS_ADMIN */
#define DIO_GONE_TOO	BIT(1)	/* works when the device was removed */

static const struct dio_command {
	unsigned int cmd;
	u32 size;	/* today's */
	u32 min;	/* the first version's: never changes once released */
	u32 flags;
	int (*run)(struct file *filp, union dio_arg *arg);
	/* After a success. Not @told: the answer was lost, so it's undone. */
	void (*end)(struct file *filp, union dio_arg *arg, bool told);
} dio_commands[] = {
	{ DIO_IOC_INFO, sizeof(struct dio_info), 56, DIO_GONE_TOO, dio_do_info },
	{ DIO_IOC_GET_CONFIG, sizeof(struct dio_config), 72, 0, dio_do_get_config },
	{ DIO_IOC_SET_CONFIG, sizeof(struct dio_config), 72, DIO_ADMIN, dio_do_set_config },
	{ DIO_IOC_STATS, sizeof(struct dio_stats), 160, DIO_GONE_TOO, dio_do_stats },
	{ DIO_IOC_TRANSFER, sizeof(struct dio_transfer), 40, 0, dio_do_transfer },
	{ DIO_IOC_FAULT_ARM, sizeof(struct dio_fault), 48, DIO_ADMIN, dio_do_fault_arm },
	{ DIO_IOC_FAULT_GET, sizeof(struct dio_fault), 48, 0, dio_do_fault_get },
	{ DIO_IOC_FAULT_CLEAR, sizeof(struct dio_fault), 48, DIO_ADMIN, dio_do_fault_clear },
	{ DIO_IOC_DRAIN, sizeof(struct dio_drain), 24, DIO_ADMIN, dio_do_drain },
	{ DIO_IOC_DISCARD, sizeof(struct dio_discard), 40, 0, dio_do_discard },
	{ DIO_IOC_BUFFER_REGISTER, sizeof(struct dio_buffer_register), 32, 0,
	  dio_do_buffer_register, dio_end_buffer_register },
	{ DIO_IOC_BUFFER_UNREGISTER, sizeof(struct dio_buffer_unregister), 16, 0,
	  dio_do_buffer_unregister },
	{ DIO_IOC_INJECT, sizeof(struct dio_inject), 80, DIO_ADMIN, dio_do_inject },
	{ DIO_IOC_INJECT_GET, sizeof(struct dio_inject), 80, 0, dio_do_inject_get },
	{ DIO_IOC_INJECT_CLEAR, sizeof(struct dio_inject), 80, DIO_ADMIN, dio_do_inject_clear },
};

/* The command, whatever size the caller's struct has. */
static const struct dio_command *dio_find_command(unsigned int cmd)
{
	const unsigned int any_size = ~(_IOC_SIZEMASK << _IOC_SIZESHIFT);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(dio_commands); i++)
		if ((dio_commands[i].cmd & any_size) == (cmd & any_size))
			return &dio_commands[i];
	return NULL;
}

long dio_ioctl(struct file *filp, unsigned int cmd, unsigned long uarg)
{
	const struct dio_command *command = dio_find_command(cmd);
	struct dio_file *file = filp->private_data;
	void __user *user = (void __user *)uarg;
	union dio_arg arg;
	bool told;
	u32 size;
	int ret;

	BUILD_BUG_ON(sizeof(struct dio_info) != 56);
	BUILD_BUG_ON(sizeof(struct dio_config) != 112);
	BUILD_BUG_ON(sizeof(struct dio_stats) != 288);
	BUILD_BUG_ON(sizeof(struct dio_discard) != 40);
	BUILD_BUG_ON(sizeof(struct dio_inject) != 80);
	BUILD_BUG_ON(sizeof(struct dio_transfer) != 48);
	BUILD_BUG_ON(sizeof(struct dio_buffer_register) != 32);
	BUILD_BUG_ON(sizeof(struct dio_buffer_unregister) != 16);
	BUILD_BUG_ON(sizeof(struct dio_fault) != 48);
	BUILD_BUG_ON(sizeof(struct dio_drain) != 24);

	if (!command)
		return -ENOTTY;
	if (dio_gone(file->dev) && !(command->flags & DIO_GONE_TOO))
		return -ENODEV;
	if (command->flags & DIO_ADMIN && !capable(CAP_SYS_ADMIN))
		return -EPERM;

	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size > PAGE_SIZE)
		return -E2BIG;
	if (size < command->min || size != _IOC_SIZE(cmd))
		return -EINVAL;

	memset(&arg, 0, sizeof(arg));
	ret = copy_struct_from_user(&arg, command->size, user, size);
	if (ret)
		return ret;

	ret = command->run(filp, &arg);
	if (ret)
		return ret;

	/* What this driver doesn't know came as zeros and stays. */
	arg.size = size;
	told = !copy_to_user(user, &arg, min(size, command->size));
	if (command->end)
		command->end(filp, &arg, told);
	return told ? 0 : -EFAULT;
}
