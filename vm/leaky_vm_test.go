// SPDX-License-Identifier: GPL-2.0-only

package vm_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dio/vm/vmtest"
)

// A driver that isn't ours, built and run as a user would: what it does right is
// clean, and each mistake is named, with the line of its source.
func TestVMForeignDriver(t *testing.T) {
	vmtest.Need(t)
	kernel := vmtest.Kernel(t).Name
	dir := filepath.Join(t.TempDir(), "leaky")
	if err := os.CopyFS(dir, os.DirFS("testdata/leaky")); err != nil {
		t.Fatal(err)
	}
	built := tool(t, "", "vm", "build", "--strict", "--kernel", kernel, dir)
	ko := strings.TrimSpace(built.stdout)
	if built.status != 0 || ko != filepath.Join(dir, "leaky.ko") {
		t.Fatalf("build: %+v", built)
	}
	// On one CPU, for the emulator; on old kernels an audit takes long to begin.
	ran := tool(t, "", "vm", "run", "--kernel", kernel, "--no-dio", "--strict", "--cpus", "1", "--timeout", "10m", "--module", ko, "--", "sh", "-c", `
		for bug in 0 1 2; do
			echo $bug >/sys/module/leaky/parameters/bug
			dioctl audit --format json --module leaky -- dd if=/dev/leaky of=/dev/null bs=64k count=1
			echo $?
		done
		# A write is right to leave its memory clean, however it was pinned.
		dioctl audit --format json --module leaky -- dd if=/proc/self/exe of=/dev/leaky bs=64k count=1
		echo $?`)
	if ran.status != 0 {
		t.Fatalf("%+v", ran)
	}

	source, err := os.ReadFile("testdata/leaky/leaky.c")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(source), "\n")
	out := json.NewDecoder(strings.NewReader(ran.stdout))
	for bug, want := range []struct {
		rule  string
		pages int
		line  string // what stands where the finding leads to
	}{
		{},
		{"pin-leak", 1, "pin_user_pages_fast("},
		{"dirty-missing", 16, "unpin_user_pages("},
		{},
	} {
		var v struct {
			Verdict string `json:"verdict"`
			Pins    struct {
				Taken int `json:"taken"`
			} `json:"pins"`
			Findings []struct {
				Rule   string   `json:"rule"`
				Module string   `json:"module"`
				File   string   `json:"file"`
				Line   int      `json:"line"`
				Stack  []string `json:"stack"`
				Comm   string   `json:"comm"`
				Pages  int      `json:"pages"`
			} `json:"findings"`
		}
		status := 0
		if err := out.Decode(&v); err != nil {
			t.Fatalf("bug %d: %v: %+v", bug, err, ran)
		}
		if err := out.Decode(&status); err != nil {
			t.Fatalf("bug %d: %v: %+v", bug, err, ran)
		}
		if v.Pins.Taken < 16 {
			t.Errorf("bug %d: %d pins seen, 64 KiB takes 16", bug, v.Pins.Taken)
		}
		if want.rule == "" {
			if v.Verdict != "clean" || status != 0 {
				t.Errorf("no bug: status %d, %+v", status, v)
			}
			continue
		}
		if v.Verdict != "violations" || status != 1 || len(v.Findings) != 1 {
			t.Errorf("bug %d: status %d, %+v", bug, status, v)
			continue
		}
		f := v.Findings[0]
		if f.Rule != want.rule || f.Module != "leaky" || f.Comm != "dd" || f.Pages != want.pages ||
			filepath.Base(f.File) != "leaky.c" || f.Line < 1 || f.Line > len(lines) || !strings.Contains(lines[f.Line-1], want.line) ||
			!strings.Contains(strings.Join(f.Stack, "\n"), "leaky_move") {
			t.Errorf("bug %d: %+v, want %+v", bug, f, want)
		}
		// Whatever the kernel unwinds by: who called the hooked function is there, once.
		called := slices.Clone(f.Stack)
		for i := range called {
			called[i], _, _ = strings.Cut(called[i], "+")
		}
		if len(called) < 2 || called[0]+"(" != want.line || !strings.HasPrefix(called[1], "leaky_") {
			t.Errorf("bug %d: stack %q, want one of %s in the driver", bug, f.Stack, want.line)
		}
		if slices.Sort(called); len(slices.Compact(called)) < len(f.Stack) {
			t.Errorf("bug %d: stack %q has a function twice", bug, f.Stack)
		}
	}
}
