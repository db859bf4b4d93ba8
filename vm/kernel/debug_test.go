// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDebugFragment(t *testing.T) {
	seen := map[string]bool{}
	for _, line := range configLines(debugFragment) {
		name, value, ok := strings.Cut(line, "=")
		if !ok || !strings.HasPrefix(name, "CONFIG_") || value == "" {
			t.Errorf("no setting: %s", line)
		}
		if seen[name] {
			t.Errorf("%s is set twice", name)
		}
		seen[name] = true
	}
	// Without these the kernel finds or tells nothing.
	for _, n := range []string{"BUG", "KASAN", "PROVE_LOCKING", "DEBUG_ATOMIC_SLEEP", "DEBUG_VM", "DEBUG_KMEMLEAK", "PAGE_OWNER", "UBSAN", "KCOV",
		"FAILSLAB", "FAIL_PAGE_ALLOC", "FUNCTION_ERROR_INJECTION", "GUP_TEST", "SLUB_TINY"} {
		if !seen["CONFIG_"+n] {
			t.Errorf("CONFIG_%s is not set", n)
		}
	}
}

func TestNotStuck(t *testing.T) {
	wanted := configLines("# why\nCONFIG_A=y\nCONFIG_B=m\n\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_E=\"x=y\"\nCONFIG_F=40\n")
	if got := notStuck(wanted, "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_E=\"x=y\"\nCONFIG_F=40\nCONFIG_Z=y\n"); got != nil {
		t.Errorf("all is there: %q", got)
	}
	got := notStuck(wanted, "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=y\nCONFIG_E=\"x\"\nCONFIG_FF=40\n")
	want := []string{"CONFIG_A=y (is n)", "CONFIG_B=m (is y)", "CONFIG_C=n (is y)", `CONFIG_E="x=y" (is "x")`, "CONFIG_F=40 (is n)"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDebugLocalVersion(t *testing.T) {
	a, b := debugLocalVersion("6.12.1-1"), debugLocalVersion("6.12.1-2")
	if a == b || !strings.HasPrefix(a, "-dio-debug-") || a != debugLocalVersion("6.12.1-1") {
		t.Errorf("%s, %s", a, b)
	}
}

// A debug kernel of another configuration is as good as none.
func TestFetchedDebug(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := filepath.Join(kernelDir(Debug), "6.12.1-dio-debug-0")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := pointAt(filepath.Join(kernelDir(Debug), "current"), filepath.Base(dir)); err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]error{debugKey(): nil, "": fs.ErrNotExist, "other": fs.ErrNotExist} {
		if err := writeMeta(dir, &meta{Layout: layout, Release: filepath.Base(dir), Vmlinuz: "boot/v", Headers: "h", Config: config}); err != nil {
			t.Fatal(err)
		}
		img, err := Fetched(Debug)
		if !errors.Is(err, want) {
			t.Errorf("%q: %v", config, err)
		}
		if err == nil && (img.Vmlinuz != filepath.Join(dir, "tree/boot/v") || img.Modules != "") {
			t.Errorf("%+v", img)
		}
	}
}

type heard struct{ stages, lines []string }

func (h *heard) Stage(format string, args ...any) {
	h.stages = append(h.stages, fmt.Sprintf(format, args...))
}
func (h *heard) Write(p []byte) (int, error) {
	h.lines = append(h.lines, string(p))
	return len(p), nil
}

func TestSteps(t *testing.T) {
	var h heard
	s := newSteps(&h)
	for _, part := range []string{"  CC      mm/g", "up.o\n  LD [M]  x.ko\nwarning: no step\n  text\n", "make[1]: Entering\n"} {
		if _, err := s.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if s.n != 2 || len(h.stages) != 0 || len(h.lines) == 0 || !strings.Contains(h.lines[0], "mm/gup.o") {
		t.Errorf("%d steps, stages %q, lines %q", s.n, h.stages, h.lines)
	}
	s.line("  AR      built-in.a", s.start.Add(stageEvery+time.Second))
	if len(h.stages) != 1 || !strings.Contains(h.stages[0], "step 3 of about") || !strings.Contains(h.stages[0], "2m1s") {
		t.Errorf("%q", h.stages)
	}
}

func TestRoomFor(t *testing.T) {
	if err := roomFor(t.TempDir(), 1); err != nil {
		t.Error(err)
	}
	if err := roomFor(t.TempDir(), 1<<60); err == nil || !strings.Contains(err.Error(), "space") {
		t.Errorf("%v", err)
	}
}

func TestDebugToolsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := debugToolsHere(context.Background())
	if err == nil {
		t.Fatal("an empty PATH has all tools")
	}
	for _, want := range []string{"flex", "bison", "bc", "dwarves", "scripts/setup debug"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s: %v", want, err)
		}
	}
}

func TestRemoveOthers(t *testing.T) {
	d := t.TempDir()
	for _, n := range []string{"a/b", "keep/c", ".build-1/d"} {
		if err := os.MkdirAll(filepath.Join(d, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeOthers(d, "keep"); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(d + "/*"); len(left) != 1 || left[0] != d+"/keep" {
		t.Errorf("%q", left)
	}
}

// A command that gives up must end those before it, and none may hang.
func TestPipeline(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	sh := func(s string) []string { return []string{"sh", "-c", s, "sh", out} }
	if err := pipeline(t.Context(), sh("echo text"), sh("tr a-z A-Z"), sh(`cat > "$1"`)); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(out); !bytes.Equal(b, []byte("TEXT\n")) {
		t.Errorf("%q", b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := pipeline(ctx, sh("exec yes"), sh("exec cat"), sh("echo no room >&2; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "no room") || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
	if err := pipeline(ctx, sh("exec yes"), []string{"/nonexistent/tool"}); err == nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}
