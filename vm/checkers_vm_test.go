// SPDX-License-Identifier: GPL-2.0-only

package vm_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dio/vm"
	"dio/vm/kernel"
	"dio/vm/vmtest"
)

// buildModule builds a copy of the module in testdata for img.
func buildModule(t *testing.T, img *kernel.Image, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	mods, err := kernel.Build(t.Context(), img, dir, kernel.BuildOptions{Out: &log}, nil)
	if err != nil || len(mods) != 1 {
		t.Fatalf("build %s: %v, %v\n%s", name, mods, err, log.String())
	}
	return mods[0]
}

// A kernel's real WARNING is told, with its place; without the cause nothing
// is; and --strict turns a run that succeeded into a failure.
func TestVMWarning(t *testing.T) {
	vmtest.Need(t)
	img := vmtest.Kernel(t)
	ko := buildModule(t, img, "warn")
	ran, err := vmtest.Try(t, vm.Spec{Kernel: img, CPUs: 1, Args: []string{"true"}, Modules: []string{ko}})
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`WARNING: .*warn\.c:\d+`)
	if ran.Status != 0 || len(ran.Complaints) != 1 || !want.MatchString(ran.Complaints[0]) {
		t.Errorf("status %d, complaints %q", ran.Status, ran.Complaints)
	}
	vmtest.Run(t, vm.Spec{Kernel: img, CPUs: 1, Args: []string{"insmod", ko, "wrong=0"}, Files: []string{ko}})

	cmd := exec.Command(vmtest.Dioctl(t), "vm", "run", "--kernel", img.Name, "--no-dio", "--cpus", "1", "--strict", "--module", ko, "--", "echo", "fine")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 125 || stdout.String() != "fine\n" || !want.MatchString(stderr.String()) {
		t.Errorf("%v, stdout %q, stderr %q", err, stdout.String(), stderr.String())
	}
}

// On the debug kernel each kind of mistake is found by the checker for it, and
// a module that makes none is left in peace. Lockdep tells one finding
// and stops, also after one of KASAN's: hence the order, and the boots.
func TestVMCheckers(t *testing.T) {
	vmtest.Need(t)
	img := vmtest.Kernel(t)
	if img.Name != kernel.Debug {
		t.Skipf("the kernel %s has no checkers: %s=%s has", img.Name, vmtest.KernelEnv, kernel.Debug)
	}
	ko := buildModule(t, img, "mistake")
	for _, c := range []struct {
		kinds string
		want  []string // each matches one of the complaints
	}{
		{"none", nil},
		{"lock-order after-free out-of-bounds array-index atomic-sleep free-timer leak", []string{
			`KASAN: slab-use-after-free in after_free`, `KASAN: slab-out-of-bounds in out_of_bounds`, `UBSAN: array-index-out-of-bounds`,
			`sleeping function called from invalid context`, `ODEBUG: free active`, `unreferenced object`, `possible circular locking`}},
		{"held-lock", []string{`held lock freed`}},
	} {
		t.Run(c.kinds, func(t *testing.T) {
			ran, err := vmtest.Try(t, vm.Spec{Kernel: img, CPUs: 1, Files: []string{ko}, Timeout: 8 * time.Minute,
				Args: sh("for k in " + c.kinds + "; do insmod " + ko + " kind=$k && rmmod mistake || exit 1; done")})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(ran.Complaints, "\n")
			if ran.Status != 0 || c.want == nil && got != "" {
				t.Errorf("status %d, stderr %q, complaints:\n%s", ran.Status, ran.Stderr, got)
			}
			for _, w := range c.want {
				if !regexp.MustCompile(w).MatchString(got) {
					t.Errorf("nothing like %q among the complaints:\n%s", w, got)
				}
			}
			t.Logf("first word after %v, all in %v", ran.Booted.Round(time.Second), ran.Took.Round(time.Second))
		})
	}
}
