// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dio/vm/kernel/kotest"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func modulesDir(t *testing.T) *Modules {
	t.Helper()
	dir := t.TempDir()
	put := func(p string, b []byte) {
		p = filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var xzBytes, zBytes bytes.Buffer
	xw, err := xz.NewWriter(&xzBytes)
	if err != nil {
		t.Fatal(err)
	}
	xw.Write(kotest.Module("depends=base-one,built_in"))
	xw.Close()
	zw, _ := zstd.NewWriter(&zBytes)
	zw.Write(kotest.Module("depends=", "softdep=pre: soft missing post: top"))
	zw.Close()
	put("modules.builtin", []byte("kernel/lib/built-in.ko\n"))
	put("kernel/a/top.ko", kotest.Module("depends=mid,base_one", "license=GPL"))
	put("kernel/b/mid.ko.xz", xzBytes.Bytes())
	put("kernel/c/base-one.ko.zst", zBytes.Bytes())
	put("kernel/c/soft.ko", kotest.Module("depends="))
	put("kernel/c/orphan.ko", kotest.Module("depends=nowhere"))
	put("kernel/c/bad.ko", []byte("no ELF"))
	put("kernel/c/cut.ko.xz", xzBytes.Bytes()[:40])
	m, err := OpenModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestResolve(t *testing.T) {
	m := modulesDir(t)
	for want, ask := range map[string][]string{
		"soft base_one mid top": {"top"},
		"soft base_one":         {"base-one", "soft"},
		"soft":                  {"soft", "built_in"},
		"":                      {"built-in"},
	} {
		mods, err := m.Resolve(ask...)
		if err != nil {
			t.Errorf("%v: %v", ask, err)
			continue
		}
		var names []string
		for _, mod := range mods {
			names = append(names, mod.Name)
			if !bytes.HasPrefix(mod.Data, []byte("\x7fELF")) || !strings.HasSuffix(mod.Rel, ".ko") {
				t.Errorf("%s: not unpacked, or its path %s", mod.Name, mod.Rel)
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%v: %q, want %q", ask, got, want)
		}
	}
	for _, ask := range []string{"nosuch", "orphan"} {
		if _, err := m.Resolve(ask); !errors.Is(err, ErrNoModule) {
			t.Errorf("%s: %v", ask, err)
		}
	}
	for _, ask := range []string{"bad", "cut"} {
		if _, err := m.Resolve(ask); err == nil || errors.Is(err, ErrNoModule) {
			t.Errorf("%s: %v", ask, err)
		}
	}
	if got := m.Known([]string{"top", "nosuch", "built-in"}); strings.Join(got, " ") != "top built-in" {
		t.Errorf("known: %v", got)
	}
}

func TestWriteDep(t *testing.T) {
	mods, err := modulesDir(t).Resolve("top")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, m := range mods {
		m.WriteDep(&b, mods)
	}
	want := "kernel/c/soft.ko:\n" +
		"kernel/c/base-one.ko: kernel/c/soft.ko\n" +
		"kernel/b/mid.ko: kernel/c/base-one.ko kernel/c/soft.ko\n" +
		"kernel/a/top.ko: kernel/b/mid.ko kernel/c/base-one.ko kernel/c/soft.ko\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestVermagic(t *testing.T) {
	mod := kotest.Module("vermagic=6.12.1 SMP preempt")
	if err := CheckVermagic("x.ko", mod, "6.12.1"); err != nil {
		t.Error(err)
	}
	if err := CheckVermagic("x.ko", mod, "6.12.11"); err == nil || !strings.Contains(err.Error(), "6.12.11") {
		t.Errorf("another kernel's: %v", err)
	}
	if err := CheckVermagic("x.ko", []byte("text"), "6.12.1"); err == nil {
		t.Error("text was taken for a module")
	}
}
