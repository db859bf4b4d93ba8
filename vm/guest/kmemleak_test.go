// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"strings"
	"testing"
)

const leakReport = `unreferenced object 0xffff888101 (size 64):
  comm "swapper/0", pid 1, jiffies 4294667397
  hex dump (first 32 bytes):
    00 01 02
  backtrace (crc 0):
    kmalloc_noprof+0x10/0x20
unreferenced object 0xffff888102 (size 77):
  comm "insmod", pid 107, jiffies 4294670000 (age 12.0s)
  backtrace (crc 1):
    leak+0x10/0x20 [mistake]
`

func TestLeaksSince(t *testing.T) {
	for _, c := range []struct {
		since uint64
		want  int
	}{{0, 2}, {4294667397, 2}, {4294667398, 1}, {4294670000, 1}, {4294670001, 0}} {
		got := leaksSince(leakReport, c.since)
		if n := strings.Count(got, "unreferenced object"); n != c.want {
			t.Errorf("since %d: %d objects, want %d", c.since, n, c.want)
		}
		if c.want == 1 && (!strings.HasPrefix(got, "unreferenced object 0xffff888102") || !strings.HasSuffix(got, "[mistake]")) {
			t.Errorf("since %d: %q", c.since, got)
		}
	}
	if got := leaksSince("", 0); got != "" {
		t.Errorf("%q", got)
	}
}

func TestNumber(t *testing.T) {
	if n := number("Timer List Version: v0.10\ncpu: 0\n  jiffies: 4294667397\n", "jiffies: "); n != 4294667397 {
		t.Error(n)
	}
	if n := number("jiffies 7", "jiffies "); n != 7 {
		t.Error(n)
	}
	if n := number("nothing", "jiffies: "); n != 0 {
		t.Error(n)
	}
}
