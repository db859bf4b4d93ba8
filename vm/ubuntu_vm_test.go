// SPDX-License-Identifier: GPL-2.0-only

package vm_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"dio/vm"
	"dio/vm/kernel"
	"dio/vm/vmtest"
)

// archive is a package archive in a folder.
type archive struct {
	t   *testing.T
	dir string
}

func (a archive) run(name string, args ...string) {
	a.t.Helper()
	if out, err := exec.CommandContext(a.t.Context(), name, args...).CombinedOutput(); err != nil {
		a.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

func (a archive) write(path string, data []byte) {
	a.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// add packs root, a folder that may be "", and returns the package's part of an index.
func (a archive) add(name, depends, root string) string {
	a.t.Helper()
	if root == "" {
		root = a.t.TempDir()
	}
	control := fmt.Sprintf("Package: %s\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <nobody@localhost>\n", name)
	if depends != "" {
		control += "Depends: " + depends + "\n"
	}
	a.write(filepath.Join(root, "DEBIAN/control"), []byte(control+"Description: for a test\n"))
	deb := "pool/" + name + "_1_amd64.deb"
	a.write(filepath.Join(a.dir, deb), nil)
	a.run("dpkg-deb", "--root-owner-group", "-Znone", "--build", root, filepath.Join(a.dir, deb))
	b, err := os.ReadFile(filepath.Join(a.dir, deb))
	if err != nil {
		a.t.Fatal(err)
	}
	return fmt.Sprintf("%sFilename: %s\nSize: %d\nSHA256: %x\nDescription: for a test\n\n", control, deb, len(b), sha256.Sum256(b))
}

// release publishes a suite of one component.
func (a archive) release(suite, index string) {
	a.t.Helper()
	const packages = "main/binary-amd64/Packages"
	a.write(filepath.Join(a.dir, "dists", suite, packages), []byte(index))
	a.write(filepath.Join(a.dir, "dists", suite, "Release"), fmt.Appendf(nil,
		"Origin: Ubuntu\nSuite: %s\nCodename: %s\nDate: Thu, 25 Apr 2024 15:10:33 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n %x %d %s\n",
		suite, suite, sha256.Sum256([]byte(index)), len(index), packages))
}

// likeUbuntu packs a kernel as Ubuntu packs its own: image, modules and seldom used
// modules apart, each module by zstd; headers that are half symbolic links to those
// that all flavours share; and metapackages, of which one leads to another.
func likeUbuntu(t *testing.T, img *kernel.Image) archive {
	t.Helper()
	a := archive{t, t.TempDir()}
	root := func(name string) string { return filepath.Join(t.TempDir(), name) }

	image, modules, extra, headers, common := root("image"), root("modules"), root("extra"), root("headers"), root("common")
	b, err := os.ReadFile(img.Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	a.write(filepath.Join(image, "boot/vmlinuz-"+img.Release), b)

	place := filepath.Join(modules, "lib/modules", img.Release)
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		t.Fatal(err)
	}
	a.run("cp", "-r", img.Modules, place)
	a.run("sh", "-c", `find "$0" -name '*.ko.xz' -exec xz -d {} +`, place)
	pack, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	packed := 0
	if err := filepath.WalkDir(place, func(p string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(p) != ".ko" {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		packed++
		if err := os.WriteFile(p+".zst", pack.EncodeAll(b, nil), 0o644); err != nil {
			return err
		}
		return os.Remove(p)
	}); err != nil || packed == 0 {
		t.Fatalf("%d modules packed: %v", packed, err)
	}
	const block = "kernel/drivers/block"
	seldom := filepath.Join(extra, "lib/modules", img.Release, block)
	if err := os.MkdirAll(filepath.Dir(seldom), 0o755); err != nil {
		t.Fatal(err)
	}
	a.run("mv", filepath.Join(place, block), seldom)

	// The tree that the headers need lies around them: they refer to it.
	usr := img.Headers[:strings.LastIndex(img.Headers, "/usr/")] + "/usr"
	if err := os.MkdirAll(headers, 0o755); err != nil {
		t.Fatal(err)
	}
	a.run("cp", "-r", usr, headers)
	own := filepath.Join(headers, "usr", strings.TrimPrefix(img.Headers, usr))
	shared := filepath.Join(common, "usr/src/linux-headers-shared")
	if err := os.MkdirAll(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	a.run("mv", filepath.Join(own, "Makefile"), shared)
	if err := os.Symlink("../linux-headers-shared/Makefile", filepath.Join(own, "Makefile")); err != nil {
		t.Fatal(err)
	}

	a.release("noble", a.add("linux-image-virtual", "linux-image-"+img.Release, "")+
		a.add("linux-headers-virtual", "linux-headers-generic", "")+
		a.add("linux-headers-generic", "linux-headers-"+img.Release, "")+
		a.add("linux-image-"+img.Release, "kmod, linux-base, linux-modules-"+img.Release, image)+
		a.add("linux-modules-"+img.Release, "", modules)+
		a.add("linux-modules-extra-"+img.Release, "linux-modules-"+img.Release, extra)+
		a.add("linux-headers-"+img.Release, "linux-headers-shared, libc6", headers)+
		a.add("linux-headers-shared", "", common))
	// As on the day of a release, or in a mirror without them.
	a.release("noble-updates", "")
	return a
}

// stages keeps what a fetch tells.
type stages struct{ bytes.Buffer }

func (s *stages) Stage(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

// The stock kernel of an Ubuntu, as one would be fetched there: from an archive with
// Ubuntu's layout that holds the default kernel. A module is built for it, and it
// boots, with modules out of both packages.
func TestVMUbuntuKernel(t *testing.T) {
	vmtest.Need(t)
	if h, err := kernel.ThisHost(); err != nil || h.ID == "ubuntu" {
		t.Logf("%+v, %v: all other tests of VMs do that", h, err)
		return
	}
	img, init := vmtest.Kernel(t), vmtest.Dioctl(t)
	a := likeUbuntu(t, img)

	// An apt whose sources are Ubuntu's: there, but for the keys, which are the archive's.
	etc := t.TempDir()
	list, conf := filepath.Join(etc, "sources.list"), filepath.Join(etc, "apt.conf")
	a.write(list, fmt.Appendf(nil, "deb [trusted=yes] file:%[1]s noble main\ndeb [trusted=yes] file:%[1]s noble-updates main\n", a.dir))
	a.write(conf, fmt.Appendf(nil, `Dir::Etc::sourcelist "%s";
Dir::Etc::sourceparts "-";
Dir::State "%s";
Acquire::AllowInsecureRepositories "true";
APT::Get::AllowUnauthenticated "true";
`, list, etc))
	t.Setenv("APT_CONFIG", conf)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())

	noble := kernel.Host{ID: "ubuntu", Codename: "noble", Version: "24.04"}
	row, err := kernel.Find(kernel.Table(noble), kernel.Default(noble))
	if err != nil {
		t.Fatal(err)
	}
	row.Flavour = img.Release[strings.LastIndex(img.Release, "-cloud"):] // it's a Debian's within
	var said stages
	stock, err := kernel.Fetch(t.Context(), noble, row, &said)
	if err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	if stock.Release != img.Release || stock.Modules == "" || stock.Headers == "" || !strings.Contains(said.String(), "from noble (5 packages)") {
		t.Errorf("%+v: %s", stock, said.String())
	}

	// By its path: of Ubuntu's own the table says that this machine's compiler built it.
	byPath, err := kernel.FromPath(stock.Vmlinuz, stock.Headers)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "warn")
	if err := os.CopyFS(dir, os.DirFS("testdata/warn")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	built, err := kernel.Build(t.Context(), byPath, dir, kernel.BuildOptions{Out: &out}, &said)
	if err != nil || len(built) != 1 {
		t.Fatalf("%q, %v: %s", built, err, out.String())
	}
	ran := vmtest.Run(t, vm.Spec{
		Kernel: stock, Init: init, CPUs: 1, KernelModules: []string{"zram"}, Files: built,
		Args: sh(`uname -r; [ -e /dev/zram0 ] && insmod ` + built[0] + ` wrong=0 && grep -c ^warn /proc/modules`),
	})
	if want := img.Release + "\n1\n"; ran.Status != 0 || ran.Stdout != want {
		t.Errorf("%d, %q, want %q: %s", ran.Status, ran.Stdout, want, ran.Stderr)
	}
}
