// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"dio/trace/audit"
)

// A clean audit says how its command ended; one that isn't clean says that, come
// what may of the command.
func TestAuditStatus(t *testing.T) {
	ended := func(script string) *os.ProcessState {
		cmd := exec.Command("sh", "-c", script)
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState
	}
	for _, c := range []struct {
		verdict, script string
		want            int
	}{
		{audit.VerdictClean, "", exitGood},
		{audit.VerdictClean, "exit 0", exitGood},
		{audit.VerdictClean, "exit 7", 7},
		{audit.VerdictClean, "kill -KILL $$", 137},
		{audit.VerdictViolations, "", exitFinding},
		{audit.VerdictViolations, "exit 0", exitFinding},
		{audit.VerdictViolations, "exit 7", exitFinding},
		{audit.VerdictIncomplete, "", exitEnvironment},
		{audit.VerdictIncomplete, "exit 0", exitEnvironment},
		{audit.VerdictIncomplete, "exit 7", exitEnvironment},
		{"a verdict of tomorrow", "exit 0", exitEnvironment},
	} {
		var p *os.ProcessState
		if c.script != "" {
			p = ended(c.script)
		}
		if got := auditStatus(c.verdict, p); got != c.want {
			t.Errorf("%s, command %q: %d, want %d", c.verdict, c.script, got, c.want)
		}
	}
}
