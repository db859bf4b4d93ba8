// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"maps"
	"testing"
	"time"
)

// Since when a process exits is kept for as long as it does and has overdue requests.
func TestNoteExits(t *testing.T) {
	both := map[int]bool{1: true, 2: true}
	var since map[int]time.Duration
	for i, c := range []struct {
		owners, exits map[int]bool
		want          map[int]time.Duration
	}{
		{both, map[int]bool{}, map[int]time.Duration{}},
		{both, map[int]bool{1: true, 3: true}, map[int]time.Duration{1: 1}},
		{both, both, map[int]time.Duration{1: 1, 2: 2}},
		{map[int]bool{2: true}, both, map[int]time.Duration{2: 2}},
		{both, both, map[int]time.Duration{1: 4, 2: 2}},
	} {
		since = noteExits(since, c.owners, func(pid int) bool { return c.exits[pid] }, time.Duration(i))
		if !maps.Equal(since, c.want) {
			t.Errorf("look %d: %v, want %v", i, since, c.want)
		}
	}
}
