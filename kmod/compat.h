/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bends older kernels (5.10 and up) to the newest one's API. Included in front
 * of every file by Kbuild; no other file looks at the kernel's version. Beside
 * each check stands the release that changed.
 */
#ifndef _DIO_COMPAT_H
#define _DIO_COMPAT_H

#include <linux/version.h>
#include <linux/bvec.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/io_uring.h>
#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

#ifndef CONFIG_64BIT
#error "dio counts bytes in per-CPU u64s: a 64-bit kernel is needed"
#endif

/* 5.11: kmap_local_page() */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define kmap_local_page(page)	kmap_atomic(page)
#define kunmap_local(addr)	kunmap_atomic(addr)
#endif

/*
 * 5.11 ("mm: allow mapping accounted kernel pages to userspace"): before, the
 * mark of a charged page shared its word with the map count.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define DIO_GFP_STORE	GFP_HIGHUSER
#else
#define DIO_GFP_STORE	(GFP_HIGHUSER | __GFP_ACCOUNT)
#endif

/* 5.14: unpin_user_page_range_dirty_lock(): pages that follow each other, a folio at a time */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 14, 0)
#define dio_unpin_range(pages, nr, dirty)	unpin_user_pages_dirty_lock(pages, nr, dirty)
#else
#define dio_unpin_range(pages, nr, dirty)	\
	unpin_user_page_range_dirty_lock((pages)[0], nr, dirty)
#endif

/* 5.16: folios */
static __always_inline bool dio_page_has_owner(struct page *page)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0)
	return PageAnon(page) || page_mapping(page);
#else
	return folio_test_anon(page_folio(page)) || folio_mapping(page_folio(page));
#endif
}

static inline struct address_space *dio_page_mapping(struct page *page)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0)
	return page_mapping(page);
#else
	return folio_mapping(page_folio(page));
#endif
}

/* 6.5: memory of a file can't be pinned for long and for writing */
#define DIO_REFUSES_LONGTERM_FILE \
	(LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0))

/* 5.16: ->ki_complete() lost its second result */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0)
static inline void dio_ki_complete(struct kiocb *iocb, long ret)
{
	iocb->ki_complete(iocb, ret, 0);
}
#else
static inline void dio_ki_complete(struct kiocb *iocb, long ret)
{
	iocb->ki_complete(iocb, ret);
}
#endif

/* 5.16: ->iopoll() takes a batch and flags instead of "spin" */
int dio_poll(struct kiocb *iocb);

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 16, 0)
static inline int dio_iopoll(struct kiocb *iocb, bool spin)
{
	return dio_poll(iocb);
}
#else
static inline int dio_iopoll(struct kiocb *iocb, struct io_comp_batch *batch,
			     unsigned int flags)
{
	return dio_poll(iocb);
}
#endif

/* 5.19: ->uring_cmd(), ->uring_cmd_iopoll(); looked at from 6.1 on */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
#define DIO_HAS_URING_CMD	1
struct io_uring_cmd;
struct io_comp_batch;
int dio_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags);
int dio_uring_iopoll(struct io_uring_cmd *cmd, struct io_comp_batch *batch,
		     unsigned int flags);
#define DIO_FOP_URING_CMD	.uring_cmd = dio_uring_cmd, \
				.uring_cmd_iopoll = dio_uring_iopoll,
#else
#define DIO_FOP_URING_CMD
#endif

/* 6.0: ITER_UBUF */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 0, 0)
static inline bool iter_is_ubuf(const struct iov_iter *i)
{
	return false;
}

static inline bool user_backed_iter(const struct iov_iter *i)
{
	return iter_is_iovec(i);
}
#endif

/*
 * 6.0: FMODE_CAN_ODIRECT. Before, open(2) looked for a direct_IO method in the
 * file's mapping. The inode's own can't be given one of this module, for it may
 * outlive it: so each open file gets a mapping, that holds nothing.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 0, 0)
struct dio_own_mapping {
	struct address_space mapping;
};

static inline void dio_allow_odirect(struct file *file, struct dio_own_mapping *own)
{
	struct address_space *mapping = &own->mapping;

	static const struct address_space_operations aops = {
		.direct_IO = noop_direct_IO,
	};

	address_space_init_once(mapping);
	mapping->host = file_inode(file);
	mapping->a_ops = &aops;
	file->f_mapping = mapping;
}
#else
struct dio_own_mapping {
};

static inline void dio_allow_odirect(struct file *file, struct dio_own_mapping *own)
{
	file->f_mode |= FMODE_CAN_ODIRECT;
}
#endif

/* 6.4: iter_iov_addr() */
static inline void __user *dio_iter_addr(const struct iov_iter *i)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 0, 0)
	if (iter_is_ubuf(i))
		return i->ubuf + i->iov_offset;
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	return iter_iov_addr(i);
#else
	return i->iov->iov_base + i->iov_offset;
#endif
}

/*
 * 6.2: a long-term pin for reading stands for the process's own page. Before, it
 * could be of the zero page or one shared after fork(), and the process's next
 * write went elsewhere: so the page is made its own, by pinning as for a write,
 * though it may be read-only. That would pin what can't even be read.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define DIO_FOLL_READ	(FOLL_WRITE | FOLL_FORCE)

static inline bool dio_may_pin_to_read(unsigned long start, u32 nr)
{
	char c;

	for (; nr; nr--, start += PAGE_SIZE)
		if (get_user(c, (char __user *)start))
			return false;
	(void)c; /* that it could be read is all */
	return true;
}
#else
#define DIO_FOLL_READ	0

static inline bool dio_may_pin_to_read(unsigned long start, u32 nr)
{
	return true;
}
#endif

/* 6.3: iov_iter_extract_pages(), ITER_DEST and ITER_SOURCE */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#ifndef ITER_DEST
#define ITER_DEST	READ
#define ITER_SOURCE	WRITE
#endif

/* For *pages != NULL, and iterators over user memory and bvecs. */
static inline ssize_t iov_iter_extract_pages(struct iov_iter *i, struct page ***pages,
					     size_t maxsize, unsigned int maxpages,
					     unsigned int flags, size_t *offset)
{
	size_t length;
	int nr;

	/* Steps over empty segments. */
	while (!(length = iov_iter_single_seg_count(i)))
		iov_iter_advance(i, 0);

	if (iov_iter_is_bvec(i)) {
		size_t at = i->bvec->bv_offset + i->iov_offset;
		struct page *page = i->bvec->bv_page + (at >> PAGE_SHIFT);
		unsigned int n;

		*offset = offset_in_page(at);
		nr = min_t(size_t, maxpages, DIV_ROUND_UP(*offset + length, PAGE_SIZE));
		for (n = 0; n < nr; n++)
			(*pages)[n] = page + n;
	} else {
		unsigned long addr = (unsigned long)dio_iter_addr(i);

		*offset = offset_in_page(addr);
		nr = min_t(size_t, maxpages, DIV_ROUND_UP(*offset + length, PAGE_SIZE));
		nr = pin_user_pages_fast(addr - *offset, nr,
					 iov_iter_rw(i) == READ ? FOLL_WRITE : 0, *pages);
		if (nr <= 0)
			return nr;
	}
	length = min3(maxsize, length, ((size_t)nr << PAGE_SHIFT) - *offset);
	iov_iter_advance(i, length);
	return length;
}
#endif

/* 6.4: class_create() lost its owner */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define dio_class_create(name)	class_create(THIS_MODULE, name)
#else
#define dio_class_create(name)	class_create(name)
#endif

/* 6.4: import_ubuf() */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
static inline int dio_import_user(int rw, void __user *buf, size_t len,
				  struct iovec *iov, struct iov_iter *i)
{
	return import_single_range(rw, buf, len, iov, i);
}
#else
static inline int dio_import_user(int rw, void __user *buf, size_t len,
				  struct iovec *iov, struct iov_iter *i)
{
	return import_ubuf(rw, buf, len, i);
}
#endif

/*
 * 6.5: copy_splice_read(). Before, splice's reader was an iterator over a pipe,
 * into which copy_page_to_iter() puts the page itself, for one of the page cache
 * that must be uptodate to be read: this one gives it a copy.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define copy_splice_read	generic_file_splice_read

static inline size_t dio_copy_page_to_iter(struct page *page, size_t offset,
					   size_t n, struct iov_iter *i)
{
	if (iov_iter_is_pipe(i))
		return copy_to_iter(page_address(page) + offset, n, i);
	return copy_page_to_iter(page, offset, n, i);
}
#else
#define dio_copy_page_to_iter	copy_page_to_iter
#endif

/* 6.14: FOP_DONTCACHE */
#ifdef FOP_DONTCACHE
#define DIO_FOP_FLAGS		.fop_flags = FOP_DONTCACHE,
#else
#define DIO_FOP_FLAGS
#endif

/* 6.11: platform_driver.remove() returns nothing */
struct platform_device;
void dio_unbind(struct platform_device *pdev);

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
static inline int dio_platform_remove(struct platform_device *pdev)
{
	dio_unbind(pdev);
	return 0;
}
#else
#define dio_platform_remove	dio_unbind
#endif

/* 6.13: hrtimer_setup(), and hrtimer_init() went later */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
static inline void dio_hrtimer_setup(struct hrtimer *timer,
				     enum hrtimer_restart (*fn)(struct hrtimer *),
				     clockid_t clock, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock, mode);
	timer->function = fn;
}
#else
#define dio_hrtimer_setup	hrtimer_setup
#endif

/* 7.0: allocation by object */
#ifndef kzalloc_obj
#define kmalloc_obj(object, gfp)	kmalloc(sizeof(object), gfp)
#define kzalloc_obj(object, gfp)	kzalloc(sizeof(object), gfp)
#endif

#ifdef DIO_HAS_URING_CMD
/* 6.8: io_uring/cmd.h */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#include <linux/io_uring/cmd.h>
#endif

/* 6.4: a command's bytes are found through its SQE */
static inline const void *dio_uring_bytes(const struct io_uring_cmd *cmd)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
	return cmd->cmd;
#else
	return cmd->sqe->cmd;
#endif
}

/* 6.18: commands with several results */
#ifdef IORING_URING_CMD_MULTISHOT
#define DIO_URING_MULTISHOT	IORING_URING_CMD_MULTISHOT
#else
#define DIO_URING_MULTISHOT	0
#endif

/* 6.7: commands that can be cancelled */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#define IO_URING_F_CANCEL	0
static inline void dio_uring_mark_cancelable(struct io_uring_cmd *cmd,
					     unsigned int issue_flags)
{
}
#else
#define dio_uring_mark_cancelable	io_uring_cmd_mark_cancelable
#endif

/* 6.15: io_uring_cmd_import_fixed() takes the issue flags */
static inline int dio_uring_import_fixed(u64 addr, unsigned long length, int dir,
					 struct iov_iter *iter, struct io_uring_cmd *cmd,
					 unsigned int issue_flags)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
	return io_uring_cmd_import_fixed(addr, length, dir, iter, cmd);
#else
	return io_uring_cmd_import_fixed(addr, length, dir, iter, cmd, issue_flags);
#endif
}

/* 6.18: io_uring_cmd_done() lost its second result */
static inline void dio_io_uring_cmd_done(struct io_uring_cmd *cmd, s32 ret,
					 unsigned int issue_flags)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)
	io_uring_cmd_done(cmd, ret, 0, issue_flags);
#else
	io_uring_cmd_done(cmd, ret, issue_flags);
#endif
}

/*
 * By 6.12 a command may return any result, on any ring. On 6.1 and 6.8 a positive one
 * counts as a failure, and is lost when io_uring's own thread made the call; and one
 * that is done at once on a ring with IOPOLL is told, and yet polled for when it's
 * freed. So there each is told as one that was waited for.
 */
static inline int dio_uring_result(struct io_uring_cmd *cmd, ssize_t ret,
				   unsigned int issue_flags)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
	if (ret > 0 || (!ret && issue_flags & IO_URING_F_IOPOLL)) {
		dio_io_uring_cmd_done(cmd, ret, issue_flags);
		return -EIOCBQUEUED;
	}
#endif
	return ret;
}

/* 6.19: what runs in the task gets io_uring's own request */
void dio_uring_done(struct io_uring_cmd *cmd, unsigned int issue_flags);

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#define dio_uring_task_work	dio_uring_done
#else
static inline void dio_uring_task_work(struct io_tw_req tw_req, io_tw_token_t tw)
{
	dio_uring_done(io_uring_cmd_from_tw(tw_req), IO_URING_CMD_TASK_WORK_ISSUE_FLAGS);
}
#endif
#endif /* DIO_HAS_URING_CMD */

#endif /* _DIO_COMPAT_H */
