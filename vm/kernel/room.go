// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// scarce is so little room that it explains a failure: a kernel's packages have more.
const scarce = 100 << 20

// free is how many bytes the file system of dir has left for this user.
func free(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("space in %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// roomFor says so before long work when the file system of dir can't hold
// what it makes.
func roomFor(dir string, bytes uint64) error {
	got, err := free(dir)
	if err != nil || got >= bytes {
		return err
	}
	return fmt.Errorf("%s: no space: building takes %d GiB there, %d MiB are free: %s", dir, bytes>>30, got>>20, moreRoom)
}

const moreRoom = "free some, or let XDG_CACHE_HOME name a folder that has it"

// probably is the likely reason why something couldn't be fetched into dir, and
// what to do about it.
func probably(dir string) string {
	return likely(dir, "is there a network, and in it the mirror of this machine's apt sources?")
}

// damaged is the same for a package that couldn't be unpacked there.
func damaged(dir string) string {
	return likely(dir, "the file may be damaged: start again, and it's fetched anew")
}

func likely(dir, otherwise string) string {
	if got, err := free(dir); err == nil && got < scarce {
		return fmt.Sprintf("no space: %d MiB are free in %s: %s", got>>20, dir, moreRoom)
	}
	return otherwise
}
