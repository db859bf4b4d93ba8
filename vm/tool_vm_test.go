// SPDX-License-Identifier: GPL-2.0-only

package vm_test

import (
	"errors"
	"io"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

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

// On a terminal the guest's shell has one too, of the same size; and this machine's is
// raw meanwhile, and afterwards as it was.
func TestVMShellOnTerminal(t *testing.T) {
	vmtest.Need(t)
	cmd := exec.CommandContext(t.Context(), vmtest.Dioctl(t), "vm", "shell", "--kernel", vmtest.Kernel(t).Name, "--no-dio", "--cpus", "1",
		"--timeout", "2m")
	ptm, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ptm.Close()
	defer tty.Close()
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 33, Cols: 101}); err != nil {
		t.Fatal(err)
	}
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string)
	go func() {
		var all strings.Builder
		_, _ = io.Copy(&all, ptm) // ends with the terminal
		said <- all.String()
	}()
	// Typed once it's raw: before, the boot is still this machine's to interrupt.
	raw := false
	for begin := time.Now(); !raw && time.Since(begin) < 2*time.Minute; time.Sleep(50 * time.Millisecond) {
		now, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		raw = now.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) == 0
	}
	if _, err := io.WriteString(ptm, "test -t 0 && test -t 2 && stty size; exit 3\r"); err != nil {
		t.Error(err)
	}
	err = cmd.Wait()
	after, terr := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	tty.Close()
	ptm.Close()
	out := <-said
	if !raw || cmd.ProcessState.ExitCode() != 3 || !strings.Contains(out, "\n33 101\r\n") {
		t.Errorf("raw %v, %v, want status 3 and a terminal of 33 rows: %q", raw, err, out)
	}
	if terr != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("the terminal was %+v and is %+v, %v", before, after, terr)
	}
}

// A VM that fails is the tool's status 125, whatever became of the command.
func TestVMFailureIsTheTools(t *testing.T) {
	vmtest.Need(t)
	for _, c := range []struct {
		name, limit, script, says string
	}{
		{"time limit", "15s", "sleep 600", "time limit"},
		{"panic", "2m", "echo c > /proc/sysrq-trigger; sleep 60", "Kernel panic - not syncing: sysrq triggered crash"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ran := tool(t, "", "vm", "run", "--kernel", vmtest.Kernel(t).Name, "--no-dio", "--cpus", "1", "--timeout", c.limit, "--", "sh", "-c", c.script)
			if ran.status != 125 || !strings.Contains(ran.stderr, c.says) {
				t.Errorf("status %d, want 125 and %q: %s", ran.status, c.says, ran.stderr)
			}
		})
	}
}
