// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// diskSpare is the free space on the guest's disk, in bytes; the image is
// sparse, so it costs nothing until used.
const diskSpare = 1 << 30

// makeDisk makes an ext4 image of the folder dir; it needs no root.
func makeDisk(ctx context.Context, dir, image string) error {
	if fi, err := os.Stat(dir); err != nil {
		return fmt.Errorf("--disk: %w", err)
	} else if !fi.IsDir() {
		return fmt.Errorf("--disk %s: not a folder", dir)
	}
	bytesNeeded, inodes := int64(diskSpare), int64(4096)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inodes++
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if fi.Mode().IsRegular() {
			bytesNeeded += (fi.Size() + 4095) &^ 4095
		} else {
			bytesNeeded += 4096
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("--disk %s: %w", dir, err)
	}
	// Inodes and block maps on top.
	kib := (bytesNeeded + bytesNeeded/50 + inodes*512) >> 10
	cmd := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^has_journal",
		"-E", "lazy_itable_init=1", "-N", strconv.FormatInt(inodes, 10), "-d", dir, image, strconv.FormatInt(kib, 10)+"k")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make the disk of %s: mke2fs: %w: %s (install e2fsprogs if it's missing; is there space in %s?)",
			dir, err, bytes.TrimSpace(out.Bytes()), filepath.Dir(image))
	}
	return nil
}
