// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Where there is no tracefs the auditor can't ask for places to note returns in, and
// many kernels have too few by themselves: then it says that it missed some, and
// nothing is clean. io_uring's own threads return to no system call, at whose end that
// would show.
func TestAuditFewPlaces(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	withoutTracefs(t)
	t.Setenv(auditedVariable, "1")
	for _, test := range []string{"TestDriverManyWait", "TestDriverManySplices", "TestDriverManyCommands"} {
		if test == "TestDriverManyCommands" && !hasCommands(t, openDevice(t)) {
			continue
		}
		o, v := audit(t, self, "-test.run", "^"+test+"$")
		for _, f := range v.Findings {
			// What comes of a pin that was missed is advice: nothing is proven.
			if f.Severity == "error" {
				t.Errorf("%s: %s\n%s", test, f.Rule, o.stdout)
			}
		}
		told := false
		for _, c := range v.Lost.Causes {
			told = told || c.Why == "a return of a function unseen"
		}
		switch v.Verdict {
		case "clean":
			// With its one write, that of commands has no other requests.
			if v.Operations < manyWait || test == "TestDriverManyCommands" && v.Completions.Completed < manyWait {
				t.Errorf("%s: clean, with %d operations and %+v of %d", test, v.Operations, v.Completions, manyWait)
			}
		case "incomplete":
			if !told {
				t.Errorf("%s: incomplete by %+v", test, v.Lost.Causes)
			}
		default:
			t.Errorf("%s: verdict %s", test, v.Verdict)
		}
		t.Logf("%s: %s, %+v", test, v.Verdict, v.Lost.Causes)
	}
}

// withoutTracefs has the commands that the test starts find none. The thread that it
// takes away from the process for that ends with the test.
func withoutTracefs(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal("unshare:", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal("make the mounts private:", err)
	}
	mounts, err := os.ReadFile("/proc/thread-self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		// debugfs mounts it when it's looked for.
		if f := strings.Fields(line); f[2] == "tracefs" || f[2] == "debugfs" {
			if err := unix.Unmount(f[1], unix.MNT_DETACH); err != nil && err != unix.EINVAL {
				t.Fatalf("unmount %s: %v", f[1], err)
			}
		}
	}
}
