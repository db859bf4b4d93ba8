// SPDX-License-Identifier: GPL-2.0-only

// Package vmtest lets Go tests run a command in a VM. Such tests boot real
// kernels, so they run only with DIO_VM_TESTS=1; DIO_KERNEL names another
// kernel than the default.
package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"dio/vm"
	"dio/vm/kernel"
)

// Env switches VM tests on, DioctlEnv names a static dioctl to use rather
// than building one.
const (
	Env       = "DIO_VM_TESTS"
	KernelEnv = "DIO_KERNEL"
	DioctlEnv = "DIO_DIOCTL"
)

// Need skips the test unless VM tests are wanted.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(Env) != "1" {
		t.Skipf("boots a VM: set %s=1 to run it", Env)
	}
}

// Root is the repository's top folder.
func Root(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

var built struct {
	once sync.Once
	path string
	err  error
}

// Dioctl is a static dioctl of this source, built once per test program.
func Dioctl(t testing.TB) string {
	t.Helper()
	if p := os.Getenv(DioctlEnv); p != "" {
		return p
	}
	root := Root(t)
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "dio-vmtest-")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "dioctl")
		cmd := exec.Command("go", "build", "-o", built.path, "./cmd/dioctl")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build dioctl: %w: %s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// Cleanup removes what Dioctl built; a TestMain calls it last.
func Cleanup() {
	if built.path != "" {
		_ = os.RemoveAll(filepath.Dir(built.path))
	}
}

// Kernel is the kernel to test on, fetched if need be.
func Kernel(t testing.TB) *kernel.Image {
	t.Helper()
	img, err := kernel.Get(t.Context(), os.Getenv(KernelEnv), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// Ran is what Run saw.
type Ran struct {
	vm.Result
	Stdout, Stderr string
}

// Run runs spec in a VM, filling in kernel, dioctl and outputs where the
// spec has none. A VM that fails, or a kernel that complains, fails the
// test; the command's status is the caller's to judge.
func Run(t testing.TB, spec vm.Spec) Ran {
	t.Helper()
	ran, err := Try(t, spec)
	if err != nil {
		t.Fatalf("%v\nstdout: %s\nstderr: %s", err, ran.Stdout, ran.Stderr)
	}
	if len(ran.Complaints) > 0 {
		t.Errorf("the guest's kernel complained:\n%s", strings.Join(ran.Complaints, "\n"))
	}
	for _, err := range ran.OutErrors {
		t.Error(err)
	}
	return ran
}

// Try is Run that judges nothing.
func Try(t testing.TB, spec vm.Spec) (Ran, error) {
	t.Helper()
	Need(t)
	var stdout, stderr bytes.Buffer
	if spec.Kernel == nil {
		spec.Kernel = Kernel(t)
	}
	if spec.Init == "" {
		spec.Init = Dioctl(t)
	}
	if spec.Stdout == nil {
		spec.Stdout = &stdout
	}
	if spec.Stderr == nil {
		spec.Stderr = &stderr
	}
	if spec.Console == "" {
		spec.Console = filepath.Join(t.TempDir(), "console.log")
	}
	res, err := vm.Run(t.Context(), spec)
	return Ran{res, stdout.String(), stderr.String()}, err
}
