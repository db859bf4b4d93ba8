// SPDX-License-Identifier: GPL-2.0-only

package initramfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
)

type unpacked struct {
	mode cpio.FileMode
	link string
	data string
}

func archive(t *testing.T, tree *Tree) map[string]unpacked {
	t.Helper()
	var b bytes.Buffer
	n, err := tree.WriteTo(&b)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(b.Len()) {
		t.Errorf("WriteTo says %d bytes, wrote %d", n, b.Len())
	}
	out := map[string]unpacked{}
	seen := map[string]bool{".": true}
	for r := cpio.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !seen[filepath.Dir(h.Name)] {
			t.Errorf("%s comes before its folder: the kernel could not unpack it", h.Name)
		}
		seen[h.Name] = true
		if _, twice := out[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		out[h.Name] = unpacked{h.Mode, h.Linkname, string(data)}
	}
}

func write(t *testing.T, p, text string, mode fs.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestArchive(t *testing.T) {
	tree := New()
	for _, err := range []error{
		tree.Data("/etc/x", []byte("abc"), 0o640),
		tree.Data("/lib/modules/1/a.ko", []byte("ko"), 0o644), // through the link /lib
		tree.Link("/init", "usr/bin/prog"),
		tree.WeakLink("/usr/bin/ls", "busybox"),
		tree.Data("/usr/bin/ls", []byte("real ls"), 0o755),
		tree.WeakLink("/usr/bin/ls", "busybox"), // must not come back
		tree.Data("/bin/suid", nil, 0o755|fs.ModeSetuid),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := archive(t, tree)
	for name, want := range map[string]unpacked{
		"etc/x":                  {cpio.TypeReg | 0o640, "", "abc"},
		"usr/lib/modules/1/a.ko": {cpio.TypeReg | 0o644, "", "ko"},
		"init":                   {cpio.TypeSymlink | 0o777, "usr/bin/prog", ""},
		"usr/bin/ls":             {cpio.TypeReg | 0o755, "", "real ls"},
		"usr/bin/suid":           {cpio.TypeReg | cpio.ModeSetuid | 0o755, "", ""},
		"tmp":                    {cpio.TypeDir | cpio.ModeSticky | 0o777, "", ""},
		"lib":                    {cpio.TypeSymlink | 0o777, "usr/lib", ""},
		"root":                   {cpio.TypeDir | 0o755, "", ""},
	} {
		if got[name] != want {
			t.Errorf("%s: %+v, want %+v", name, got[name], want)
		}
	}
	if !tree.Has("/lib/modules/1/a.ko") || tree.Has("/lib/modules/2") || !tree.HasCommand("ls") || tree.HasCommand("nosuch") {
		t.Error("Has or HasCommand is wrong")
	}
}

func TestConflicts(t *testing.T) {
	tree := New()
	if err := tree.Data("/etc", nil, 0o644); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if err := tree.Data("/f", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := tree.Data("/f/g", nil, 0o644); err == nil {
		t.Error("a file was put under a file")
	}
	if err := tree.Link("/a", "/b"); err != nil {
		t.Fatal(err)
	}
	if err := tree.Link("/b", "/a"); err != nil {
		t.Fatal(err)
	}
	if err := tree.Data("/a/x", nil, 0o644); err == nil || tree.Has("/a/x") || tree.Has("/a") {
		t.Error("a loop of links was followed")
	}
}

func TestHostFiles(t *testing.T) {
	dir := t.TempDir()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/d/one", "1", 0o600)
	write(t, dir+"/d/sub/two", "2", 0o644)
	write(t, dir+"/outside", "out", 0o644)
	write(t, dir+"/real/script", "#!/bin/sh\nexit 0\n", 0o755)
	for link, to := range map[string]string{
		"/d/in": "one", "/d/out": "../outside", "/d/dangling": "nowhere", "/alias": "real",
	} {
		if err := os.Symlink(to, dir+link); err != nil {
			t.Fatal(err)
		}
	}
	tree := New()
	if err := tree.Data("/bin/sh", []byte("the guest's"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tree.AddHost(dir + "/d"); err != nil {
		t.Fatal(err)
	}
	if err := tree.AddHost(dir + "/alias/script"); err != nil {
		t.Fatal(err)
	}
	got := archive(t, tree)
	at := strings.TrimPrefix(dir, "/")
	for name, want := range map[string]unpacked{
		"/d/one":       {cpio.TypeReg | 0o600, "", "1"},
		"/d/sub/two":   {cpio.TypeReg | 0o644, "", "2"},
		"/d/in":        {cpio.TypeSymlink | 0o777, "one", ""},
		"/d/out":       {cpio.TypeSymlink | 0o777, "../outside", ""},
		"/outside":     {cpio.TypeReg | 0o644, "", "out"},
		"/d/dangling":  {cpio.TypeSymlink | 0o777, "nowhere", ""},
		"/alias":       {cpio.TypeSymlink | 0o777, "real", ""},
		"/real/script": {cpio.TypeReg | 0o755, "", "#!/bin/sh\nexit 0\n"},
	} {
		if got[at+name] != want {
			t.Errorf("%s: %+v, want %+v", name, got[at+name], want)
		}
	}
	if got["usr/bin/sh"].data != "the guest's" {
		t.Error("the script's interpreter replaced the guest's own")
	}
	if err := tree.AddHost(dir + "/nosuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	write(t, dir+"/bad", "#!/no/such/interpreter\n", 0o755)
	if err := tree.AddHost(dir + "/bad"); err == nil || !strings.Contains(err.Error(), "interpreter") {
		t.Errorf("a script without its interpreter: %v", err)
	}
	if err := tree.AddHost("/dev/null"); err == nil {
		t.Error("a device was put in the guest")
	}
}

func TestShrunkFile(t *testing.T) {
	p := write(t, t.TempDir()+"/f", "0123456789", 0o644)
	tree := New()
	if err := tree.File("/f", p); err != nil {
		t.Fatal(err)
	}
	write(t, p, "0", 0o644)
	if _, err := tree.WriteTo(io.Discard); err == nil {
		t.Error("a file that shrank went unnoticed")
	}
}

// A program of this machine must bring its interpreter and its libraries,
// each reachable in the archive by the path it is asked for.
func TestELF(t *testing.T) {
	prog, err := filepath.EvalSymlinks("/bin/ls")
	if err != nil {
		t.Skip("no /bin/ls here")
	}
	var s elfSearch
	need, err := s.needed(prog)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(need, func(p string) bool { return strings.Contains(p, "ld-linux") }) ||
		!slices.ContainsFunc(need, func(p string) bool { return strings.HasSuffix(p, "/libc.so.6") }) {
		t.Fatalf("%s needs %v: no interpreter or no libc among it", prog, need)
	}
	tree := New()
	if err := tree.AddHost("/bin/ls"); err != nil {
		t.Fatal(err)
	}
	for _, p := range append(need, "/bin/ls", prog) {
		if !tree.Has(p) {
			t.Errorf("%s is not in the guest", p)
		}
	}
}

func TestMissingLibrary(t *testing.T) {
	b, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Skip("no /bin/ls here")
	}
	p := write(t, t.TempDir()+"/ls", strings.ReplaceAll(string(b), "libc.so.6\x00", "liby.so.6\x00"), 0o755)
	err = New().AddHost(p)
	if err == nil || !strings.Contains(err.Error(), "liby.so.6") {
		t.Errorf("%v: want the missing library named", err)
	}
}

func TestNotELF(t *testing.T) {
	p := write(t, t.TempDir()+"/x", "\x7fELF and then nothing", 0o755)
	if err := New().AddHost(p); err != nil {
		t.Errorf("data that begins like a program: %v", err)
	}
}

func TestLdSoConf(t *testing.T) {
	d := t.TempDir()
	write(t, d+"/ld.so.conf", "include conf.d/*.conf # all\n/opt/lib\n\nrelative\n", 0o644)
	write(t, d+"/conf.d/a.conf", "/a/lib\n", 0o644)
	write(t, d+"/conf.d/b.conf", "# nothing\n/b/lib # b\ninclude "+d+"/ld.so.conf\n", 0o644)
	got := ldSoConf(d+"/ld.so.conf", 0)
	if len(got) < 3 || got[0] != "/a/lib" || got[1] != "/b/lib" || !slices.Contains(got, "/opt/lib") || slices.Contains(got, "relative") {
		t.Errorf("%v", got)
	}
}

func TestExpandOrigin(t *testing.T) {
	if got := expandOrigin("$ORIGIN/../${LIB}:${ORIGIN}", "/opt/x/bin"); got != "/opt/x/bin/../lib:/opt/x/bin" {
		t.Error(got)
	}
}
