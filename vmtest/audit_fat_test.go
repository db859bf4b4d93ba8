// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The auditor knows no driver: a file system's direct I/O, through the block
// layer and by the kernel's old way, which pins some pages anew that it has.
func TestAuditFAT(t *testing.T) {
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(known), "\tvfat\n") {
		if checked(t) {
			t.Skip("the debug kernel has no FAT")
		}
		t.Fatal("no FAT here: load loop, vfat, nls_cp437 and nls_ascii, as scripts/guest-test does")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 40<<20); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "busybox", "mkdosfs", image)
	loop := strings.TrimSpace(string(mustRun(t, "busybox", "losetup", "-f").stdout))
	mustRun(t, "busybox", "losetup", loop, image)
	t.Cleanup(func() { mustRun(t, "busybox", "losetup", "-d", loop) })
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	// By default each distribution takes another of the kernel's character sets.
	if err := unix.Mount(loop, mount, "vfat", 0, "iocharset=ascii,codepage=437"); err != nil {
		t.Fatalf("mount %s: %v", loop, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Errorf("unmount %s: %v", mount, err)
		}
	})
	source, target := sourceFile(t, 1<<20), filepath.Join(mount, "file")
	mustRun(t, "dioctl", "copy", source, target)
	for _, engine := range []string{"preadv", "aio", "io_uring"} {
		t.Run(engine, func(t *testing.T) {
			o, v := audit(t, "dioctl", "copy", "-e", engine, "--direct", "--depth", "8", "-b", "64k", target, target+"."+engine)
			if o.status != 0 || v.Verdict != "clean" || v.Lost.Events != 0 || v.Lost.UntrackedPages != 0 {
				t.Errorf("exit %d, verdict %s, rules %v: %s%s", o.status, v.Verdict, v.rules(), o.stdout, o.stderr)
			}
			if v.Pins.Taken != v.Pins.Released {
				t.Errorf("pins %+v", v.Pins)
			}
			mustRun(t, "cmp", source, target+"."+engine)
		})
	}
}
