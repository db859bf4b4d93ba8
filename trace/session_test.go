// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A refusal says what was tried, why it failed and what to do, and stays what it is.
func TestExplainLoad(t *testing.T) {
	for name, c := range map[string]struct {
		err, is   error
		want, not string
	}{
		"no rights": {
			fmt.Errorf("create map: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", unix.EPERM), unix.EPERM,
			"audit: create map: operation not permitted: the ", "rlimit"},
		"an old kernel": {fmt.Errorf("load: %w", ebpf.ErrNotSupported), ebpf.ErrNotSupported, "5.10 or newer", "\n"},
		"another":       {fmt.Errorf("load: %w", unix.ENOMEM), unix.ENOMEM, "audit: load: cannot allocate memory", "eBPF"},
	} {
		t.Run(name, func(t *testing.T) {
			err := explainLoad(c.err)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), c.not) {
				t.Errorf("%v, want %q, and not %q", err, c.want, c.not)
			}
		})
	}
}

// Children of processes that weren't watched yet when they forked are found by looking
// again; what never comes to an end is given up.
func TestWatchBelow(t *testing.T) {
	looks := [][]int{{2}, {2, 3}, {2, 3, 4}, {2, 3, 4}, {2, 3, 4, 5}}
	var watched []int
	watch := func(pids ...int) error { watched = append(watched, pids...); return nil }
	look := func(int) ([]int, error) { pids := looks[0]; looks = looks[1:]; return slices.Clone(pids), nil }
	if err := watchBelow(1, look, watch); err != nil || !slices.Equal(watched, []int{2, 3, 4}) {
		t.Errorf("watched %v, %v", watched, err)
	}
	n := 0
	endless := func(int) ([]int, error) { n++; return []int{n}, nil }
	if err := watchBelow(1, endless, watch); err != nil || n > 20 {
		t.Errorf("%v after %d looks", err, n)
	}
	full := errors.New("full")
	if err := watchBelow(1, endless, func(...int) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v, want that there was no place", err)
	}
}
