// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who can't enter a private root is told before it's fetched, and by what it can be.
func TestEnterable(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		uid    int
		want   []string // in the error; none: no error
	}{
		"root":              {`[ "$1" = --mount ]`, 0, nil},
		"a user":            {`[ "$1 $2" = "--user --map-root-user" ]`, 1000, nil},
		"a restricted user": {"echo 'unshare: write failed /proc/self/uid_map: Operation not permitted' >&2; exit 1", 1000, []string{"uid_map", "as root", "kernel.apparmor_restrict_unprivileged_userns=0"}},
		"a container":       {"exit 1", 0, []string{"CAP_SYS_ADMIN"}},
	} {
		bin := t.TempDir()
		if err := os.WriteFile(filepath.Join(bin, "unshare"), []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin)
		err := enterable(t.Context(), c.uid)
		if (err != nil) != (c.want != nil) {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range c.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, without %q", name, err, want)
			}
		}
	}
}
