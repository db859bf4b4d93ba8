// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// Progress hears of long work: a stage, and the lines of those who do it.
type Progress interface {
	Stage(format string, args ...any)
	Write(p []byte) (int, error)
}

// quiet is a Progress that nobody hears.
type quiet struct{}

func (quiet) Stage(string, ...any)        {}
func (quiet) Write(p []byte) (int, error) { return len(p), nil }

// Get is the kernel of that name, fetched (Debug: built) if it isn't here yet;
// "" is the Default. A name with a slash is the path to a vmlinuz, headers then is
// the tree that its modules are built with, or "".
func Get(ctx context.Context, name, headers string, p Progress) (*Image, error) {
	if p == nil {
		p = quiet{}
	}
	h, err := ThisHost()
	if err != nil && !strings.Contains(name, "/") {
		return nil, err
	}
	if name == "" {
		name = Default(h)
	}
	if strings.Contains(name, "/") {
		img, err := FromPath(name, headers)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: --kernel %s: no such file: want the path to a vmlinuz, or a name that `dioctl vm kernels` lists", ErrUnknown, name)
		}
		return img, err
	}
	if headers != "" {
		return nil, fmt.Errorf("--headers goes with a kernel given by its path, not with %s, which has its own", name)
	}
	row, err := Find(Table(h), name)
	if err != nil {
		return nil, err
	}
	if img, err := Fetched(name); err == nil {
		return img, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return Fetch(ctx, h, row, p)
}

// Update is Get that looks for a newer kernel even if one is here.
func Update(ctx context.Context, name, headers string, p Progress) (*Image, error) {
	h, err := ThisHost()
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = Default(h)
	}
	row, err := Find(Table(h), name)
	if err != nil || headers != "" {
		return Get(ctx, name, headers, p)
	}
	if p == nil {
		p = quiet{}
	}
	return Fetch(ctx, h, row, p)
}

// layout changes with what layOut makes of the packages: what an older dio
// left in the cache is fetched anew.
const layout = 1

// metaFile describes a fetched kernel, beside its tree.
const metaFile = "kernel.json"

// meta is what metaFile holds; paths are relative to its folder.
type meta struct {
	Layout  int    `json:"layout"`
	Release string `json:"release"`
	Vmlinuz string `json:"vmlinuz"`
	Modules string `json:"modules"`
	Headers string `json:"headers"`
	Config  string `json:"config,omitempty"` // of the debug kernel: debugKey when it was built
}

func kernelDir(name string) string { return filepath.Join(CacheDir(), "kernels", name) }

// Fetched is the kernel of that name as it lies in the cache;
// fs.ErrNotExist when it doesn't.
func Fetched(name string) (*Image, error) {
	release, err := os.Readlink(filepath.Join(kernelDir(name), "current"))
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(kernelDir(name), release)
	b, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return nil, err
	}
	var m meta
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s/%s: %w: remove the folder to fetch it anew", dir, metaFile, err)
	}
	if m.Layout != layout || name == Debug && m.Config != debugKey() {
		return nil, fs.ErrNotExist
	}
	at := func(rel string) string {
		if rel == "" {
			return ""
		}
		return filepath.Join(dir, rel)
	}
	return &Image{Name: name, Release: m.Release, Vmlinuz: at(m.Vmlinuz), Modules: at(m.Modules), Headers: at(m.Headers)}, nil
}

// Fetch gets the newest of row from the archives, whatever is in the cache;
// Debug is built from the newest source.
func Fetch(ctx context.Context, h Host, row Row, p Progress) (*Image, error) {
	if row.Name == Debug {
		return fetchDebug(ctx, h, p)
	}
	if err := os.MkdirAll(kernelDir(row.Name), 0o755); err != nil {
		return nil, fmt.Errorf("make the cache (XDG_CACHE_HOME says where it is to be): %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(kernelDir(row.Name), "lock"), p)
	if err != nil {
		return nil, err
	}
	defer unlock()
	found, err := find(ctx, h, row, p)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", row.Name, err)
	}
	defer found.apt.close()
	// Another process may have been quicker.
	if img, err := Fetched(row.Name); err == nil && img.Release == found.release {
		return img, nil
	}
	if err := found.install(ctx, filepath.Join(kernelDir(row.Name), found.release), p); err != nil {
		return nil, fmt.Errorf("kernel %s: %w", row.Name, err)
	}
	if err := pointAt(filepath.Join(kernelDir(row.Name), "current"), found.release); err != nil {
		return nil, fmt.Errorf("kernel %s: %w", row.Name, err)
	}
	return Fetched(row.Name)
}

// pointAt makes the symbolic link at p lead to target, at once.
func pointAt(p, target string) error {
	tmp := fmt.Sprintf("%s.%d", p, os.Getpid())
	_ = os.Remove(tmp)
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, p)
}

// dropLeftovers removes what killed fetches left beside a kernel's releases, whose
// lock is the caller's.
func dropLeftovers(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, ".*-*"))
	if err != nil {
		return err
	}
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			return err
		}
	}
	return nil
}

// install downloads and unpacks the packages into dir, all or nothing.
func (f *found) install(ctx context.Context, dir string, p Progress) error {
	if err := dropLeftovers(filepath.Dir(dir)); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	debs := filepath.Join(tmp, "debs")
	tree := filepath.Join(tmp, "tree")
	for _, d := range []string{debs, tree} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	p.Stage("fetching %s from %s (%d packages)", f.release, f.suite, len(f.packages))
	if err := f.apt.download(ctx, debs, f.packages, p); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	sort.Strings(files)
	for _, d := range files {
		p.Stage("unpacking %s", filepath.Base(d))
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", d, tree).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s (%s)", filepath.Base(d), err, bytes.TrimSpace(out), damaged(tree))
		}
	}
	m, err := layOut(tree, f.release)
	if err != nil {
		return err
	}
	if err := writeMeta(tmp, m); err != nil {
		return err
	}
	if err := os.RemoveAll(debs); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// writeMeta describes the kernel whose parts lie in dir/tree; m's paths are
// relative to that.
func writeMeta(dir string, m *meta) error {
	for _, rel := range []*string{&m.Vmlinuz, &m.Modules, &m.Headers} {
		if *rel != "" {
			*rel = filepath.Join("tree", *rel)
		}
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, metaFile), append(b, '\n'), 0o644)
}

// layOut finds the parts of an unpacked kernel and makes its headers usable
// where they lie, whatever that path will be.
func layOut(tree, release string) (*meta, error) {
	m := &meta{Layout: layout, Release: release}
	first := func(candidates ...string) string {
		for _, c := range candidates {
			if _, err := os.Stat(filepath.Join(tree, c)); err == nil {
				return c
			}
		}
		return ""
	}
	m.Vmlinuz = first("boot/vmlinuz-"+release, "usr/lib/modules/"+release+"/vmlinuz", "lib/modules/"+release+"/vmlinuz")
	m.Modules = first("lib/modules/"+release+"/kernel", "usr/lib/modules/"+release+"/kernel")
	m.Modules = strings.TrimSuffix(m.Modules, "/kernel")
	m.Headers = first("usr/src/linux-headers-"+release, "usr/lib/modules/"+release+"/build")
	if m.Vmlinuz == "" || m.Headers == "" {
		return nil, fmt.Errorf("the packages of %s hold no image or no headers: vmlinuz %q, headers %q", release, m.Vmlinuz, m.Headers)
	}
	return m, relocate(tree, filepath.Join(tree, m.Headers))
}

// relocate rewrites the absolute /usr paths of a headers tree's own
// makefiles to ones relative to it.
func relocate(tree, headers string) error {
	rel, err := filepath.Rel(headers, tree)
	if err != nil {
		return err
	}
	for _, name := range []string{"Makefile", ".kernelvariables"} {
		p := filepath.Join(headers, name)
		fi, err := os.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		// The folder of the makefile being read, wherever make was called.
		here := "$(dir $(abspath $(lastword $(MAKEFILE_LIST))))" + rel
		text := string(b)
		for _, abs := range []string{"/usr/src/", "/usr/lib/"} {
			text = strings.ReplaceAll(text, "include "+abs, "include "+here+abs)
			// Expanded at once: later the last makefile is another one.
			text = strings.ReplaceAll(text, "KBUILD_OUTPUT="+abs, "KBUILD_OUTPUT:="+here+abs)
		}
		if text != string(b) {
			if err := os.WriteFile(p, []byte(text), fi.Mode().Perm()); err != nil {
				return err
			}
		}
	}
	return nil
}
