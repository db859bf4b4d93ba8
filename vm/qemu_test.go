// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dio/vm/kernel"
)

func TestParseVersion(t *testing.T) {
	q, err := parseVersion("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright\n")
	if err != nil || q.Major != 10 || q.Minor != 0 || q.Version != "10.0.2" {
		t.Errorf("%+v, %v", q, err)
	}
	if q, err := parseVersion("QEMU emulator version 7.2.17 (x)"); err != nil || q.Major != 7 || q.Minor != 2 {
		t.Errorf("%+v, %v", q, err)
	}
	if _, err := parseVersion("what?"); err == nil {
		t.Error("no version was read as one")
	}
}

// An old QEMU must be refused without KVM, with a word on what to do.
func TestFindQEMU(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	fake := filepath.Join(t.TempDir(), "qemu")
	write := func(script string) {
		t.Helper()
		if err := os.WriteFile(fake, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(qemuEnv, fake)
	write("[ \"$1\" = --version ] && echo 'QEMU emulator version 7.2.17' && exit\nexit 1\n")
	_, err := FindQEMU(context.Background())
	if !errors.Is(err, ErrNoQEMU) || !strings.Contains(err.Error(), "7.2.17") || !strings.Contains(err.Error(), "unset it") {
		t.Errorf("old: %v", err)
	}
	write("[ \"$1\" = --version ] && echo 'QEMU emulator version 10.0.2' && exit\nexit 1\n")
	if q, err := FindQEMU(context.Background()); err != nil || q.KVM || q.WhyNoKVM == "" {
		t.Errorf("new: %+v, %v", q, err)
	}
	t.Setenv(qemuEnv, fake+"-not-there")
	if _, err := FindQEMU(context.Background()); !errors.Is(err, ErrNoQEMU) || !strings.Contains(err.Error(), "make setup") {
		t.Errorf("none: %v", err)
	}
}

// fakeVersion makes path a QEMU that tells its version, and boots nothing.
func fakeVersion(t *testing.T, path, version string) string {
	t.Helper()
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version %s' && exit\nexit 1\n", version)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// The QEMU that was unpacked into the cache serves where the PATH's is missing or too
// old, and only there; one that is named is taken as it is.
func TestFindQEMUUnpacked(t *testing.T) {
	const old, young = "8.2.2", "10.0.2"
	cache, bin := t.TempDir(), t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("PATH", bin)
	fake := func(path, version string) string { return fakeVersion(t, path, version) }
	own := fake(filepath.Join(cache, "dio", unpacked), "10.2.1")
	onPath := filepath.Join(bin, "qemu-system-x86_64")
	for _, c := range []struct{ name, path, env, want string }{
		{"none", "", "", own}, {"an old one", old, "", own}, {"a new one", young, "", onPath}, {"an old one is named", young, old, ""},
	} {
		_ = os.Remove(onPath)
		t.Setenv(qemuEnv, "")
		if c.path != "" {
			fake(onPath, c.path)
		}
		if c.env != "" {
			t.Setenv(qemuEnv, fake(filepath.Join(t.TempDir(), "qemu"), c.env))
		}
		q, err := FindQEMU(context.Background())
		if c.want == "" && !errors.Is(err, ErrNoQEMU) || c.want != "" && (err != nil || q.Path != c.want) {
			t.Errorf("%s: %+v, %v, want %s", c.name, q, err, c.want)
		}
	}
}

// The clock that counts instructions emulates also where KVM works.
func TestTrustedQEMU(t *testing.T) {
	for _, c := range []struct {
		major       int
		kvm, icount bool
		want        string // in the error; "": none
	}{
		{10, false, false, ""}, {10, false, true, ""}, {10, true, true, ""}, {8, true, false, ""},
		{8, false, false, "without KVM"}, {8, false, true, "without KVM"}, {8, true, true, "--icount"},
	} {
		err := (&QEMU{Major: c.major, KVM: c.kvm}).trusted(c.icount)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrNoQEMU) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Where an old QEMU serves with KVM, and is all that FindQEMU names, a clock that counts
// instructions takes the unpacked one, unless another was named; and Run asks for it.
func TestRunCountingInstructions(t *testing.T) {
	for name, c := range map[string]struct {
		major       int
		kvm, icount bool
		unpacked    string // its version; "": there is none
		named       bool
		want        string // in the error; "own": the unpacked one; "": the one that was found
	}{
		"old, with KVM":                  {8, true, false, "10.2.1", false, ""},
		"old, counting":                  {8, true, true, "10.2.1", false, "own"},
		"old, counting, none is here":    {8, true, true, "", false, "scripts/setup qemu"},
		"old, counting, another old one": {8, true, true, "9.1.0", false, "scripts/setup qemu"},
		"old and named, counting":        {8, true, true, "10.2.1", true, "unset it"},
		"old, without KVM":               {8, false, false, "", false, "vm probe --again"},
		"new, counting":                  {10, true, true, "10.2.1", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			t.Setenv("XDG_CACHE_HOME", cache)
			t.Setenv("TMPDIR", t.TempDir())
			t.Setenv(qemuEnv, "")
			q := &QEMU{Path: "/found", Version: fmt.Sprint(c.major), Major: c.major, KVM: c.kvm}
			want, own := q.Path, filepath.Join(cache, "dio", unpacked)
			if c.unpacked != "" {
				fakeVersion(t, own, c.unpacked)
			}
			if c.named {
				t.Setenv(qemuEnv, q.Path)
			}
			if c.want == "own" {
				want = own
			}
			refused := c.want != "" && c.want != "own"
			got, err := q.fit(t.Context(), c.icount)
			switch {
			case refused && (!errors.Is(err, ErrNoQEMU) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			case !refused && (err != nil || got.Path != want):
				t.Errorf("%+v, %v, want %s", got, err, want)
			}
			// A guest can't be made of such a file, which is found out after.
			_, err = Run(t.Context(), Spec{Kernel: &kernel.Image{Release: "9.9"}, Args: []string{"true"}, Files: []string{"/nonexistent"}, Emulator: q, Icount: c.icount})
			if err == nil || errors.Is(err, ErrNoQEMU) != refused {
				t.Errorf("run: %v, want a refusal: %v", err, refused)
			}
		})
	}
}
