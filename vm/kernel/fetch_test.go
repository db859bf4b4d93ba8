// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A fetch that fails leaves the kernel's folder as it was, but for what a killed one
// had left there.
func TestFailedFetchLeavesNothing(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	fakeApt(t) // it can't download
	a, err := newApt(context.Background(), "debian", "suite", "http://m.example/debian", quiet{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	kernels := t.TempDir()
	for _, dir := range []string{".6.1.0-9-cloud-amd64-123/debs", "6.1.0-8-cloud-amd64/tree", "6.1.0-9-cloud-amd64/tree"} {
		if err := os.MkdirAll(filepath.Join(kernels, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{".6.1.0-9-cloud-amd64-123/debs/half.deb", "lock"} {
		if err := os.WriteFile(filepath.Join(kernels, file), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := &found{apt: a, suite: "suite", release: "6.1.0-9-cloud-amd64", packages: []string{"linux-image"}}
	if err := f.install(context.Background(), filepath.Join(kernels, f.release), quiet{}); err == nil {
		t.Fatal("it installed what can't be downloaded")
	}
	entries, err := os.ReadDir(kernels)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"6.1.0-8-cloud-amd64", "6.1.0-9-cloud-amd64", "lock"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if _, err := os.Stat(filepath.Join(kernels, f.release, "tree")); err != nil {
		t.Errorf("the kernel that was there: %v", err)
	}
}
