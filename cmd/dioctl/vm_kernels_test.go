// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// On a machine that fetched nothing but one kernel: all of the table is listed,
// one is the default, and what is here is told.
func TestVMKernels(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	const release = "6.12.1-test"
	dir := filepath.Join(cache, "dio/kernels/6.12", release)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"kernel.json": `{"layout":1,"release":"` + release + `","vmlinuz":"vmlinuz","modules":"modules","headers":"headers"}`,
		"vmlinuz":     "", "modules": "", "headers": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(release, filepath.Join(cache, "dio/kernels/6.12/current")); err != nil {
		t.Fatal(err)
	}

	var list struct {
		Schema  string        `json:"schema"`
		Kernels []kernelState `json:"kernels"`
	}
	status, out, message := dioctl(t, "vm", "kernels", "--format", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || status != 0 || list.Schema != "dio.kernels/1" {
		t.Fatalf("exit status %d, %v: %s%s", status, err, out, message)
	}
	fetched := map[string]string{}
	defaults := 0
	for _, k := range list.Kernels {
		fetched[k.Name] = k.Release
		if k.Default {
			defaults++
		}
	}
	for _, name := range []string{"5.10", "6.1", "6.12", "7.2", "7.3", "debug"} {
		want := ""
		if name == "6.12" {
			want = release
		}
		if got, listed := fetched[name]; !listed || got != want {
			t.Errorf("%s: listed %v, fetched %q, want %q", name, listed, got, want)
		}
	}
	if defaults != 1 {
		t.Errorf("%d kernels are the default", defaults)
	}

	status, out, message = dioctl(t, "vm", "kernels")
	if status != 0 || !strings.Contains(out, release) || strings.Count(out, "(default)") != 1 || len(strings.Split(strings.TrimSpace(out), "\n")) != len(list.Kernels)+1 {
		t.Errorf("exit status %d: %s%s", status, out, message)
	}
}
