// SPDX-License-Identifier: GPL-2.0-only
/*
 * Splicing out: the kernel's own way, by a read into fresh pages; and the one bug
 * that is committed there.
 */
#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/splice.h>

#include "dio.h"

/*
 * The bug of DIO_FAULT_SYNC_AS_ASYNC: only splice's readers survive being told
 * "queued" for a kiocb that nobody can complete, so only they are told.
 */
bool dio_sync_as_async(struct kiocb *iocb)
{
	struct dio_file *file = iocb->ki_filp->private_data;

	return READ_ONCE(file->splicer) == current && is_sync_kiocb(iocb) &&
	       dio_fault_hit(file->dev, DIO_FAULT_SYNC_AS_ASYNC);
}

ssize_t dio_splice_read(struct file *file, loff_t *pos,
			struct pipe_inode_info *pipe, size_t len,
			unsigned int flags)
{
	struct dio_file *f = file->private_data;
	ssize_t ret;

	if (!static_branch_unlikely(&dio_faults_armed))
		return copy_splice_read(file, pos, pipe, len, flags);

	/* dio_read_iter() sees by the task that it was called from here. */
	if (mutex_lock_killable(&f->splice_lock))
		return -EINTR;
	WRITE_ONCE(f->splicer, current);
	ret = copy_splice_read(file, pos, pipe, len, flags);
	WRITE_ONCE(f->splicer, NULL);
	mutex_unlock(&f->splice_lock);
	return ret;
}
