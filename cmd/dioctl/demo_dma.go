// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"unsafe"

	"dio/engine"
	"dio/ioctlapi"
	"dio/trace/tracefs"
)

// dmaDevice is the first device with hardware.
const dmaDevice = "/dev/dio-edu0"

// needsDMA refuses a device that has no hardware behind it.
func (d *demo) needsDMA() error {
	if d.info.Features&ioctlapi.FeatureDMA != 0 {
		return nil
	}
	return withHint(fmt.Errorf("%s has no hardware behind it: the software device moves bytes by the CPU", d.dev.Path()),
		"dioctl vm run --device edu -- dioctl demo dma")
}

// demoDMA shows how the caller's pages come to hardware, and what it does with them.
func demoDMA(d *demo) error {
	d.tour.Name, d.tour.Title = "dma", "hardware reads and writes the caller's pages"
	if err := d.needsDMA(); err != nil {
		return err
	}
	size, page := int(d.info.Capacity), int(d.info.PageSize)
	out, in := d.buffers()
	_, _ = rand.Read(out[:2*page])
	clear(in[:size])
	if err := d.dmaStep(fmt.Sprintf("O_DIRECT write of %s: one page", formatSize(int64(size))), &engine.Op{Kind: engine.Write, Buf: out[:size], Offset: d.base}); err != nil {
		return err
	}
	if err := d.dmaStep("O_DIRECT read of the same", &engine.Op{Kind: engine.Read, Buf: in[:size], Offset: d.base}); err != nil {
		return err
	}
	d.sameBytes(out[:size], in[:size])
	across := out[page-size/2:][:size]
	if err := d.dmaStep("O_DIRECT write across two pages", &engine.Op{Kind: engine.Write, Buf: across, Offset: d.base}); err != nil {
		return err
	}
	return d.dmaCopyStep(across)
}

// dmaRows shows how a request's pages came to the hardware.
func (s *stepView) dmaRows(w *seen, m tracefs.Event) {
	way := map[string]string{
		"direct":   "the page's own",
		"remapped": "swiotlb's or an IOMMU's",
		"bounced":  "a stand-in's",
	}
	for word, says := range way {
		if m.Has(word) {
			s.row("pci_map_sg", "dma_map_sgtable", "%d at 0x%x, %s", m.Uint("segments"), m.Uint("address"), says)
		}
	}
	s.row("an interrupt each", "request_irq, pci_alloc_irq_vectors", "%d interrupts for %d segments",
		w.after.Interrupts-w.before.Interrupts, w.after.DMASegments-w.before.DMASegments)
}

// dmaStep makes one O_DIRECT transfer.
func (d *demo) dmaStep(title string, op *engine.Op) error {
	s := d.step(title)
	w, err := d.watch(func() error {
		_, err := d.engine("preadv", d.direct, op)
		return errors.Join(err, op.Err)
	})
	if err != nil {
		return err
	}
	page := uint64(d.info.PageSize)
	pages := (uint64(uintptr(unsafe.Pointer(unsafe.SliceData(op.Buf))))%page + uint64(len(op.Buf)) + page - 1) / page
	take, dirty, release := familyWords(ioctlapi.FamilyPin, op.Kind)
	maps, unmaps := w.of("dio_dma_map"), w.of("dio_dma_unmap")
	s.row("get_user_pages", take, "%d pages pinned (FOLL_PIN)", w.sum("dio_pin", "pages"))
	s.row("a scatterlist", "sg_alloc_table_from_pages", "%d pages, %d entries", w.sum("dio_pin", "pages"), w.sum("dio_dma_map", "entries"))
	if len(maps) == 1 {
		s.dmaRows(&w, maps[0])
	}
	s.row("pci_unmap_sg", "dma_unmap_sgtable", "%d requests unmapped", len(unmaps))
	s.row("SetPageDirty", dirty, "%d pages dirtied", w.sum("dio_dirty", "pages"))
	s.row("page_cache_release", release, "%d pages released", w.sum("dio_release", "pages"))
	if len(maps) == 1 && maps[0].Has("bounced") {
		s.line("the page is out of the hardware's reach: its bytes go by way of the driver's buffer, a stand-in")
	}
	s.line("done within %d ms; the hardware itself takes 100 for each segment", w.elapsed.Milliseconds())

	s.check(len(maps) == 1 && len(unmaps) == 1, "mapped once, unmapped once")
	if len(maps) == 1 {
		segments := maps[0].Uint("segments")
		s.check(w.after.DMASegments-w.before.DMASegments == segments && w.after.Interrupts-w.before.Interrupts == segments,
			"the hardware moved %d segments, and ended each with an interrupt", segments)
		bounced := w.after.DMABounced - w.before.DMABounced
		s.check((bounced == 1) == maps[0].Has("bounced"), "the driver's counters say the same as its tracepoints")
	}
	req := w.of("dio_submit")
	if len(req) == 1 {
		n := req[0].Uint("req")
		unmapped, released, told := w.at("dio_dma_unmap", n), w.at("dio_release", n), w.at("dio_complete", n)
		s.check(unmapped > 0 && unmapped < released && released < told, "unmapped before released, released before told")
	}
	s.pageCheck(op.Kind, &w, pages)
	return nil
}

// pageCheck is what must hold of the pages of any direct transfer.
func (s *stepView) pageCheck(kind engine.Kind, w *seen, pages uint64) {
	pinned, released, dirtied := w.sum("dio_pin", "pages"), w.sum("dio_release", "pages"), w.sum("dio_dirty", "pages")
	s.check(pinned == pages && released == pages, "pinned = released = %d pages", pages)
	if kind == engine.Read {
		s.check(dirtied == pages, "all %d pages that the device wrote were marked dirty", pages)
	} else {
		s.check(dirtied == 0, "no page was marked dirty: nothing in memory changed")
	}
}

// dmaCopyStep reads without O_DIRECT: by way of a page of the kernel's.
func (d *demo) dmaCopyStep(want []byte) error {
	_, in := d.buffers()
	got := in[:len(want)]
	clear(got)
	s := d.step("Without O_DIRECT the hardware fills a page of the kernel's, which is copied")
	op := &engine.Op{Kind: engine.Read, Buf: got, Offset: d.base}
	w, err := d.watch(func() error {
		_, err := d.engine("preadv", d.plain, op)
		return errors.Join(err, op.Err)
	})
	if err != nil {
		return err
	}
	s.line("%d segments by DMA, then %d bytes copied; %d pages of the caller's pinned", w.after.DMASegments-w.before.DMASegments,
		w.after.BytesCopied-w.before.BytesCopied, w.after.PagesPinned-w.before.PagesPinned)
	s.check(w.after.BytesCopied-w.before.BytesCopied == uint64(len(want)) && w.after.DMASegments > w.before.DMASegments, "moved by DMA, and copied")
	s.check(w.after.PagesPinned == w.before.PagesPinned, "no page of the caller was pinned")
	d.sameBytes(want, got)
	return nil
}
