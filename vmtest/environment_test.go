// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"strings"
	"testing"
)

// What is missing is named, with what to do about it, and nothing is lost.
func TestMissingThings(t *testing.T) {
	for _, c := range []struct {
		name   string
		script string
		status int
		words  []string
	}{
		{"no BTF", "mount -t tmpfs none /sys/kernel/btf && exec dioctl audit -- true", 3, []string{"BTF", "CONFIG_DEBUG_INFO_BTF"}},
		{"no device", "mount -t tmpfs none /dev && exec dioctl info", 3, []string{"/dev/dio0", "no such", "dioctl vm run"}},
		{"no tracefs", "umount /sys/kernel/tracing; umount /sys/kernel/debug/tracing 2>/dev/null; mount -t tmpfs none /sys/kernel/tracing; mount -t tmpfs none /sys/kernel/debug; exec dioctl demo direct", 3, []string{"mount -t tracefs"}},
		{"disk full", "mkdir -p $D && mount -t tmpfs -o size=64k none $D && dioctl copy --length 1M /dev/dio0 $D/x; s=$?; umount $D; exit $s", 3, []string{"no space"}},
		{"no such file", "exec dioctl copy /no/such/file /dev/dio0", 3, []string{"/no/such/file"}},
		{"no such command", "exec dioctl audit -- /no/such/command", 3, []string{"/no/such/command"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			script := fmt.Sprintf("D=%s/mnt; %s", t.TempDir(), c.script)
			o := run(t, "unshare", "-m", "sh", "-c", script)
			o.want(t, c.status)
			for _, word := range c.words {
				if !strings.Contains(strings.ToLower(o.stderr), strings.ToLower(word)) {
					t.Errorf("the error doesn't say %q: %s", word, o.stderr)
				}
			}
			t.Log(strings.TrimSpace(o.stderr))
		})
	}
}
