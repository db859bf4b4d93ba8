// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	bookworm = Host{ID: "debian", Codename: "bookworm", Version: "12"}
	trixie   = Host{ID: "debian", Codename: "trixie", Version: "13"}
	noble    = Host{ID: "ubuntu", Codename: "noble", Version: "24.04"}
)

func TestTable(t *testing.T) {
	for _, h := range []Host{bookworm, trixie, noble} {
		rows := Table(h)
		seen := map[string]bool{}
		for _, r := range rows {
			if seen[r.Name] {
				t.Errorf("%s: %s is there twice", h.Codename, r.Name)
			}
			seen[r.Name] = true
			if r.Distro == "debian" && (rootCompiler[r.Root] < r.Compiler || len(r.Suites) == 0 || r.Series == "") {
				t.Errorf("%s: %+v: no suite, no series, or its private root has too old a compiler", h.Codename, r)
			}
		}
		for _, n := range []string{"5.10", "6.1", "6.12", "7.2", "7.3", Debug, Default(h)} {
			if _, err := Find(rows, n); err != nil {
				t.Errorf("%s: %v", h.Codename, err)
			}
		}
	}
	if r, _ := Find(Table(bookworm), "6.12"); r.Suites[0] != "bookworm-security" || r.Compiler != 12 {
		t.Errorf("6.12 on Debian 12: %+v", r)
	}
	if r, _ := Find(Table(trixie), "6.12"); r.Suites[0] != "trixie-security" || r.Compiler != 14 {
		t.Errorf("6.12 on Debian 13: %+v", r)
	}
	if Default(bookworm) != "6.12" || Default(noble) != Stock {
		t.Error("defaults")
	}
	if _, err := Find(Table(bookworm), "6.13"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "6.12") {
		t.Errorf("unknown: %v", err)
	}
}

func TestOSRelease(t *testing.T) {
	for text, want := range map[string]Host{
		"ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n":                                               {"debian", "bookworm", "12"},
		"ID=ubuntu\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\n":                                               {"ubuntu", "noble", "24.04"},
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=22\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n": {"ubuntu", "noble", "22"},
		"ID=fedora\nVERSION_ID=42\n": {"fedora", "", "42"},
	} {
		if got := parseOSRelease(bufio.NewScanner(strings.NewReader(text))); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

const indexOutput = `http://m.example/debian/|bookworm|main|Debian
http://m.example/debian/|bookworm|contrib|Debian
http://m.example/debian/|bookworm-updates|main|Debian
http://s.example/debian-security/|bookworm-security|main|$(ORIGIN)
http://other.example/thing|bookworm|main|Other

`

func TestMirror(t *testing.T) {
	t.Setenv(mirrorEnv, "")
	t.Setenv(securityMirrorEnv, "")
	sources := parseSources(indexOutput)
	if len(sources) != 5 || sources[3].origin != "" {
		t.Fatalf("%+v", sources)
	}
	for _, c := range []struct {
		host          Host
		suite, want   string
		sources       []source
		distro        string
		mirror        string
		wantNoMirrors bool
	}{
		{bookworm, "bookworm-security", "http://s.example/debian-security", sources, "debian", "", false},
		{bookworm, "bullseye-security", "http://s.example/debian-security", sources, "debian", "", false},
		{bookworm, "trixie-backports", "http://m.example/debian", sources, "debian", "", false},
		{bookworm, "bookworm", "http://m.example/debian", slices.Concat(sources[4:], sources), "debian", "", false},
		{noble, "trixie", "", sources, "debian", "", true},
		{noble, "trixie", "http://mine.example", nil, "debian", "http://mine.example", false},
		{bookworm, "bookworm-security", "", sources[:3], "debian", "", true},
		{bookworm, "noble", "", sources, "ubuntu", "", true},
	} {
		t.Setenv(mirrorEnv, c.mirror)
		got, err := mirrorFor(c.host, c.sources, c.distro, c.suite)
		if got != c.want || errors.Is(err, ErrNoMirror) != c.wantNoMirrors {
			t.Errorf("%s on %s: %q, %v; want %q", c.suite, c.host.Codename, got, err, c.want)
		}
	}
}

func TestStanza(t *testing.T) {
	got := parseStanza("\nPackage: a\nDescription: x\n more\n .\nDepends: linux-headers-1-common (= 1), linux-image-1 (= 1) | linux-image-1-unsigned (= 1), gcc-12:any, kmod\n\nPackage: b\n")
	if got["Package"] != "a" || got["Description"] != "x\nmore\n." {
		t.Errorf("%q", got)
	}
	deps := depends(got["Depends"])
	want := [][]string{{"linux-headers-1-common"}, {"linux-image-1", "linux-image-1-unsigned"}, {"gcc-12"}, {"kmod"}}
	if !slices.EqualFunc(deps, want, slices.Equal[[]string]) {
		t.Errorf("%q", deps)
	}
	if depends("") != nil {
		t.Error("no Depends")
	}
}

func TestNewestRelease(t *testing.T) {
	set := func(names ...string) map[string]bool {
		m := map[string]bool{}
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	headers := set("linux-headers-6.12.9+deb13-cloud-amd64", "linux-headers-6.12.10+deb13-cloud-amd64", "linux-headers-6.12.11+deb13-cloud-amd64",
		"linux-headers-6.12.99+deb13-amd64", "linux-headers-6.120.1+deb13-cloud-amd64", "linux-headers-6.12.10+deb13-common")
	images := set("linux-image-6.12.9+deb13-cloud-amd64", "linux-image-6.12.10+deb13-cloud-amd64-unsigned", "linux-image-6.12.99+deb13-amd64")
	row := Row{Series: "6.12.", Flavour: cloud}
	if got := newestRelease(headers, images, row); got != "6.12.10+deb13-cloud-amd64" {
		t.Errorf("%q: the newest with an image is 6.12.10", got)
	}
	if got := newestRelease(headers, images, Row{Series: "7.3.", Flavour: cloud}); got != "" {
		t.Errorf("%q", got)
	}
	for _, c := range [][2]string{{"5.10.0-9", "5.10.0-46"}, {"6.1.0-0.deb11.9", "6.1.0-50"}, {"7.2", "7.2.1"}, {"6.12.9+a", "6.12.10+a"}} {
		if compareReleases(c[0], c[1]) >= 0 || compareReleases(c[1], c[0]) <= 0 || compareReleases(c[0], c[0]) != 0 {
			t.Errorf("%s should be older than %s", c[0], c[1])
		}
	}
}

// bzImage is the least that looks like one.
func bzImage(version string, packed []byte) []byte {
	b := make([]byte, 1024)
	b[offSetupSects] = 1
	copy(b[offMagic:], "HdrS")
	binary.LittleEndian.PutUint16(b[offVersion:], 0x300-0x200)
	copy(b[0x300:], version+" (builder@host) #1 SMP\x00")
	binary.LittleEndian.PutUint32(b[offPayload:], 16)
	binary.LittleEndian.PutUint32(b[offPayloadLen:], uint32(len(packed)))
	return append(append(b, make([]byte, 16)...), packed...)
}

func TestImage(t *testing.T) {
	dir := t.TempDir()
	const rel = "6.12.1-test"
	for _, d := range []string{"boot", "usr/lib/modules/" + rel, "headers"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	io.WriteString(w, "the kernel")
	w.Close()
	img := bzImage(rel, append(z.Bytes(), 10, 0, 0, 0))
	vmlinuz := filepath.Join(dir, "boot/vmlinuz")
	if err := os.WriteFile(vmlinuz, img, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := FromPath(vmlinuz, "")
	if err != nil || got.Release != rel || got.Modules != filepath.Join(dir, "usr/lib/modules", rel) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Get(t.Context(), filepath.Join(dir, "nope"), "", nil); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "vm kernels") {
		t.Errorf("no such file: %v", err)
	}
	if _, err := FromPath(vmlinuz, filepath.Join(dir, "headers")); err == nil || !strings.Contains(err.Error(), "Makefile") {
		t.Errorf("headers without a Makefile: %v", err)
	}
	var out bytes.Buffer
	if err := extractVmlinux(context.Background(), vmlinuz, &out); err != nil || out.String() != "the kernel" {
		t.Errorf("unpacked %q, %v", out.String(), err)
	}
	for name, bad := range map[string][]byte{
		"short": img[:100], "magic": append([]byte("MZ"), make([]byte, 2000)...), "cut payload": img[:len(img)-8], "no payload": img[:1024],
	} {
		p := filepath.Join(dir, "bad")
		if err := os.WriteFile(p, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := extractVmlinux(context.Background(), p, io.Discard); err == nil {
			t.Errorf("%s: unpacked", name)
		}
	}
	if _, err := Release("/dev/null"); !errors.Is(err, errNotKernel) {
		t.Errorf("/dev/null: %v", err)
	}
	if err := unpackKernel(context.Background(), []byte("unknown compression"), io.Discard); err == nil {
		t.Error("unknown compression unpacked")
	}
}

// Fetched sees only whole kernels of this layout.
func TestFetched(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if _, err := Fetched("6.12"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	dir := filepath.Join(kernelDir("6.12"), "6.12.1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := pointAt(filepath.Join(kernelDir("6.12"), "current"), "6.12.1"); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		`{"layout":1,"release":"6.12.1","vmlinuz":"v","modules":"m","headers":"h"}`: true,
		`{"release":"6.12.1","vmlinuz":"v"}`:                                        false,
		`{`:                                                                         false,
	} {
		if err := os.WriteFile(filepath.Join(dir, metaFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		img, err := Fetched("6.12")
		if (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
		if want && (img.Release != "6.12.1" || img.Vmlinuz != filepath.Join(kernelDir("6.12"), "6.12.1", "v")) {
			t.Errorf("%+v", img)
		}
	}
	if _, err := Get(context.Background(), "6.12", "/tmp", nil); err == nil {
		t.Error("headers were taken for a kernel of the table")
	}
}

func TestLayOut(t *testing.T) {
	const rel = "7.3.4+x-cloud-amd64"
	tree := t.TempDir()
	headers := "usr/src/linux-headers-" + rel
	files := map[string]string{
		"usr/lib/modules/" + rel + "/vmlinuz":     "k",
		"usr/lib/modules/" + rel + "/kernel/a.ko": "m",
		headers + "/Makefile":                     "KBUILD_OUTPUT=/usr/src/linux-headers-" + rel + "\ninclude /usr/src/linux-headers-7.3.4-common/Makefile\n",
		headers + "/.kernelvariables":             "override ARCH = x86\n",
	}
	for p, text := range files {
		p = filepath.Join(tree, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := layOut(tree, rel)
	if err != nil {
		t.Fatal(err)
	}
	if m.Vmlinuz != "usr/lib/modules/"+rel+"/vmlinuz" || m.Modules != "usr/lib/modules/"+rel || m.Headers != headers {
		t.Errorf("%+v", m)
	}
	b, _ := os.ReadFile(filepath.Join(tree, headers, "Makefile"))
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if !strings.Contains(line, "../../../usr/src/") || strings.Contains(line, "= ") || strings.Contains(line, " /usr") || strings.Contains(line, "=/usr") {
			t.Errorf("not relative: %s", line)
		}
	}
	if _, err := layOut(t.TempDir(), rel); err == nil {
		t.Error("an empty tree was taken for a kernel")
	}
}

func TestVersionAtLeast(t *testing.T) {
	for have, want := range map[string]bool{"2.36": false, "2.38": true, "2.40": true, "3.0": true, "2.38.1": true, "": false, "x.y": false} {
		if got := versionAtLeast(have, [2]int{2, 38}); got != want {
			t.Errorf("%q: %v", have, got)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	img := &Image{Name: "x", Headers: "/nonexistent"}
	if _, err := Build(context.Background(), img, t.TempDir(), BuildOptions{}, nil); err == nil || !strings.Contains(err.Error(), "Kbuild") {
		t.Errorf("an empty folder: %v", err)
	}
	d := t.TempDir()
	if err := os.WriteFile(d+"/Kbuild", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(context.Background(), &Image{Name: "x"}, d, BuildOptions{}, nil); err == nil || !strings.Contains(err.Error(), "--headers") {
		t.Errorf("no headers: %v", err)
	}
}

func TestAnyTarget(t *testing.T) {
	for arg, want := range map[string]bool{"W=1": false, "-s": false, "clean": true} {
		if anyTarget([]string{arg}) != want {
			t.Error(arg)
		}
	}
}

func TestBindDirs(t *testing.T) {
	got := bindDirs("/usr/src/mine", "/tmp/x")
	if !slices.Contains(got, "/usr/src/mine") || slices.Contains(got, "/tmp/x") || slices.Contains(got, "/usr") || !slices.Contains(got, "/tmp") {
		t.Errorf("%v", got)
	}
}

// The script must drop what it is told to, and nothing else.
func TestClangScript(t *testing.T) {
	d := t.TempDir()
	echo := filepath.Join(d, "echo")
	for p, text := range map[string]string{echo: "#!/bin/sh\nprintf '<%s>' \"$@\"\n", d + "/cc": clangScript(echo, []string{"-a=*", "-b"})} {
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(d+"/cc", "-a=1", "-bb", "-b", "two words", "-c").Output()
	if err != nil || !strings.HasPrefix(string(out), "<-bb><two words><-c><-Q") {
		t.Errorf("%s, %v", out, err)
	}
	// Indirect calls stay guarded: by clang's name for it.
	out, err = exec.Command(d+"/cc", "-mindirect-branch=thunk-extern", "-c").Output()
	if err != nil || !strings.HasPrefix(string(out), "<-mretpoline-external-thunk><-c><-Q") {
		t.Errorf("%s, %v", out, err)
	}
}
