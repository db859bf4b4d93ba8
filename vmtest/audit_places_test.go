// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
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
	t.Setenv(auditedVariable, "1")
	for _, test := range []string{"TestDriverManyWait", "TestDriverManySplices", "TestDriverManyCommands"} {
		if test == "TestDriverManyCommands" && !hasCommands(t, openDevice(t)) {
			continue
		}
		o, v := auditWithoutTracefs(t, self, "-test.run", "^"+test+"$")
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

// auditWithoutTracefs audits the command where the auditor finds no tracefs.
func auditWithoutTracefs(t *testing.T, args ...string) (outcome, verdict) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	// The one that debugfs mounts below itself, when it's looked for, goes with it.
	const script = `for d in /sys/kernel/debug /sys/kernel/tracing; do
			while umount -l $d 2>/dev/null; do :; done
		done
		if grep -E " (tracefs|debugfs) " /proc/self/mounts; then exit 99; fi
		exec "$@"`
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", script, "sh", "dioctl", "audit", "--format", "json", "--"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	o := outcomeOf(t, ctx, cmd)
	return o, verdictOf(t, o)
}
