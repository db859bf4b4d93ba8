// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/ioctlapi"
)

// demoDirect shows the life of a caller's pages.
func demoDirect(d *demo) error {
	d.tour.Name, d.tour.Title = "direct", "what happens to the caller's pages"
	const size = 64 << 10
	for _, family := range []ioctlapi.Family{ioctlapi.FamilyPin, ioctlapi.FamilyGet} {
		if err := d.set(family, 0); err != nil {
			return err
		}
		out, in := d.buffers()
		_, _ = rand.Read(out[:size])
		clear(in[:size])
		if err := d.directStep(family, engine.Write, out[:size]); err != nil {
			return err
		}
		if err := d.directStep(family, engine.Read, in[:size]); err != nil {
			return err
		}
		d.sameBytes(out[:size], in[:size])
	}
	if err := d.set(ioctlapi.FamilyPin, 0); err != nil {
		return err
	}
	for _, step := range []func() error{d.ioctlStep, d.copyStep, d.unalignedStep} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// sameBytes adds the comparison of what was written and read to the last step.
func (d *demo) sameBytes(out, in []byte) {
	s := &d.tour.Steps[len(d.tour.Steps)-1]
	a, b := sha256.Sum256(out), sha256.Sum256(in)
	s.check(a == b, "what was read is what was written: SHA-256 %x.. and %x..", a[:4], b[:4])
}

// familyWords are today's names of the book's functions, by family.
func familyWords(family ioctlapi.Family, kind engine.Kind) (take, dirty, release string) {
	if family == ioctlapi.FamilyGet {
		take, dirty, release = "get_user_pages_fast", "set_page_dirty_lock, if !PageReserved", "put_page"
	} else {
		take, dirty, release = "pin_user_pages_fast", "unpin_user_pages_dirty_lock", "unpin_user_pages_dirty_lock"
		if atLeastKernel(6, 3) {
			take = "iov_iter_extract_pages"
		}
	}
	if kind == engine.Write {
		dirty = "none: the device only read them"
		if family == ioctlapi.FamilyPin {
			release = "unpin_user_pages"
		}
	}
	return take, dirty, release
}

// moveWord is how the driver moves bytes between two pages that it has mapped.
const moveWord = "memcpy; copy_page for a whole page"

// mapWord is how it maps them.
func mapWord() string {
	if atLeastKernel(5, 11) {
		return "kmap_local_page"
	}
	return "kmap_atomic"
}

// atLeastKernel compares the running kernel's release.
func atLeastKernel(major, minor int) bool {
	var a, b int
	_, err := fmt.Sscanf(kernelRelease(), "%d.%d", &a, &b)
	return err == nil && (a > major || a == major && b >= minor)
}

// rows shows the book's five words for a direct transfer.
func (s *stepView) rows(family ioctlapi.Family, kind engine.Kind, w *seen) {
	take, dirty, release := familyWords(family, kind)
	hold := map[ioctlapi.Family]string{ioctlapi.FamilyPin: "FOLL_PIN", ioctlapi.FamilyGet: "FOLL_GET"}[family]
	into := "the store"
	if kind == engine.Read {
		into = "the caller"
	}
	s.row("get_user_pages", take, "%d pages pinned (%s)", w.sum("dio_pin", "pages"), hold)
	s.row("kmap", mapWord(), "%d pages mapped, one at a time", w.sum("dio_map", "pages"))
	s.row("memcpy", moveWord, "%d bytes moved to %s", w.sum("dio_move", "bytes"), into)
	s.row("SetPageDirty", dirty, "%d pages dirtied", w.sum("dio_dirty", "pages"))
	s.row("page_cache_release", release, "%d pages released", w.sum("dio_release", "pages"))
}

// pageChecks are what must hold of any direct transfer of bytes in pages.
func (s *stepView) pageChecks(kind engine.Kind, w *seen, pages, bytes uint64) {
	pinned, released, dirtied := w.sum("dio_pin", "pages"), w.sum("dio_release", "pages"), w.sum("dio_dirty", "pages")
	s.pageCheck(kind, w, pages)
	s.check(w.sum("dio_move", "bytes") == bytes, "%d bytes were moved", bytes)
	a, b := w.before, w.after
	s.check(a.PagesPinned+pinned == b.PagesPinned && a.PagesReleased+released == b.PagesReleased && a.PagesDirtied+dirtied == b.PagesDirtied,
		"the driver's counters say the same as its tracepoints")
}

// directStep makes one O_DIRECT transfer by preadv or pwritev.
func (d *demo) directStep(family ioctlapi.Family, kind engine.Kind, buf []byte) error {
	s := d.step(fmt.Sprintf("O_DIRECT %s of %s, %s family", kind, formatSize(int64(len(buf))), family))
	op := &engine.Op{Kind: kind, Buf: buf, Offset: d.base}
	w, err := d.watch(func() error {
		_, err := d.engine("preadv", d.direct, op)
		return errors.Join(err, op.Err)
	})
	if err != nil {
		return err
	}
	s.rows(family, kind, &w)
	order, times := stepOrder(&w)
	s.line("in this order: %s (%v)", strings.Join(order, ", "), times.Round(time.Microsecond))
	s.pageChecks(kind, &w, uint64(len(buf))/uint64(d.info.PageSize), uint64(len(buf)))
	want := []string{"submit", "pin", "map", "move", "dirty", "release", "complete"}
	if kind == engine.Write {
		want = []string{"submit", "pin", "map", "move", "release", "complete"}
	}
	rule := "dirty before release, release before complete"
	if kind == engine.Write {
		rule = "release before complete"
	}
	s.check(strings.Join(order, " ") == strings.Join(want, " "), "the steps came in the right order: %s", rule)
	pins := w.of("dio_pin")
	s.check(len(pins) == 1 && pins[0].Fields["hold"] == family.String(), "the pages were held by the %s family", family)
	return nil
}

// stepOrder names the steps in the order of their first event, and how long
// all of them took.
func stepOrder(w *seen) (names []string, took time.Duration) {
	had := map[string]bool{}
	for _, e := range w.events {
		name := strings.TrimPrefix(e.Name, "dio_")
		if !had[name] {
			had[name] = true
			names = append(names, name)
		}
	}
	if n := len(w.events); n > 0 {
		took = w.events[n-1].Time - w.events[0].Time
	}
	return names, took
}

// ioctlStep makes the classic transfer: no alignment, pages pinned all the same.
func (d *demo) ioctlStep() error {
	const size, odd, at = 10001, 3, 777
	s := d.step(fmt.Sprintf("The classic way: an ioctl, %d bytes, buffer %d past a page, offset %d", size, odd, at))
	out, in := d.buffers()
	_, _ = rand.Read(out[odd : odd+size])
	clear(in[:2*size])
	pages := uint64((odd + size + int(d.info.PageSize) - 1) / int(d.info.PageSize))
	w, err := d.watch(func() error {
		n, err := d.dev.WriteAt(out[odd:odd+size], uint64(d.base+at))
		if err == nil && n != size {
			err = fmt.Errorf("%d of %d bytes were written", n, size)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.line("write: %d pages pinned, %d bytes moved, %d pages dirtied, %d released", w.sum("dio_pin", "pages"),
		w.sum("dio_move", "bytes"), w.sum("dio_dirty", "pages"), w.sum("dio_release", "pages"))
	s.pageChecks(engine.Write, &w, pages, size)
	w, err = d.watch(func() error {
		n, err := d.dev.ReadAt(in[odd:odd+size], uint64(d.base+at))
		if err == nil && n != size {
			err = fmt.Errorf("%d of %d bytes were read", n, size)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.line("read:  %d pages pinned, %d bytes moved, %d pages dirtied, %d released", w.sum("dio_pin", "pages"),
		w.sum("dio_move", "bytes"), w.sum("dio_dirty", "pages"), w.sum("dio_release", "pages"))
	s.pageChecks(engine.Read, &w, pages, size)
	d.sameBytes(out[odd:odd+size], in[odd:odd+size])
	return nil
}

// copyStep shows the copying path.
func (d *demo) copyStep() error {
	const size, at = 10001, 3
	s := d.step(fmt.Sprintf("Without O_DIRECT: %d bytes at offset %d are copied", size, at))
	out, in := d.buffers()
	_, _ = rand.Read(out[:size])
	write, read := &engine.Op{Kind: engine.Write, Buf: out[:size], Offset: d.base + at}, &engine.Op{Kind: engine.Read, Buf: in[:size], Offset: d.base + at}
	w, err := d.watch(func() error {
		_, err1 := d.engine("preadv", d.plain, write)
		_, err2 := d.engine("preadv", d.plain, read)
		return errors.Join(err1, err2, write.Err, read.Err)
	})
	if err != nil {
		return err
	}
	s.line("copied: %d bytes in 2 requests; %d pages pinned", w.after.BytesCopied-w.before.BytesCopied, w.sum("dio_pin", "pages"))
	s.check(write.N == size && read.N == size, "an odd length and offset were served")
	s.check(w.after.PagesPinned == w.before.PagesPinned && len(w.of("dio_pin")) == 0, "no page of the caller was pinned: nothing to release or to mark dirty")
	s.check(w.after.BytesCopied-w.before.BytesCopied == 2*size, "%d bytes were copied", 2*size)
	d.sameBytes(out[:size], in[:size])
	return nil
}

// unalignedStep shows that O_DIRECT refuses what it can't carry.
func (d *demo) unalignedStep() error {
	s := d.step("O_DIRECT with an unaligned buffer, length or offset is refused")
	out, _ := d.buffers()
	before := bytes.Clone(out[:16])
	mem, off := int(d.info.MemAlign), int64(d.info.OffsetAlign)
	ops := []struct {
		what string
		op   engine.Op
	}{
		{"buffer one byte off", engine.Op{Kind: engine.Read, Buf: out[1 : 1+4*mem], Offset: d.base}},
		{"length one byte off", engine.Op{Kind: engine.Read, Buf: out[:4*mem+1], Offset: d.base}},
		{"offset one byte off", engine.Op{Kind: engine.Read, Buf: out[:4*mem], Offset: d.base + off + 1}},
	}
	w, err := d.watch(func() error {
		for i := range ops {
			if _, err := d.engine("preadv", d.direct, &ops[i].op); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, o := range ops {
		s.line("%-20s %v", o.what, o.op.Err)
		s.check(errors.Is(o.op.Err, unix.EINVAL), "%s: EINVAL", o.what)
	}
	s.check(w.after.PagesPinned == w.before.PagesPinned && bytes.Equal(before, out[:16]), "no page was pinned, no byte changed")
	return nil
}
