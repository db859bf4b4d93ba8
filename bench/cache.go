// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dio/engine"
)

// cached tells whether a file's bytes may lie in the page cache.
func cached(f *engine.File) bool { return f.Kind == engine.Regular || f.Kind == engine.BlockDevice }

// evict throws the file's clean pages out of the page cache; dirty ones are
// written first.
func evict(f *engine.File) error {
	if f.Write {
		if err := unix.Fsync(f.FD); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("write back %s: %w", f.Path, err)
		}
	}
	if err := unix.Fadvise(f.FD, 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("evict the cache of %s: %w", f.Path, err)
	}
	return nil
}

// residentWindow is how much is asked of mincore at a time.
const residentWindow = 1 << 30

// resident is how many of the first size bytes lie in the page cache, in
// whole pages.
func resident(f *engine.File, size int64) (int64, error) {
	page := int64(unix.Getpagesize())
	vec := make([]byte, (min(size, residentWindow)+page-1)/page)
	pages := int64(0)
	for at := int64(0); at < size; at += residentWindow {
		part := int(min(residentWindow, size-at))
		m, err := unix.Mmap(f.FD, at, part, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return 0, fmt.Errorf("map %s to ask for its cache: %w", f.Path, err)
		}
		n := (int64(part) + page - 1) / page
		err = mincore(m, vec[:n])
		if e := unix.Munmap(m); err == nil {
			err = e
		}
		if err != nil {
			return 0, fmt.Errorf("mincore of %s: %w", f.Path, err)
		}
		for _, in := range vec[:n] {
			pages += int64(in & 1)
		}
	}
	return pages * page, nil
}

func mincore(m, vec []byte) error {
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, base(m), uintptr(len(m)), base(vec)); errno != 0 {
		return errno
	}
	return nil
}

// hugeBytes is how much of the mapping that begins at an address lies in huge
// pages; 0 when nobody tells.
func hugeBytes(start uintptr) int64 {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0
	}
	defer f.Close()
	inside := false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Text()
		if lo, rest, ok := strings.Cut(line, "-"); ok && !strings.Contains(lo, ":") {
			hi, _, _ := strings.Cut(rest, " ")
			a, err1 := strconv.ParseUint(lo, 16, 64)
			b, err2 := strconv.ParseUint(hi, 16, 64)
			if err1 == nil && err2 == nil {
				inside = uint64(start) >= a && uint64(start) < b
				continue
			}
		}
		if kb, ok := strings.CutPrefix(line, "AnonHugePages:"); ok && inside {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}
