// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"errors"
	"testing"

	"dio/trace/audit"
)

// However many events have a stack, it is read once, and each address is looked
// up once, in whichever stacks it stands.
func TestStacksOnce(t *testing.T) {
	reads, frames, lines := 0, map[uint64]int{}, 0
	s := stacks{
		handlers: []audit.Frame{{Function: "drv_read_iter", Module: "drv"}},
		read: func(id uint32, pcs *[32]uint64) error {
			reads++
			if id > 1 {
				return errors.New("no such stack")
			}
			copy(pcs[:], [][]uint64{{10, 20, 30}, {20, 40}}[id])
			return nil
		},
	}
	var events []audit.Stack
	for range 10_000 {
		events = append(events, s.get(1), s.get(2), s.below(1, 2), s.below(1, 0), s.get(3))
	}
	if reads != 4 {
		t.Errorf("%d reads of 3 stacks, one of which has two forms", reads)
	}
	s.name(func(pc uint64) audit.Frame {
		frames[pc]++
		return audit.Frame{Function: "f", Module: "drv", Offset: pc}
	}, func(string, string, uint64) (string, int) {
		lines++
		return "f.c", 7
	})
	for _, pc := range []uint64{10, 20, 30, 40} {
		if frames[pc] != 1 {
			t.Errorf("%d is looked up %d times", pc, frames[pc])
		}
	}
	if lines != 5 { // the driver's function, too
		t.Errorf("%d lines looked up, want 5", lines)
	}
	for i, want := range []int{3, 2, 3, 1, 0} {
		for _, st := range [2]audit.Stack{events[i], events[len(events)-5+i]} {
			if len(st) != want {
				t.Fatalf("stack %d is %+v, want %d frames", i, st, want)
			}
			for _, f := range st {
				if f.Function == "" || f.File != "f.c" || f.Line != 7 {
					t.Errorf("stack %d: %+v has no name or line", i, f)
				}
			}
		}
	}
	if f := events[2][0]; f.Function != "drv_read_iter" {
		t.Errorf("the driver's function comes first, not %+v", f)
	}
}

// Where there is no stack, nothing is read.
func TestNoStack(t *testing.T) {
	var s stacks
	if st := s.get(0); st != nil || s.any() {
		t.Errorf("%+v", st)
	}
}
