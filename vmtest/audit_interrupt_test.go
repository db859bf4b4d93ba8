// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// countInterrupts is a command that says when it runs, and after some two seconds how
// many interrupts it had: before an audit sends another to a command that seems to
// ignore them, and so by few programs, each of which takes its time to start.
const countInterrupts = `n=0; trap 'n=$((n+1)); echo interrupted' INT; echo running
	i=0; while [ $i -lt 4 ]; do sleep 0.5; i=$((i+1)); done; echo interrupts: $n`

// A command under audit has one interrupt, whether it came from its terminal,
// which tells it, too, or from kill(1); and the audit goes on to its end.
func TestAuditInterrupt(t *testing.T) {
	for name, start := range map[string]func(*testing.T, *exec.Cmd) (*bufio.Scanner, func()){
		"terminal": onTerminal,
		"kill":     onPipe,
	} {
		t.Run(name, func(t *testing.T) {
			report := t.TempDir() + "/report"
			ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
			defer cancel()
			cmd := exec.CommandContext(ctx, "dioctl", "audit", "--format", "json", "--output", report, "--", "sh", "-c", countInterrupts)
			lines, interrupt := start(t, cmd)
			var said []string
			var at time.Time
			for lines.Scan() {
				// The terminal's echo may come amid any line.
				line := strings.TrimSpace(strings.ReplaceAll(lines.Text(), "^C", ""))
				said = append(said, line)
				if line == "running" {
					at = time.Now()
					interrupt()
				}
				if strings.HasPrefix(line, "interrupts:") {
					break
				}
			}
			took := time.Since(at)
			err := cmd.Wait()
			want := "\ninterrupts: 1"
			// Where the machine is so slow the audit takes it for one that ignores them.
			if name == "terminal" && took > 5*time.Second {
				want = "\ninterrupts: 2"
			}
			if got := strings.Join(said, "\n"); err != nil || !strings.HasSuffix(got, want) {
				t.Errorf("%v, and the command said in %v: %q", err, took, got)
			}
			text, err := os.ReadFile(report)
			if err != nil {
				t.Fatal(err)
			}
			if v := reported(t, text); v.Verdict != "clean" {
				t.Errorf("report %s", text)
			}
		})
	}
}

func onPipe(t *testing.T, cmd *exec.Cmd) (*bufio.Scanner, func()) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return bufio.NewScanner(out), func() { cmd.Process.Signal(os.Interrupt) }
}

// onTerminal starts it as the leader of a terminal of its own, where ^C is typed.
func onTerminal(t *testing.T, cmd *exec.Cmd) (*bufio.Scanner, func()) {
	t.Helper()
	ptm, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ptm.Close() })
	return bufio.NewScanner(ptm), func() {
		if _, err := ptm.Write([]byte{3}); err != nil {
			t.Errorf("type ^C: %v", err)
		}
	}
}
