// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asDioctl makes this test binary the tool.
const asDioctl = "DIOCTL_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asDioctl) != "" {
		os.Exit(realMain(os.Args))
	}
	os.Exit(m.Run())
}

// dioctlProcess is the tool as a process of its own, that signals can reach.
func dioctlProcess(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asDioctl+"=1")
	return cmd
}

// ending waits for the process's end, and kills one that doesn't come to it.
func ending(t *testing.T, cmd *exec.Cmd) syscall.WaitStatus {
	t.Helper()
	limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func waitForFile(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// readerGone runs cmd with an output that nobody reads: how it ended, and what it said.
func readerGone(t *testing.T, cmd *exec.Cmd) (syscall.WaitStatus, string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ws := ending(t, cmd)
	return ws, stderr.String()
}

// A reader of the output that goes away must not keep what was made or changed
// from being put back.
func TestBrokenPipeEndsInOrder(t *testing.T) {
	made := filepath.Join(t.TempDir(), "made")
	cmd := dioctlProcess(t, "bench", "--size", "1M", "--engine", "psync", "--depth", "1", "--ops", "1", made)
	ws, stderr := readerGone(t, cmd)
	if _, err := os.Stat(made); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file that bench made: %v", err)
	}
	if !ws.Exited() || ws.ExitStatus() != exitBrokenPipe || strings.Contains(stderr, "dioctl:") {
		t.Errorf("status %#x, %q", ws, stderr)
	}
}

// Who reads the bytes themselves, and has enough, is told nothing either.
func TestReaderHasEnough(t *testing.T) {
	cmd := dioctlProcess(t, "read", "--length", "64M", "/dev/zero")
	if ws, stderr := readerGone(t, cmd); !ws.Exited() || ws.ExitStatus() != exitBrokenPipe || stderr != "" {
		t.Errorf("status %#x, %q", ws, stderr)
	}
}

// A closed terminal asks for an orderly end, and asks more than once; nohup
// says that it is no reason to end.
func TestHangup(t *testing.T) {
	// Whoever runs the tests may ignore it, which programs would inherit.
	here := make(chan os.Signal, 1)
	signal.Notify(here, unix.SIGHUP)
	defer signal.Stop(here)
	made := filepath.Join(t.TempDir(), "made")
	cmd := dioctlProcess(t, "bench", "--size", "1M", "--engine", "psync", "--depth", "1", "--duration", "1m", made)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitForFile(t, made)
	for range 3 {
		_ = cmd.Process.Signal(unix.SIGHUP)
		time.Sleep(time.Millisecond)
	}
	ws := ending(t, cmd)
	if _, err := os.Stat(made); !errors.Is(err, os.ErrNotExist) || !ws.Exited() || ws.ExitStatus() == exitGood {
		t.Errorf("status %#x; the file that bench made: %v", ws, err)
	}

	made += "2"
	real := dioctlProcess(t, "bench", "--size", "1M", "--engine", "psync", "--depth", "1", "--duration", "200ms", made)
	nohup := exec.Command("sh", append([]string{"-c", `trap "" HUP; exec "$@"`, "sh", real.Path}, real.Args[1:]...)...)
	nohup.Env = real.Env
	if err := nohup.Start(); err != nil {
		t.Fatal(err)
	}
	waitForFile(t, made)
	_ = nohup.Process.Signal(unix.SIGHUP)
	if ws := ending(t, nohup); !ws.Exited() || ws.ExitStatus() != exitGood {
		t.Errorf("under nohup: status %#x", ws)
	}
}
