// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// provocations are I/O on memory that no other command uses, by the fault that
// it gives an occasion for.
var provocations = map[ioctlapi.FaultID]struct {
	memory func(length int) ([]byte, error)
	write  bool
}{
	ioctlapi.FaultZeroPagePin: {memory: untouchedMemory, write: true},
	// Touched by nobody before, but by the device.
	ioctlapi.FaultDirtyUnlocked: {memory: sharedMemory},
}

func provocationNames() string {
	var names []string
	for _, id := range slices.Sorted(maps.Keys(provocations)) {
		names = append(names, id.String())
	}
	return strings.Join(names, ", ")
}

func faultProvokeCommand() *cli.Command {
	return &cli.Command{
		Name: "provoke", Usage: "do the I/O at which a fault is committed, where no other command does it", ArgsUsage: "NAME",
		Description: "For " + provocationNames() + ". One direct request of 16 KiB, a write of zeros or a read. The others are\n" +
			"committed in the course of read, write and copy.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "offset", Value: "0", Usage: "where on the device, in bytes: `SIZE`"},
			deviceFlag(),
		},
		Action: faultProvoke,
	}
}

func faultProvoke(c *cli.Context) error {
	if c.NArg() != 1 {
		return usageErrorf("fault provoke: want one fault's name after the flags: one of %s", provocationNames())
	}
	id, err := ioctlapi.ParseFault(c.Args().First())
	if err != nil {
		return withStatus(exitUsage, err)
	}
	p, ok := provocations[id]
	if !ok {
		return usageErrorf("fault provoke: %v is committed by other commands: %s (see: dioctl fault list)", id, faultWords[id].when)
	}
	offset, err := parseSize(c.String("offset"))
	if err != nil {
		return usageErrorf("fault provoke: --offset: %v", err)
	}
	path := c.String("device")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	mem, err := p.memory(faultBlock)
	if err != nil {
		return fmt.Errorf("make %d bytes of memory for %v: %w", faultBlock, id, err)
	}
	defer unix.Munmap(mem)
	do := unix.Pread
	if p.write {
		do = unix.Pwrite
	}
	n, err := do(fd, mem, offset)
	if err == nil && n != len(mem) {
		err = fmt.Errorf("%d of %d bytes were moved", n, len(mem))
	}
	if err != nil {
		return fmt.Errorf("provoke %v on %s at %d: %w", id, path, offset, err)
	}
	return nil
}

// untouchedMemory is backed by the zero page.
func untouchedMemory(length int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	// A huge page would be a zero page of its own.
	return mem, unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
}

// sharedMemory is a file's, on tmpfs.
func sharedMemory(length int) ([]byte, error) {
	fd, err := unix.MemfdCreate("dioctl", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(length)); err != nil {
		return nil, err
	}
	return unix.Mmap(fd, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}
