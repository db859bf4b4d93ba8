// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Files that the kernel makes up say 0 bytes, or a page: they are read to
// their end whatever they say.
func TestCopyOfKernelFiles(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "target")
	for _, src := range []string{"/proc/version", "/proc/self/mountinfo", "/sys/devices/system/cpu/online"} {
		want, err := os.ReadFile(src)
		if err != nil {
			t.Logf("%s isn't here: %v", src, err)
			continue
		}
		status, out, msg := dioctl(t, "copy", src, dst)
		if got, _ := os.ReadFile(dst); status != exitGood || !bytes.Equal(got, want) {
			t.Errorf("%s: status %d, %d of %d bytes, %s%s", src, status, len(got), len(want), out, msg)
		}
		status, _, msg = dioctl(t, "copy", "--from-offset", "1", "--length", "1", src, dst)
		if got, _ := os.ReadFile(dst); status != exitGood || string(got) != string(want[1:2]) {
			t.Errorf("%s: a byte: status %d, %q, %s", src, status, got, msg)
		}
		// What can't be had by an engine isn't taken for nothing.
		if status, _, msg = dioctl(t, "copy", "--read-engine", "mmap", src, dst); status != exitEnvironment || !strings.Contains(msg, "can't be mapped") {
			t.Errorf("%s by mmap: status %d, %s", src, status, msg)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, engine := range []string{"preadv", "mmap", "splice"} {
		status, _, msg := dioctl(t, "copy", "--engine", engine, "--direct=auto", empty, dst)
		if got, err := os.ReadFile(dst); status != exitGood || len(got) != 0 || err != nil {
			t.Errorf("an empty file by %s: status %d, %d bytes, %v, %s", engine, status, len(got), err, msg)
		}
	}
	if status, _, msg := dioctl(t, "copy", "--from-offset", "1", empty, dst); status != exitUsage {
		t.Errorf("past the end of an empty file: status %d, %s", status, msg)
	}
}
