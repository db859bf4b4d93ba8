// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registered buffers: a process's memory, pinned once for many transfers.
 *
 * Such pins may last as long as the file, so they are long-term ones
 * (FOLL_LONGTERM): the kernel moves the pages out of zones that must stay
 * movable, and refuses memory that it can't lend for long. They are charged, to
 * mm->pinned_vm against RLIMIT_MEMLOCK, as RDMA's are and where io_uring shows
 * its own: locked_vm is mlock's, whose pages may be pinned as well and would
 * count twice, and changing it takes mmap_lock. The charge comes before the
 * first pin and goes after the last page; whose it is, is remembered with the
 * buffer, for who closes the file may be another process, or that one's exit.
 *
 * One reference is the id's, one each call's and each request's that uses it.
 * Who drops the last one gives everything back: in task context.
 */
#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "dio.h"
#include "trace.h"

/* Pages that are pinned or released at a time, between looks at signals. */
#define DIO_BUFFER_BATCH	1024U

static int dio_buffer_charge(struct dio_buffer *buffer)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	struct mm_struct *mm = current->mm;
	s64 pinned, now = atomic64_read(&mm->pinned_vm);

	if (dio_fault_hit(buffer->dev, DIO_FAULT_MEMLOCK_UNACCOUNTED))
		return 0;	/* the bug: nobody's */
	do {
		pinned = now + buffer->nr_pages;
		if (pinned > limit && !capable(CAP_IPC_LOCK))
			return -ENOMEM;
	} while (!atomic64_try_cmpxchg(&mm->pinned_vm, &now, pinned));

	/* The count must be there when all of the process is gone. */
	mmgrab(mm);
	buffer->mm = mm;
	return 0;
}

static void dio_buffer_uncharge(struct dio_buffer *buffer)
{
	if (!buffer->mm)
		return;		/* DIO_FAULT_MEMLOCK_UNACCOUNTED */
	atomic64_sub(buffer->nr_pages, &buffer->mm->pinned_vm);
	mmdrop(buffer->mm);
}

/*
 * Releases the first @nr pages. Never dirties: each transfer marked what it had
 * written, after it had, so what is clean now was written back since.
 */
static void dio_buffer_unpin(struct dio_buffer *buffer, u32 nr)
{
	u32 done, n;

	for (done = 0; done < nr; done += n) {
		n = min(nr - done, DIO_BUFFER_BATCH);
		unpin_user_pages(buffer->pages + done, n);
		cond_resched();
	}
}

/* Pins all pages or none. */
static int dio_buffer_pin(struct dio_buffer *buffer)
{
	unsigned int flags = FOLL_LONGTERM | (buffer->writable ? FOLL_WRITE : DIO_FOLL_READ);
	unsigned long start = buffer->addr & PAGE_MASK;
	u32 nr = buffer->nr_pages, done = 0, n;
	int ret;

	while (done < nr) {
		n = min(nr - done, DIO_BUFFER_BATCH);
		ret = 0;
		if (buffer->writable || dio_may_pin_to_read(start, n))
			ret = pin_user_pages_fast(start, n, flags, buffer->pages + done);
		if (ret <= 0) {
			ret = ret ? ret : -EFAULT;
			goto fail;
		}
		done += ret;
		start += (unsigned long)ret << PAGE_SHIFT;
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			goto fail;
		}
		cond_resched();
	}
	return 0;

fail:
	dio_buffer_unpin(buffer, done);
	return ret;
}

static void dio_buffer_free(struct dio_buffer *buffer)
{
	struct dio_dev *dev = buffer->dev;

	might_sleep();

	trace_dio_buffer_release(buffer, 0);
	dio_buffer_unpin(buffer, buffer->nr_pages);
	dio_buffer_uncharge(buffer);
	atomic_dec(&dev->buffers);
	atomic_long_sub(buffer->nr_pages, &dev->buffer_pages);
	kvfree(buffer->pages);
	kfree_rcu(buffer, rcu);
}

/* Drops a reference. @buffer may be NULL. */
void dio_buffer_put(struct dio_buffer *buffer)
{
	if (buffer && refcount_dec_and_test(&buffer->refs))
		dio_buffer_free(buffer);
}

/* Charged and pinned; the reference is the caller's, for the id. */
static struct dio_buffer *dio_buffer_create(struct dio_dev *dev,
					    const struct dio_buffer_register *r)
{
	struct dio_buffer *buffer;
	int ret = -ENOMEM;

	buffer = kzalloc_obj(*buffer, GFP_KERNEL_ACCOUNT);
	if (!buffer)
		goto fail;

	refcount_set(&buffer->refs, 1);
	buffer->dev = dev;
	buffer->addr = r->addr;
	buffer->length = r->length;
	buffer->nr_pages = DIV_ROUND_UP(offset_in_page(r->addr) + r->length, PAGE_SIZE);
	buffer->id = r->id;
	buffer->writable = r->flags & DIO_BUFFER_WRITABLE;

	ret = dio_buffer_charge(buffer);
	if (ret)
		goto fail_free;

	ret = -ENOMEM;
	buffer->pages = kvmalloc_array(buffer->nr_pages, sizeof(*buffer->pages),
				       GFP_KERNEL_ACCOUNT);
	if (!buffer->pages)
		goto fail_charge;

	ret = dio_buffer_pin(buffer);
	trace_dio_buffer_pin(buffer, ret);
	if (ret)
		goto fail_pages;

	atomic_inc(&dev->buffers);
	atomic_long_add(buffer->nr_pages, &dev->buffer_pages);
	return buffer;

fail_pages:
	kvfree(buffer->pages);
fail_charge:
	dio_buffer_uncharge(buffer);
fail_free:
	kfree(buffer);
fail:
	return ERR_PTR(ret);
}

/* Takes the id of @buffer away, of which the caller has a reference, if it has one. */
void dio_buffer_withdraw(struct dio_file *file, struct dio_buffer *buffer)
{
	bool ours;

	xa_lock(&file->buffers);
	ours = xa_load(&file->buffers, buffer->id) == buffer;
	if (ours)
		__xa_erase(&file->buffers, buffer->id);
	xa_unlock(&file->buffers);
	if (ours)
		dio_buffer_put(buffer);
}

/* DIO_IOC_BUFFER_REGISTER: fills in the id, and gives a reference in @registered. */
int dio_buffer_register(struct dio_file *file, struct dio_buffer_register *r,
			struct dio_buffer **registered)
{
	struct dio_buffer *buffer;
	u64 end;
	int ret;

	if ((r->flags & ~DIO_BUFFER_WRITABLE) || r->reserved ||
	    !r->length || r->length > DIO_BUFFER_MAX ||
	    r->addr > ULONG_MAX || check_add_overflow(r->addr, r->length, &end))
		return -EINVAL;
	if (!access_ok(u64_to_user_ptr(r->addr), r->length))
		return -EFAULT;
	if (!can_do_mlock())
		return -EPERM;

	/* Only the place: nobody finds a buffer there before it is complete. */
	ret = xa_alloc(&file->buffers, &r->id, NULL, XA_LIMIT(1, DIO_BUFFERS_MAX),
		       GFP_KERNEL);
	if (ret)
		return ret == -EBUSY ? -ENOSPC : ret;

	buffer = dio_buffer_create(file->dev, r);
	if (IS_ERR(buffer)) {
		ret = PTR_ERR(buffer);
		goto fail;
	}
	/* From when it's found by its id, it may be unregistered. */
	refcount_inc(&buffer->refs);
	ret = xa_err(xa_store(&file->buffers, r->id, buffer, GFP_KERNEL));
	if (ret) {
		dio_buffer_put(buffer);
		dio_buffer_put(buffer);
		goto fail;
	}
	/* If the removal didn't see the buffer yet, it's seen here. */
	if (dio_gone(file->dev)) {
		dio_buffer_withdraw(file, buffer);
		dio_buffer_put(buffer);
		return -ENODEV;
	}
	*registered = buffer;
	return 0;

fail:
	xa_erase(&file->buffers, r->id);
	return ret;
}

/*
 * The id goes now, the memory with the last request that uses it. One that is
 * being registered has no id yet.
 */
int dio_buffer_unregister(struct dio_file *file, u32 id)
{
	struct dio_buffer *buffer;

	xa_lock(&file->buffers);
	buffer = xa_load(&file->buffers, id);
	if (buffer)
		__xa_erase(&file->buffers, id);
	xa_unlock(&file->buffers);

	if (!buffer)
		return dio_gone(file->dev) ? -ENODEV : -ENOENT;
	dio_buffer_put(buffer);
	return 0;
}

void dio_buffers_init(struct dio_file *file)
{
	xa_init_flags(&file->buffers, XA_FLAGS_ALLOC1 | XA_FLAGS_ACCOUNT);
}

static void dio_buffers_clear(struct dio_file *file)
{
	struct dio_buffer *buffer;
	unsigned long id;

	xa_for_each(&file->buffers, id, buffer)
		dio_buffer_unregister(file, id);
}

/* No call is within the file any more. */
void dio_buffers_exit(struct dio_file *file)
{
	dio_buffers_clear(file);
	xa_destroy(&file->buffers);
}

/* The device is gone and needs nobody's memory: takes all ids away. */
void dio_buffers_drop(struct dio_dev *dev)
{
	struct dio_file *file;

	mutex_lock(&dev->files_lock);
	list_for_each_entry(file, &dev->files, link) {
		/* Who stores a buffer before this is seen, who does after it sees. */
		xa_lock(&file->buffers);
		xa_unlock(&file->buffers);
		dio_buffers_clear(file);
	}
	mutex_unlock(&dev->files_lock);
}
