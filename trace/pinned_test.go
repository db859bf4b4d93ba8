// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"maps"
	"testing"
)

// A release counts as unseen only where what the audit's own end leaves behind
// can't explain it.
func TestUnseenReleases(t *testing.T) {
	const looked = 100
	ops := map[uint64]auditOp{
		1: {Completions: 1, EndNs: 50},
		2: {},
		3: {Completions: 1, EndNs: 150},
	}
	folio := func(live, pins uint32, holders ...uint64) pinnedFolio {
		f := pinnedFolio{live: live, pins: pins, holds: map[uint64]uint32{}}
		for _, id := range holders {
			f.holds[id] = live / uint32(len(holders))
		}
		return f
	}
	for name, c := range map[string]struct {
		before, after pinned
		want          uint64
	}{
		"nothing is pinned":                    {},
		"pinned still":                         {pinned{7: folio(4, 4, 1)}, pinned{7: folio(4, 4, 1)}, 0},
		"gone, and it was before":              {pinned{7: folio(4, 1, 1)}, pinned{7: folio(4, 1, 1)}, 3},
		"goes on going":                        {pinned{7: folio(4, 3, 1)}, pinned{7: folio(4, 0, 1)}, 1},
		"released after the end":               {pinned{7: folio(4, 4, 1)}, pinned{7: folio(4, 0, 1)}, 0},
		"pinned and released after the first":  {nil, pinned{7: folio(4, 0, 1)}, 0},
		"by an operation that goes on":         {pinned{7: folio(4, 0, 2)}, pinned{7: folio(4, 0, 2)}, 0},
		"by one that has just ended":           {pinned{7: folio(4, 0, 3)}, pinned{7: folio(4, 0, 3)}, 0},
		"by two, of which one goes on":         {pinned{7: folio(4, 0, 1, 2)}, pinned{7: folio(4, 0, 1, 2)}, 0},
		"by another now":                       {pinned{7: folio(4, 0, 1)}, pinned{7: folio(4, 0, 2)}, 0},
		"by one that isn't known any more":     {pinned{7: folio(4, 0, 9)}, pinned{7: folio(4, 0, 9)}, 4},
		"the kernel has more pins than we saw": {pinned{7: folio(4, 9, 1)}, pinned{7: folio(4, 9, 1)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := unseenReleases(c.before, c.after, looked, ops); got != c.want {
				t.Errorf("%d pages, want %d", got, c.want)
			}
		})
	}
}

// Who holds a page that several held can't be known while one goes on that may have
// had its release taken for another's.
func TestHolders(t *testing.T) {
	ended := auditOp{Completions: 1, Taken: 4, Live: 1}
	guessed := pinned{7: {live: 2, pins: 2, guessed: true, holds: map[uint64]uint32{1: 1, 2: 1}}}
	told := pinned{7: {live: 2, pins: 2, holds: map[uint64]uint32{1: 1, 2: 1}}}
	for name, c := range map[string]struct {
		pinned pinned
		ops    map[uint64]auditOp
		want   map[uint64]uint32
	}{
		"told":                           {told, map[uint64]auditOp{1: ended, 2: {Taken: 4, Live: 1}}, map[uint64]uint32{0: 0, 1: 1, 2: 1}},
		"guessed, and all have ended":    {guessed, map[uint64]auditOp{1: ended, 2: ended}, map[uint64]uint32{0: 0, 1: 1, 2: 1}},
		"guessed, one goes on":           {guessed, map[uint64]auditOp{1: ended, 2: {Taken: 4, Live: 4}}, map[uint64]uint32{0: 0, 1: 1, 2: 1}},
		"guessed, one has released some": {guessed, map[uint64]auditOp{1: ended, 3: {Taken: 4, Live: 3}}, map[uint64]uint32{0: 2}},
		"the kernel has fewer":           {pinned{7: {live: 2, pins: 1, holds: map[uint64]uint32{1: 1, 2: 1}}}, nil, map[uint64]uint32{0: 0, 1: 1, 2: 0}},
		"by nobody listed":               {pinned{7: {live: 3, pins: 3, holds: map[uint64]uint32{1: 1}}}, nil, map[uint64]uint32{0: 2, 1: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := holders(c.pinned, c.ops); !maps.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// What was taken is released, found no place, or is pinned.
func TestVanished(t *testing.T) {
	held := pinned{7: {live: 3}, 8: {live: 1}}
	for _, c := range []struct {
		taken, released, lost uint64
		held                  pinned
		want                  uint64
	}{
		{},
		{taken: 10, released: 10},
		{taken: 10, released: 6, held: held},
		{taken: 10, released: 4, lost: 1, held: held, want: 1},
		{taken: 10, released: 8, held: held}, // a program that runs has counted half of its work
		{taken: 10, want: 10},
	} {
		totals := auditTotals{PinsTaken: c.taken, PinsReleased: c.released, LostPages: c.lost}
		if got := vanished(totals, c.held); got != c.want {
			t.Errorf("%+v: %d vanished", c, got)
		}
	}
}
