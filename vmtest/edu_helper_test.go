// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// The guest has two edu devices: one as QEMU makes it, whose DMA reaches 28 bits,
// and one that was given an open mask, though the driver takes it for the same
// until edu_dma_bits says otherwise.
const (
	eduPath     = "/dev/dio-edu0"
	eduOpenPath = "/dev/dio-edu1"
	eduSize     = 4096
	eduTransfer = 100 * time.Millisecond // of one stretch of memory, by QEMU's timer
	eduFolder   = "/sys/bus/pci/drivers/dio-edu/"
)

// edu opens an edu device; a guest without one fails the test.
func edu(t *testing.T, path string) *ioctlapi.Device {
	t.Helper()
	d, err := ioctlapi.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v: boot the guest with --device edu --device edu,dma_mask=0xffffffffffffffff, as scripts/guest-test does", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func eduRaw(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// eduFunction is the PCI device behind path: its folder in sysfs, and its name.
func eduFunction(t *testing.T, path string) (dir, name string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks("/sys/class/dio/" + filepath.Base(path) + "/device")
	if err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Base(dir)
}

func eduWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// eduParameter sets a parameter of the module for one test.
func eduParameter(t *testing.T, name, value string) {
	t.Helper()
	path := "/sys/module/dio/parameters/" + name
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	eduWrite(t, path, value)
	t.Cleanup(func() { eduWrite(t, path, strings.TrimSpace(string(before))) })
}

// eduBind binds the function and waits for its node.
func eduBind(t *testing.T, name, path string) {
	t.Helper()
	eduWrite(t, eduFolder+"bind", name)
	eduAwait(t, path)
}

func eduAwait(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s didn't come back: %v", path, err)
		}
	}
}
