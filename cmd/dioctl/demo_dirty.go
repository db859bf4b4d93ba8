// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/ioctlapi"
)

const (
	dirtySize    = 64 << 10
	dirtyDisk    = 64 << 20    // each zram disk; it takes memory only for what is written
	dirtyLatency = time.Second // room for a write-back between the pin and the device's write
)

// demoDirty shows what the dirty mark is for: the same read of the device,
// with the mark and without, and what is left of its data after reclaim.
func demoDirty(d *demo) (err error) {
	d.tour.Name, d.tour.Title = "dirty", "what is lost when written pages aren't marked dirty"
	if !d.info.Features.Has(ioctlapi.FeatureFaults) {
		return errors.New("this driver can't leave the mark out: it was built without faults")
	}
	undo, err := stayOnCPU()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	for _, marked := range []bool{true, false} {
		if err := d.anonymousStep(marked); err != nil {
			return err
		}
	}
	for _, marked := range []bool{true, false} {
		if err := d.writebackStep(marked); err != nil {
			return err
		}
	}
	return nil
}

// patterns are what memory holds at first, and what the device holds.
func (d *demo) patterns() (before, fresh []byte, err error) {
	before, fresh = make([]byte, dirtySize), make([]byte, dirtySize)
	_, _ = rand.Read(before)
	_, _ = rand.Read(fresh)
	if n, err := unix.Pwrite(d.plain.FD, fresh, d.base); err != nil || n != dirtySize {
		return nil, nil, fmt.Errorf("write %d bytes at %d of %s: %d went, %v", dirtySize, d.base, d.dev.Path(), n, err)
	}
	return before, fresh, nil
}

// unmarked runs f while the driver leaves the mark out.
func (d *demo) unmarked(f func() error) (err error) {
	if err := d.dev.ArmFault(ioctlapi.Fault{Fault: ioctlapi.FaultDirtyMissing, Every: 1}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.dev.ClearFault(ioctlapi.FaultDirtyMissing)) }()
	return f()
}

// transfer reads the device into r, with the mark or without, and shows what
// the driver did. meanwhile, if not nil, runs while the request is in flight.
func (d *demo) transfer(s *stepView, r *region, marked bool, meanwhile func() error) error {
	op := &engine.Op{Kind: engine.Read, Buf: r.mem, Offset: d.base}
	work := func() error {
		if meanwhile == nil {
			_, err := d.engine("preadv", d.direct, op)
			return errors.Join(err, op.Err)
		}
		q, err := engine.Open("aio", d.direct, engine.Options{Depth: 1})
		if err != nil {
			return err
		}
		defer q.Close()
		if _, err := q.Submit([]*engine.Op{op}); err != nil {
			return err
		}
		err = meanwhile()
		_, reaped := q.Reap(d.ctx, 1, nil)
		return errors.Join(err, reaped, op.Err)
	}
	w, err := d.watch(func() error {
		if marked {
			return work()
		}
		return d.unmarked(work)
	})
	if err != nil {
		return err
	}
	pages := uint64(dirtySize / unix.Getpagesize())
	dirtied := w.sum("dio_dirty", "pages")
	take, dirty, _ := familyWords(ioctlapi.FamilyPin, engine.Read)
	s.row("get_user_pages", take, "%d pages pinned", w.sum("dio_pin", "pages"))
	s.row("memcpy", moveWord, "%d bytes moved to the caller", w.sum("dio_move", "bytes"))
	s.row("SetPageDirty", dirty, "%d pages dirtied", dirtied)
	if marked {
		s.check(dirtied == pages, "all %d pages that the device wrote were marked dirty", pages)
	} else {
		s.check(dirtied == 0 && w.after.FaultsCommitted > w.before.FaultsCommitted, "the mark was left out on purpose (fault dirty-missing)")
	}
	return nil
}

// anonymousStep is about memory that the kernel has a copy of in swap.
func (d *demo) anonymousStep(marked bool) (err error) {
	s := d.step("Anonymous memory with a copy in swap; O_DIRECT read into it, " + markWord(marked))
	disk, err := newZram(dirtyDisk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	if err := disk.swapOn(dirtyDisk); err != nil {
		return err
	}
	before, fresh, err := d.patterns()
	if err != nil {
		return err
	}
	r, err := newRegion(dirtySize, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()

	copy(r.mem, before)
	if err := r.evict(); err != nil {
		return err
	}
	out, err := r.smaps()
	if err != nil {
		return err
	}
	s.line("memory filled with old data, paged out (MADV_PAGEOUT): %s in swap", formatSize(out.swap))
	// Through the swap cache: a plain fault on a zram page would give its
	// slot up at once, and with it the copy.
	if err := unix.Madvise(r.mem, unix.MADV_WILLNEED); err != nil {
		return fmt.Errorf("MADV_WILLNEED: %w", err)
	}
	if err := r.touch(true); err != nil {
		return err
	}
	in, err := r.smaps()
	if err != nil {
		return err
	}
	s.line("read back in (MADV_WILLNEED, a read of each page): %s clean, %s dirty", formatSize(in.clean), formatSize(in.dirty))
	// Between these the loss is sure; see docs/book.md.
	sure := atLeastKernel(6, 11) && !atLeastKernel(6, 19)
	copied := in.clean == dirtySize
	if copied || sure {
		s.check(out.swap == dirtySize && copied, "the pages were written to swap, which keeps its copy, and are clean")
	} else {
		s.check(out.swap == dirtySize && in.dirty == dirtySize, "the pages were written to swap; this kernel gives the copy up with the read")
	}

	if err := d.transfer(s, r, marked, nil); err != nil {
		return err
	}
	after, err := r.smaps()
	if err != nil {
		return err
	}
	safe := ""
	switch {
	case marked || sure:
	case !copied:
		safe = "this kernel gave the copy on zram up with the read; the pages are dirty at once"
	case !atLeastKernel(6, 11):
		safe = "before 6.11 such a page isn't mapped writable, and the pin's write fault dirties it"
	}
	return d.reclaimed(s, r, marked, after, before, fresh, safe, nil)
}

// writebackStep is about a file's pages that are written back while the
// request is in flight.
func (d *demo) writebackStep(marked bool) (err error) {
	s := d.step("A file's pages (shared mmap), written back while the read is in flight; " + markWord(marked))
	if err := d.set(ioctlapi.FamilyPin, dirtyLatency); err != nil {
		return err
	}
	disk, err := newZram(dirtyDisk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	f, err := os.OpenFile(disk.node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	before, fresh, err := d.patterns()
	if err != nil {
		return err
	}
	r, err := newRegion(dirtySize, int(f.Fd()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()

	copy(r.mem, before)
	if err := f.Sync(); err != nil {
		return err
	}
	s.line("%s mapped, filled with old data, written back (fsync)", disk.node)
	var pinned, cleaned smaps
	early := false
	err = d.transfer(s, r, marked, func() (err error) {
		if pinned, err = r.smaps(); err != nil {
			return err
		}
		if err = f.Sync(); err != nil {
			return err
		}
		cleaned, err = r.smaps()
		early = r.held(before) == dirtySize/unix.Getpagesize()
		return err
	})
	if err != nil {
		return err
	}
	s.line("in flight: pinned, %s dirty (the pin's write fault); fsync: %s clean", formatSize(pinned.dirty), formatSize(cleaned.clean))
	s.check(cleaned.clean == dirtySize && early, "the write-back cleaned the pages while they still held the old data")
	after, err := r.smaps()
	if err != nil {
		return err
	}
	return d.reclaimed(s, r, marked, after, before, fresh, "", f.Sync)
}

// reclaimed shows what the kernel thinks of the pages after the device wrote
// them, has them reclaimed, and checks what is read then. save, if not nil,
// is the application asking for its data to be kept. safe, if not empty, is why
// the data survives here without the mark.
func (d *demo) reclaimed(s *stepView, r *region, marked bool, after smaps, before, fresh []byte, safe string, save func() error) error {
	pages := dirtySize / unix.Getpagesize()
	s.line("then the device wrote them: %s clean, %s dirty; %d of %d pages hold the new data", formatSize(after.clean), formatSize(after.dirty), r.held(fresh), pages)
	s.check(r.held(fresh) == pages, "the caller sees what it read")
	how := "paged out"
	if save != nil {
		if err := save(); err != nil {
			return err
		}
		how = "fsync, dropped from the page cache"
	}
	if err := r.evict(); err != nil {
		return err
	}
	old, kept := r.held(before), r.held(fresh)
	s.line("%s, read again: %d pages hold the new data, %d the old", how, kept, old)
	switch {
	case marked:
		s.check(after.dirty == dirtySize && kept == pages, "the data survived: the kernel knew the pages for dirty, and wrote them")
	case safe != "":
		s.line("not lost here: %s.", safe)
		s.line("The next steps show the loss that every kernel has.")
		s.check(after.dirty == dirtySize && kept == pages, "the kernel knew the pages for dirty without the mark")
	default:
		s.check(after.clean == dirtySize && old == pages, "the data is lost: the kernel thought the pages clean, and dropped them")
	}
	return nil
}

func markWord(marked bool) string {
	if marked {
		return "marked"
	}
	return "not marked"
}
