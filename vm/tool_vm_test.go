// SPDX-License-Identifier: GPL-2.0-only

package vm_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"dio/vm/vmtest"
)

// toolRan is what a shell would see of a dioctl.
type toolRan struct {
	status         int
	stdout, stderr string
}

// tool runs dioctl with the input; only one that can't be started fails the test.
func tool(t *testing.T, input string, args ...string) toolRan {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), vmtest.Dioctl(t), args...)
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("dioctl %s: %v", strings.Join(args, " "), err)
	}
	return toolRan{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// Commands come to the shell through a pipe: what they say comes out, the way it
// was said, and nothing else; the shell's status is the tool's.
func TestVMShell(t *testing.T) {
	vmtest.Need(t)
	img := vmtest.Kernel(t)
	ran := tool(t, "echo hello\nuname -r\necho aside >&2\nexit 3\necho too late\n",
		"vm", "shell", "--kernel", img.Name, "--no-dio", "--cpus", "1", "--timeout", "2m")
	if want := "hello\n" + img.Release + "\n"; ran.status != 3 || ran.stdout != want || ran.stderr != "aside\n" {
		t.Errorf("%+v, want status 3 and %q", ran, want)
	}
	// Without a last word the status is that of the last command.
	if ran := tool(t, "false\n", "vm", "shell", "--kernel", img.Name, "--no-dio", "--cpus", "1", "--timeout", "2m"); ran.status != 1 {
		t.Errorf("%+v", ran)
	}
}
