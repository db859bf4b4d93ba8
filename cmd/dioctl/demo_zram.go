// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// zramClass is where a loaded zram driver makes and removes disks.
const zramClass = "/sys/class/zram-control"

// zramDisk is a disk in memory, made for a tour and removed after it; disks
// that were there before are left alone.
type zramDisk struct {
	number int
	node   string // its device file
	swap   bool   // swapping to it is on
}

// newZram makes a disk of size bytes.
func newZram(size int64) (_ *zramDisk, err error) {
	text, err := os.ReadFile(filepath.Join(zramClass, "hot_add"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(errors.New("there is no zram: this tour needs a disk in memory to swap to"),
			"load it (modprobe zram), or run this in a VM: dioctl vm run --kmod zram -- dioctl demo dirty")
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, withHint(fmt.Errorf("make a zram disk: %w", err), "run it as root")
	}
	if err != nil {
		return nil, fmt.Errorf("make a zram disk: %w", err)
	}
	z := &zramDisk{}
	if z.number, err = strconv.Atoi(string(bytes.TrimSpace(text))); err != nil {
		return nil, fmt.Errorf("make a zram disk: its number: %w", err)
	}
	z.node = fmt.Sprintf("/dev/zram%d", z.number)
	defer func() {
		if err != nil {
			err = errors.Join(err, z.Close())
		}
	}()
	if err := z.setSize(size); err != nil {
		return nil, err
	}
	// udev or devtmpfs makes the node, not always at once.
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err = os.Stat(z.node); err == nil || time.Now().After(deadline) {
			return z, err
		}
	}
}

func (z *zramDisk) set(name, value string) error {
	path := fmt.Sprintf("/sys/block/zram%d/%s", z.number, name)
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set up %s: %w", z.node, err)
	}
	return nil
}

// setSize brings the disk to life, with the first compression that works: the
// default's may be in a module that isn't here, and before 6.12 the kernel's
// own deflate isn't among those listed.
func (z *zramDisk) setSize(size int64) error {
	text := strconv.FormatInt(size, 10)
	err := z.set("disksize", text)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	listed, listing := os.ReadFile(fmt.Sprintf("/sys/block/zram%d/comp_algorithm", z.number))
	if listing != nil {
		return errors.Join(err, listing)
	}
	for _, name := range append(strings.Fields(string(listed)), "deflate") {
		if z.set("comp_algorithm", strings.Trim(name, "[]")) == nil && z.set("disksize", text) == nil {
			return nil
		}
	}
	return withHint(fmt.Errorf("%w: no compression of zram's works", err),
		"load one (modprobe lzo-rle), or run this in a VM: dioctl vm run --kmod zram --kmod lzo-rle -- dioctl demo dirty")
}

// swapMagic ends the first page of a swap area.
const swapMagic = "SWAPSPACE2"

// swapHeader is that page: version 1, the number of the last page, no bad ones.
func swapHeader(pageSize int, bytes int64) []byte {
	h := make([]byte, pageSize)
	binary.NativeEndian.PutUint32(h[1024:], 1)
	binary.NativeEndian.PutUint32(h[1028:], uint32(bytes/int64(pageSize)-1))
	copy(h[pageSize-len(swapMagic):], swapMagic)
	return h
}

// swapPreferred is SWAP_FLAG_PREFER with the highest priority: what the tour
// pages out goes here, whatever other swap there is.
const swapPreferred = 0x8000 | 0x7fff

// swapOn makes the disk of size bytes a swap area and uses it.
func (z *zramDisk) swapOn(size int64) error {
	f, err := os.OpenFile(z.node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(swapHeader(unix.Getpagesize(), size), 0)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("make %s a swap area: %w", z.node, err)
	}
	if err := swapCall(unix.SYS_SWAPON, z.node, swapPreferred); err != nil {
		return fmt.Errorf("swap to %s: %w", z.node, err)
	}
	z.swap = true
	return nil
}

// swapCall is swapon(2) or swapoff(2), which the unix package doesn't have.
func swapCall(number uintptr, path string, flags uintptr) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(number, pointer(p), flags, 0); errno != 0 {
		return errno
	}
	return nil
}

// Close removes the disk.
func (z *zramDisk) Close() error {
	if z.swap {
		if err := swapCall(unix.SYS_SWAPOFF, z.node, 0); err != nil {
			return fmt.Errorf("stop swapping to %s: %w", z.node, err)
		}
		z.swap = false
	}
	// udev may have the disk open for a moment.
	var err error
	for range 100 {
		err = os.WriteFile(filepath.Join(zramClass, "hot_remove"), []byte(strconv.Itoa(z.number)), 0)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", z.node, err)
	}
	return nil
}
