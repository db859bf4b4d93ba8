// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"dio/vm/wire"
)

// The real Start and Wait, which need no root: streams, status, group.
func TestLinuxStart(t *testing.T) {
	p, err := Linux{}.Start(Command{Path: "/bin/sh", Args: []string{"sh", "-c", "cat; echo err >&2; exit 5"}, Dir: "/nonexistent", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stdin.Write([]byte("in")); err != nil {
		t.Fatal(err)
	}
	if err := p.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(p.Stdout)
	if err != nil || string(out) != "in" {
		t.Errorf("stdout %q, %v", out, err)
	}
	if errText, err := io.ReadAll(p.Stderr); err != nil || string(errText) != "err\n" {
		t.Errorf("stderr %q, %v", errText, err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(p.Pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 5 {
		t.Errorf("status %v, %v", ws.ExitStatus(), err)
	}
	if _, err := (Linux{}).Start(Command{Path: "/nonexistent", Args: []string{"x"}, Dir: "/"}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a missing program: %v", err)
	}
}

func TestLinuxTTY(t *testing.T) {
	p, err := Linux{}.Start(Command{Path: "/bin/sh", Args: []string{"sh", "-c", "stty size; tty >/dev/null && echo terminal"}, Dir: "/",
		Env: []string{"PATH=/usr/bin:/bin"}, TTY: &wire.Size{Rows: 11, Cols: 22}})
	if err != nil {
		t.Skipf("no pseudo terminal here: %v", err)
	}
	out, err := io.ReadAll(p.Stdout)
	if err != nil || string(out) != "11 22\r\nterminal\r\n" {
		t.Errorf("%q, %v", out, err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(p.Pid, &ws, 0, nil); err != nil {
		t.Error(err)
	}
}
