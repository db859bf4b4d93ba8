// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"errors"
	"slices"
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

// Frame pointers leave out who called the function that was just entered. It is put
// where it belongs, below that function and whatever called the program; where it
// is there already, nothing is put.
func TestStacksCaller(t *testing.T) {
	const base = 0xffffffff_00000000
	names := map[uint64]audit.Frame{
		base | 1: {Function: "bpf_prog_1", Module: "bpf"}, base | 2: {Function: "bpf_trampoline_2", Module: "bpf"},
		base | 3: {Function: "unpin_user_pages"}, base | 4: {Function: "drv_release", Module: "drv"}, base | 5: {Function: "drv_read", Module: "drv"},
	}
	for name, c := range map[string]struct {
		pcs    []uint64
		caller uint64
		want   []string
	}{
		"left out":                {[]uint64{3, 5}, 4, []string{"unpin_user_pages", "drv_release", "drv_read"}},
		"there":                   {[]uint64{3, 4, 5}, 4, []string{"unpin_user_pages", "drv_release", "drv_read"}},
		"left out, a trampoline":  {[]uint64{1, 2, 3, 5}, 4, []string{"bpf_prog_1", "bpf_trampoline_2", "unpin_user_pages", "drv_release", "drv_read"}},
		"there, a trampoline":     {[]uint64{1, 2, 3, 4}, 4, []string{"bpf_prog_1", "bpf_trampoline_2", "unpin_user_pages", "drv_release"}},
		"unknown":                 {[]uint64{3, 5}, 0, []string{"unpin_user_pages", "drv_read"}},
		"nothing else":            {[]uint64{3}, 4, []string{"unpin_user_pages", "drv_release"}},
		"nothing but the tracing": {[]uint64{1, 2}, 4, []string{"bpf_prog_1", "bpf_trampoline_2", "drv_release"}},
		"no frame":                {nil, 4, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := stacks{read: func(_ uint32, pcs *[32]uint64) error {
				for i, pc := range c.pcs {
					pcs[i] = base | pc
				}
				return nil
			}}
			st := s.get(7 | c.caller<<32)
			if again := s.get(7 | c.caller<<32); len(again) != len(st) {
				t.Errorf("the second time it has %d frames, not %d", len(again), len(st))
			}
			s.name(func(pc uint64) audit.Frame { return names[pc] }, func(string, string, uint64) (string, int) { return "", 0 })
			var got []string
			for _, f := range st {
				got = append(got, f.Function)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// Where there is no stack, nothing is read.
func TestNoStack(t *testing.T) {
	var s stacks
	if st := s.get(0); st != nil || s.any() {
		t.Errorf("%+v", st)
	}
}
