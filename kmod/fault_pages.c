// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bugs on purpose that are committed with a request's pages: while they are
 * taken, while bytes move, while they are given back. Each says how it is made
 * harmless.
 */
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uio.h>

#include "dio.h"

#define DIO_EXCESS_TIMES	8U	/* of LENGTH_OVERFLOW: so many times the pages, */
#define DIO_EXCESS_PAGES	1024U	/* and so many more */
#define DIO_EXCESS_MAX		8192U	/* pages of a request that is big enough as it is */

/*
 * The inode of the file whose page this is, held: so its mapping stays. NULL for
 * memory of no file. Sleeps.
 */
static struct inode *dio_page_inode(struct page *page)
{
	struct address_space *mapping;
	struct inode *inode = NULL;

	if (PageAnon(page))
		return NULL;
	lock_page(page);
	mapping = dio_page_mapping(page);
	if (mapping && mapping->host)
		inode = igrab(mapping->host);
	unlock_page(page);
	return inode;
}

static bool dio_is_tmpfs(const struct inode *inode)
{
	return inode->i_sb->s_magic == TMPFS_MAGIC;
}

/*
 * Pins what lies behind the buffer, too, as one does whose count has wrapped. For
 * reading memory only, so nothing there changes; released at once.
 */
static void dio_pin_excess(struct dio_call *call)
{
	unsigned long addr = (unsigned long)dio_iter_addr(call->iter);
	u32 nr = iov_iter_npages(call->iter, DIO_EXCESS_MAX + 1);
	struct page **pages;
	int got;

	if (!call->write || nr > DIO_EXCESS_MAX ||
	    !dio_fault_hit(call->dev, DIO_FAULT_LENGTH_OVERFLOW))
		return;

	nr = nr * DIO_EXCESS_TIMES + DIO_EXCESS_PAGES;
	pages = kvmalloc_array(nr, sizeof(*pages), GFP_KERNEL_ACCOUNT);
	if (!pages)
		return;
	got = pin_user_pages_fast(addr & PAGE_MASK, nr, 0, pages);
	if (got > 0) {
		dio_add(call->dev, pages_pinned, got);
		dio_add(call->dev, pages_released, got);
		unpin_user_pages(pages, got);
	}
	kvfree(pages);
}

/* Released at once: a file system that wants to write the page waits no longer. */
static void dio_pin_file_longterm(struct dio_call *call)
{
	unsigned long addr = (unsigned long)dio_iter_addr(call->iter) & PAGE_MASK;
	struct inode *inode;
	struct page *page;
	bool of_file;

	if (call->write || pin_user_pages_fast(addr, 1, FOLL_WRITE, &page) != 1)
		return;
	inode = dio_page_inode(page);
	of_file = inode && !dio_is_tmpfs(inode);
	iput(inode);
	unpin_user_page(page);
	if (!of_file || !dio_fault_hit(call->dev, DIO_FAULT_LONGTERM_FILE))
		return;

	if (pin_user_pages_fast(addr, 1, FOLL_WRITE | FOLL_LONGTERM, &page) == 1) {
		dio_count(call->dev, pages_pinned);
		dio_count(call->dev, pages_released);
		unpin_user_page(page);
	}
}

/* Before a direct request's pages are taken, in the caller's context. */
void dio_fault_take(struct dio_call *call)
{
	if (call->nowait || call->buffer || !user_backed_iter(call->iter) ||
	    !iov_iter_single_seg_count(call->iter))
		return;
	dio_pin_excess(call);
	if (dio_fault_armed(call->dev, DIO_FAULT_LONGTERM_FILE))
		dio_pin_file_longterm(call);
}

/*
 * Before a direct request's bytes are moved: how many of @io's goal are to be
 * counted, but not moved. What the caller had in its buffer is what stays there;
 * pages of nobody, which splice brings, are left alone.
 */
u32 dio_fault_move(struct dio_dev *dev, struct dio_io *io)
{
	if (io->write || io->hold == DIO_HOLD_NONE ||
	    io->model == DIO_MODEL_NULL || io->model == DIO_MODEL_BROKEN)
		return 0;

	if (io->pos && dio_fault_hit(dev, DIO_FAULT_WRONG_OFFSET))
		io->pos = 0;
	if (io->goal >= 2 * DIO_ALIGN && dio_fault_hit(dev, DIO_FAULT_INFOLEAK))
		return DIO_ALIGN;
	return 0;
}

/* Pages whose dirty flag is nobody's business but swap's. */
static u32 dio_leading_anon(const struct dio_io *io)
{
	u32 i;

	for (i = 0; i < io->nr_pages; i++)
		if (!PageAnon(io->pages[i]))
			break;
	return i;
}

/* Gives @page back once more than it was taken, and makes that good first. */
static void dio_over_unpin(struct dio_dev *dev, struct dio_io *io)
{
	u32 i;

	for (i = 0; i < io->nr_pages; i++) {
		struct page *page = io->pages[i];

		/* A large folio counts its pins elsewhere; the zero page, not at all. */
		if (PageCompound(page) || PageReserved(page))
			continue;
		if (!dio_fault_hit(dev, DIO_FAULT_OVER_UNPIN))
			return;
		page_ref_add(page, GUP_PIN_COUNTING_BIAS);
		unpin_user_page(page);
		return;
	}
}

/*
 * As a driver does that spares reserved pages its put_page(). The zero page has
 * references to spare; it is counted down to where it was by the quarantine.
 */
static void dio_keep_zero_page(struct dio_dev *dev, struct dio_io *io)
{
	u32 i;

	for (i = 0; i < io->nr_pages; i++) {
		if (io->pages[i] != ZERO_PAGE(0))
			continue;
		if (dio_quarantine_has_room(dev) &&
		    dio_fault_hit(dev, DIO_FAULT_ZERO_PAGE_PIN) &&
		    dio_quarantine_page(dev, io->pages[i], io->hold, DIO_FAULT_ZERO_PAGE_PIN))
			io->pages[i] = io->pages[--io->nr_pages];
		return;
	}
}

/*
 * Only tmpfs survives it: it has nothing to be told of a dirty page. The inode is
 * held, so a truncation meanwhile leaves a flag on a page that is about to go.
 */
static void dio_dirty_unlocked(struct dio_dev *dev, struct dio_io *io)
{
	struct inode *inode = dio_page_inode(io->pages[0]);

	if (inode && dio_is_tmpfs(inode) &&
	    dio_fault_hit(dev, DIO_FAULT_DIRTY_UNLOCKED))
		set_page_dirty(io->pages[0]);
	iput(inode);
}

/* A reference of its own keeps the page for as long as it takes. */
static void dio_dirty_late(struct dio_dev *dev, struct dio_io *io)
{
	struct page *page = io->pages[io->nr_pages - 1];

	if (!dio_fault_hit(dev, DIO_FAULT_DIRTY_LATE))
		return;
	io->nr_pages--;
	get_page(page);
	dio_give_back_page(dev, page, io->hold);
	set_page_dirty_lock(page);
	dio_count(dev, pages_dirtied);
	put_page(page);
}

/* Puts the last page aside, for the fault @id that was hit. */
static void dio_leak_last(struct dio_dev *dev, struct dio_io *io, u32 *dirty,
			  enum dio_fault_id id)
{
	struct page *page = io->pages[io->nr_pages - 1];
	bool dirtied = *dirty == io->nr_pages;

	/* While it's still ours: the quarantine may be drained at once. */
	if (dirtied)
		set_page_dirty_lock(page);
	if (!dio_quarantine_page(dev, page, io->hold, id))
		return;
	io->nr_pages--;
	if (dirtied) {
		*dirty = io->nr_pages;
		dio_count(dev, pages_dirtied);
	}
}

/*
 * On the way into dio_io_release(): changes what is going to be done there.
 * @dirty is how many leading pages would be marked, and the answer how many will.
 */
u32 dio_fault_release(struct dio_dev *dev, struct dio_io *io, u32 dirty)
{
	u32 anon;

	if (dirty && dio_fault_hit(dev, DIO_FAULT_DIRTY_MISSING))
		dirty = 0;

	/* Marking takes a page lock, so not from the timer. */
	if (io->write && in_task()) {
		anon = dio_leading_anon(io);
		if (anon && dio_fault_hit(dev, DIO_FAULT_DIRTY_NEEDLESS))
			dirty = anon;
	}
	if (dirty && dio_fault_armed(dev, DIO_FAULT_DIRTY_UNLOCKED))
		dio_dirty_unlocked(dev, io);

	if (io->hold == DIO_HOLD_PIN)
		dio_over_unpin(dev, io);
	if (io->hold == DIO_HOLD_GET && io->write)
		dio_keep_zero_page(dev, io);

	if (dirty && dirty == io->nr_pages && !io->write) {
		dio_dirty_late(dev, io);
		dirty = io->nr_pages;
	}
	if (io->nr_pages && dio_quarantine_has_room(dev) &&
	    dio_fault_hit(dev, DIO_FAULT_PIN_LEAK))
		dio_leak_last(dev, io, &dirty, DIO_FAULT_PIN_LEAK);
	if (io->nr_pages && io->hold == DIO_HOLD_PIN && dio_quarantine_has_room(dev) &&
	    dio_fault_hit(dev, DIO_FAULT_LONGTERM_MISSING))
		dio_leak_last(dev, io, &dirty, DIO_FAULT_LONGTERM_MISSING);
	return dirty;
}
