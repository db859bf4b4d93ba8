// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

// helpers are what this program does as another process, for the tests that
// need one: with its arguments, until it ends or is killed.
var helpers = map[string]func(args []string) error{
	"share":           helperShare,
	"map":             helperMap,
	"io":              helperIO,
	"fsync":           helperFsync,
	"copied":          helperCopied,
	"discard":         helperDiscard,
	"killed":          helperKilled,
	"until-gone":      helperUntilGone,
	"submit-and-exec": helperSubmitAndExec,
}

const helperVariable = "DIO_VMTEST_HELPER"

// runHelper is the other process, if this is one.
func runHelper() {
	name := os.Getenv(helperVariable)
	if name == "" {
		return
	}
	if err := helpers[name](os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "helper %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// helper is such a process under way.
type helper struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startHelper starts one; its files come from 3 on.
func startHelper(t *testing.T, name string, files []*os.File, args ...string) *helper {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &helper{Cmd: exec.Command(self, args...)}
	h.Env = append(os.Environ(), helperVariable+"="+name)
	h.ExtraFiles, h.Stderr = files, os.Stderr
	out, err := h.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewReader(out)
	if h.in, err = h.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if h.ProcessState == nil {
			_ = h.Process.Kill()
			_ = h.Wait()
		}
	})
	return h
}

// line is what the helper says next.
func (h *helper) line(t *testing.T) string {
	t.Helper()
	s, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatalf("helper: %v (%q)", err, s)
	}
	return s[:len(s)-1]
}

// tell has the helper go on.
func (h *helper) tell(t *testing.T, words string) {
	t.Helper()
	if _, err := fmt.Fprintln(h.in, words); err != nil {
		t.Fatal("helper:", err)
	}
}
