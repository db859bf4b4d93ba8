// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"dio/engine"
	"dio/ioctlapi"
)

func TestComplete(t *testing.T) {
	engines := engine.Names()
	slices.Sort(engines)
	for _, c := range []struct {
		words string // the last one is the one at the cursor
		want  string
	}{
		{"inf", "info"},
		{"fault ", "arm clear drain list provoke"},
		{"fault arm --count 1 dirty", "dirty-late dirty-missing dirty-needless dirty-unlocked"},
		{"fault arm --count ", ""}, // a number
		{"copy --engine ", strings.Join(engines, " ")},
		{"copy --engine=io_uring-", ""}, // bash splits it; see below
		{"copy --engine = io_uring-", "io_uring-fixed io_uring-iopoll"},
		{"copy --read-engine io_uring-", "io_uring-fixed io_uring-iopoll"},
		{"copy --write-engine io_uring-", "io_uring-fixed io_uring-iopoll"},
		{"copy -e io_uring-", "io_uring-fixed io_uring-iopoll"},
		{"copy --direct --format j", "json"}, // --direct takes no further word
		{"copy --block-", "--block-size"},
		{"copy x --bl", "--block-size"},
		{"read /dev/", ""}, // a file
		{"vm run -- dem", ""},
		{"completion w", ""}, // hidden
		{"nonsense", ""},
		{"-", ""},
	} {
		words := strings.Split(c.words, " ")
		if got := strings.Join(complete(newApp(io.Discard, io.Discard).Commands, words), " "); got != c.want {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
	if got := complete(newApp(io.Discard, io.Discard).Commands, nil); !slices.Contains(got, "demo") {
		t.Errorf("no word at all: %q", got)
	}
	if got := complete(newApp(io.Discard, io.Discard).Commands, []string{"fault", "clear", ""}); len(got) < len(ioctlapi.Faults()) {
		t.Errorf("fault clear: %q", got)
	}
}

// A flag that got another name would no longer be completed.
func TestCompletedFlagsExist(t *testing.T) {
	flags := map[string]bool{}
	var look func([]*cli.Command)
	look = func(commands []*cli.Command) {
		for _, c := range commands {
			for _, f := range c.Flags {
				flags[f.Names()[0]] = true
			}
			look(c.Subcommands)
		}
	}
	look(newApp(io.Discard, io.Discard).Commands)
	for name := range flagValues {
		if !flags[name] {
			t.Errorf("no command has --%s", name)
		}
	}
}

// The scripts are what the shells that are here can read.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out bytes.Buffer
		if err := newApp(&out, io.Discard).Run([]string{"dioctl", "completion", shell}); err != nil || !strings.Contains(out.String(), "dioctl") {
			t.Errorf("%s: %q, %v", shell, out.String(), err)
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("%s isn't here to read its script", shell)
			continue
		}
		script := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(script, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if said, err := exec.Command(shell, "-n", script).CombinedOutput(); err != nil || len(said) > 0 {
			t.Errorf("%s -n: %s, %v", shell, said, err)
		}
	}
}

// The manual page has every command that isn't hidden, and the exit statuses.
func TestMan(t *testing.T) {
	var out bytes.Buffer
	app := newApp(&out, io.Discard)
	if err := app.Run([]string{"dioctl", "man"}); err != nil {
		t.Fatal(err)
	}
	var look func([]*cli.Command)
	look = func(commands []*cli.Command) {
		for _, c := range commands {
			if !c.Hidden && !strings.Contains(out.String(), "\n"+c.Name+"\n") && !strings.Contains(out.String(), "SH "+c.Name) && !strings.Contains(out.String(), "SS "+c.Name) {
				t.Errorf("no word of %s", c.Name)
			}
			look(c.Subcommands)
		}
	}
	look(app.Commands)
	if !strings.HasPrefix(out.String(), ".nh\n.TH dioctl 1") || !strings.Contains(out.String(), "Exit status") {
		t.Errorf("it begins with: %.60q", out.String())
	}
}
