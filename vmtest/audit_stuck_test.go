// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A process whose request is lost can't end, be it the command or a child that the
// command waits for: the audit ends without it, with its verdict. What was lost comes
// back when the fault is cleared.
func TestAuditStuck(t *testing.T) {
	configure(t, "--latency", "2ms")
	read := "exec dioctl read --discard --direct --engine aio --block-size 16k --length 64k " + device
	const hold = 4 * time.Minute
	// What is stuck would keep the audit's output open.
	const quiet, killed = "exec >/dev/null 2>&1; ", "(sleep 2; kill -KILL $$) & "
	for name, command := range map[string][]string{
		"the command": {"sh", "-c", quiet + killed + read},
		"a child":     {"sh", "-c", quiet + "sh -c '" + killed + read + "'; true"},
	} {
		t.Run(name, func(t *testing.T) {
			mustRun(t, "dioctl", "fault", "arm", "--count", "1", "--hold", hold.String(), "lost-complete")
			begin := time.Now()
			o, v := audit(t, command...)
			took := time.Since(begin)
			if took > hold/2 {
				t.Errorf("it took %v", took)
			}
			mustRun(t, "dioctl", "fault", "clear", "lost-complete")
			if o.status != 1 || !slices.Equal(v.rules(), []string{"lost-complete"}) || !strings.Contains(o.stderr, "stuck in its exit") {
				t.Errorf("exit %d, rules %v, in %v\n%s%s", o.status, v.rules(), took, o.stdout, o.stderr)
			}
		})
	}
}
