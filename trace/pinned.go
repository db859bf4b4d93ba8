// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"dio/trace/audit"

	"github.com/cilium/ebpf"
)

// pinnedFolio is one folio that is pinned by our account.
type pinnedFolio struct {
	live    uint32            // by our account, in pages
	pins    uint32            // by the kernel's
	guessed bool              // a holder was guessed among several, or wasn't listed
	holds   map[uint64]uint32 // pages, by operation
}

// missing is how many of the pages that should be pinned aren't.
func (f pinnedFolio) missing() uint32 { return f.live - min(f.live, f.pins) }

// pinned is all folios that are pinned at one moment.
type pinned map[uint64]pinnedFolio

func (p pinned) pages() uint64 {
	var n uint64
	for _, f := range p {
		n += uint64(f.live)
	}
	return n
}

// pinned reads the account, and asks the kernel's of each folio in it.
func (s *Session) pinned() (pinned, error) {
	folios, err := readMap[uint64, auditFolioState](s.objs.Maps["folios"])
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(folios, func(_ uint64, f auditFolioState) bool { return f.Live == 0 })
	if len(folios) == 0 {
		return nil, nil
	}
	holds, err := readMap[auditHoldKey, auditHold](s.objs.Maps["holds"])
	if err != nil {
		return nil, err
	}
	out := pinned{}
	for folio, state := range folios {
		pins, err := s.kernelPins(folio)
		if err != nil {
			return nil, err
		}
		out[folio] = pinnedFolio{live: state.Live, pins: pins, guessed: state.Misled|state.Unlisted != 0, holds: map[uint64]uint32{}}
	}
	for k, h := range holds {
		if f, ok := out[k.Folio]; ok {
			f.holds[k.Op] = h.Pages
		}
	}
	return out, nil
}

// kernelPins asks the kernel's own count of a folio's pins.
func (s *Session) kernelPins(folio uint64) (uint32, error) {
	ret, err := s.objs.Programs["count_pins"].Run(&ebpf.RunOptions{Context: []uint64{folio}})
	if err != nil {
		return 0, fmt.Errorf("ask for a page's pins: %w", err)
	}
	return ret, nil
}

// held sums up, by operation, the pages that are pinned by our account and
// by the kernel's.
func (s *Session) held(p pinned, ops map[uint64]auditOp) []audit.Held {
	byOp := holders(p, ops)
	var out []audit.Held
	for _, id := range slices.Sorted(maps.Keys(byOp)) {
		if byOp[id] > 0 {
			out = append(out, audit.Held{Pages: byOp[id], Op: s.fullOp(ops[id])})
		}
	}
	return out
}

// holders are the pages by operation; 0: it isn't known which. Where holders were
// guessed, a release of one that has ended may have been taken for that of one that
// goes on: while there is such a one, nobody is known to hold a page.
func holders(p pinned, ops map[uint64]auditOp) map[uint64]uint32 {
	mistaken := false
	for _, op := range ops {
		mistaken = mistaken || op.Completions == 0 && op.Live < op.Taken
	}
	byOp := map[uint64]uint32{}
	for _, f := range p {
		left := min(f.live, f.pins)
		if f.guessed && mistaken {
			byOp[0] += left
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(f.holds)) {
			n := min(left, f.holds[id])
			byOp[id] += n
			left -= n
		}
		byOp[0] += left // by no known operation
	}
	return byOp
}

// unseenReleases counts pages that our account holds and the kernel doesn't:
// their release passed no hook. What was released after the programs stopped
// looks the same, so they have to be gone before that, too, and all who hold the
// folio must have ended before the first look: one that goes on pins anew.
func unseenReleases(before, after pinned, looked time.Duration, ops map[uint64]auditOp) uint64 {
	var n uint64
	for folio, f := range after {
		was, ok := before[folio]
		if !ok || !maps.Equal(was.holds, f.holds) {
			continue
		}
		goesOn := func(id uint64) bool {
			op, ok := ops[id]
			return ok && (op.Completions == 0 || time.Duration(op.EndNs) > looked)
		}
		if slices.ContainsFunc(slices.Collect(maps.Keys(f.holds)), goesOn) {
			continue
		}
		n += uint64(min(was.missing(), f.missing()))
	}
	return n
}
