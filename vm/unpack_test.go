// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"testing"
)

func tarOf(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = 1
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// Nothing that a guest names may land outside the folder asked for.
func TestUnpackStaysInside(t *testing.T) {
	root := tar.Header{Name: ".", Typeflag: tar.TypeDir, Mode: 0o755}
	for name, evil := range map[string][]tar.Header{
		"up":           {root, {Name: "../evil", Typeflag: tar.TypeReg, Mode: 0o644}},
		"absolute":     {root, {Name: "/tmp/evil-dio-test", Typeflag: tar.TypeReg, Mode: 0o644}},
		"through link": {root, {Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l/evil", Typeflag: tar.TypeReg, Mode: 0o644}},
	} {
		d := t.TempDir()
		if err := unpack(tarOf(t, evil...), d+"/out"); err == nil {
			t.Errorf("%s: unpacked", name)
		}
		for _, p := range []string{d + "/evil", "/tmp/evil-dio-test"} {
			if _, err := os.Lstat(p); err == nil {
				t.Errorf("%s: %s was written", name, p)
			}
		}
	}
	d := t.TempDir()
	good := tarOf(t, root, tar.Header{Name: "sub", Typeflag: tar.TypeDir, Mode: 0o500}, tar.Header{Name: "sub/f", Typeflag: tar.TypeReg, Mode: 0o4755},
		tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "sub/f"})
	if err := unpack(good, d+"/out"); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(d + "/out/l")
	if err != nil || fi.Mode() != 0o755 {
		t.Errorf("%v, %v: want 0755 and no set-user-ID", fi, err)
	}
	if err := unpack(tarOf(t), d+"/none"); err == nil {
		t.Error("an empty stream passed for an output")
	}
}
