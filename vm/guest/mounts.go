// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// mount is one line of the guest's mount table.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
	optional               bool // kernels may lack it
}

// shadows tells of a mount that would hide files which the host put below
// its target. The root is a tmpfs itself, so nothing is lost without it.
func (m mount) shadows(sys System) bool { return m.fstype == "tmpfs" && !sys.Empty(m.target) }

const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// early is what finding the port and loading modules need.
var early = []mount{
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755", false},
	{"proc", "/proc", "proc", plain, "", false},
	{"sysfs", "/sys", "sysfs", plain, "", false},
}

// late is the rest of a normal system.
var late = []mount{
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666", false},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", false},
	{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", false},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755", false},
	{"debugfs", "/sys/kernel/debug", "debugfs", plain, "", true},
	{"tracefs", "/sys/kernel/tracing", "tracefs", plain, "", true},
	{"bpf", "/sys/fs/bpf", "bpf", plain, "mode=0700", true},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", plain, "", true},
	{"configfs", "/sys/kernel/config", "configfs", plain, "", true},
	{"hugetlbfs", "/dev/hugepages", "hugetlbfs", unix.MS_NOSUID | unix.MS_NODEV, "", true},
}

// mountAll mounts the table in order. A kernel that lacks an optional file
// system, or already mounted one, is no error.
func mountAll(sys System, table []mount) error {
	for _, m := range table {
		if err := sys.Mkdir(m.target, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			if m.optional {
				continue // /sys has the mount point only with the file system
			}
			return fmt.Errorf("make %s: %w", m.target, err)
		}
		if m.shadows(sys) {
			continue
		}
		err := sys.Mount(m.source, m.target, m.fstype, m.flags, m.data)
		switch {
		case err == nil, errors.Is(err, unix.EBUSY):
		case m.optional && (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)):
		default:
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
		}
	}
	return nil
}
