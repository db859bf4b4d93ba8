// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	kmemleakFile = "/sys/kernel/debug/kmemleak"
	// jiffiesFile has the counter by which kmemleak dates objects.
	jiffiesFile = "/proc/timer_list"
)

// youngest is how old an object must be for kmemleak to report it.
const youngest = 5 * time.Second

// Jiffies is the kernel's clock, for Kmemleak to tell the run's objects from
// the boot's; 0 when there is none to read, or no leak detector.
func (Linux) Jiffies() uint64 {
	if _, err := os.Stat(kmemleakFile); err != nil {
		return 0
	}
	b, err := os.ReadFile(jiffiesFile)
	if err != nil {
		return 0
	}
	return number(string(b), "jiffies: ")
}

// Kmemleak scans twice: the first time an object is only noted, and what was
// allocated last has to come of age before it is told. The detector switches
// itself off when it runs out of memory: an error then.
func (Linux) Kmemleak(since uint64) (string, error) {
	err := writeExisting(kmemleakFile, "scan")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // this kernel has none
	}
	if err == nil {
		time.Sleep(youngest + time.Second)
		err = writeExisting(kmemleakFile, "scan")
	}
	if err != nil {
		return "", fmt.Errorf("scan for leaks: %w: is the detector off?", err)
	}
	b, err := os.ReadFile(kmemleakFile)
	return leaksSince(string(b), since), err
}

// leaksSince are the objects of a report that were not there before: what the
// kernel itself lost while it came up is its own business.
func leaksSince(report string, since uint64) string {
	const head = "unreferenced object "
	var out strings.Builder
	for i, object := range strings.Split(report, head) {
		at := number(object, "jiffies ")
		if i > 0 && (at >= since || at == 0) {
			out.WriteString(head + object)
		}
	}
	return strings.TrimSpace(out.String())
}

// number is the one behind label; 0 when there is none.
func number(text, label string) uint64 {
	_, rest, _ := strings.Cut(text, label)
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	n, _ := strconv.ParseUint(rest, 10, 64)
	return n
}
