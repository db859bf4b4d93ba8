// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"errors"
	"fmt"
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
