// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// A private root holds another release's compiler and tools, for kernels
// that this machine's can't build modules for. It is only unpacked, never
// installed: nothing in it runs but the tools themselves, in a mount
// namespace of their own, so no root is needed to make or to use it.

// rootPackages are what kbuild runs; gcc comes by its version.
var rootPackages = []string{"base-files", "dash", "bash", "coreutils", "sed", "grep", "gawk", "findutils", "diffutils",
	"perl-base", "make", "pahole", "kmod", "xz-utils", "bc"}

// rootCompiler is the gcc of each suite that private roots are made of.
var rootCompiler = map[string]int{"bookworm": 12, "trixie": 14}

// rootReady marks a root that is complete.
const rootReady = ".dio-ready"

func chrootEnvironment(ctx context.Context, row Row, compiler string, p Progress) (*environment, error) {
	h, err := ThisHost()
	if err != nil {
		return nil, err
	}
	if err := need("unshare", "dpkg-deb", "chroot"); err != nil {
		return nil, err
	}
	if err := enterable(ctx, os.Getuid()); err != nil {
		return nil, fmt.Errorf("private root with %s for kernel %s: %w", compiler, row.Name, err)
	}
	root, err := privateRoot(ctx, h, row, compiler, p)
	if err != nil {
		return nil, fmt.Errorf("private root with %s for kernel %s: %w", compiler, row.Name, err)
	}
	return &environment{root: root, vars: []string{"CC=" + compiler, "DEB_BUILD_ARCH=amd64", "DEB_HOST_ARCH=amd64"}}, nil
}

// privateRoot makes the root with that compiler for row, unless it is there.
func privateRoot(ctx context.Context, h Host, row Row, compiler string, p Progress) (string, error) {
	root := filepath.Join(CacheDir(), "roots", row.Root+"-"+compiler)
	unlock, err := lock(ctx, root+".lock", p)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(root, rootReady)); err == nil {
		return root, nil
	}
	sources, err := machineSources(ctx)
	if err != nil {
		return "", err
	}
	mirror, err := mirrorFor(h, sources, row.Distro, row.Root)
	if err != nil {
		return "", err
	}
	a, err := newApt(ctx, row.Distro, row.Root, mirror, p)
	if err != nil {
		return "", fmt.Errorf("private apt: %w", err)
	}
	defer a.close()
	p.Stage("build tools for kernel %s: package lists of %s", row.Name, row.Root)
	if err := a.update(ctx); err != nil {
		return "", err
	}
	// What an interrupted download left may be of older versions.
	if _, err := a.output(ctx, "apt-get", "-q", "-o", "Debug::NoLocking=true", "autoclean"); err != nil {
		return "", err
	}
	p.Stage("fetching %s and tools of %s into a private root (once)", compiler, row.Root)
	debs, err := a.downloadClosure(ctx, append([]string{compiler, "binutils"}, rootPackages...), p)
	if err != nil {
		return "", err
	}
	tmp := root + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := unpackRoot(ctx, tmp, debs, p); err != nil {
		return "", err
	}
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, root); err != nil {
		return "", err
	}
	// The packages have served.
	return root, errors.Join(os.RemoveAll(filepath.Join(a.dir, "cache", "archives")), os.MkdirAll(filepath.Join(a.dir, "cache/archives/partial"), 0o755))
}

// unpackRoot unpacks the packages and does by hand the little that their
// scripts would have done and kbuild wants.
func unpackRoot(ctx context.Context, root string, debs []string, p Progress) error {
	// Packages may be of the time before /bin was a link: make it one first.
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", d), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+d, filepath.Join(root, d)); err != nil {
			return err
		}
	}
	p.Stage("unpacking %d packages", len(debs))
	for _, d := range debs {
		// dpkg-deb -x would replace the links by the folders of older
		// packages; tar is told not to.
		err := pipeline(ctx, []string{"dpkg-deb", "--fsys-tarfile", d},
			[]string{"tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", root, "-f", "-"})
		if err != nil {
			return fmt.Errorf("unpack %s: %w (%s)", filepath.Base(d), err, damaged(root))
		}
	}
	for link, target := range map[string]string{"usr/bin/awk": "gawk", "usr/bin/sh": "dash"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, d := range []string{"tmp", "proc", "dev", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(root, rootReady), nil, 0o644)
}

// downloadClosure fetches the packages and all that they depend on, as if
// nothing were installed, and returns the files.
func (a *apt) downloadClosure(ctx context.Context, pkgs []string, p Progress) ([]string, error) {
	args := append([]string{"-q", "-y", "--download-only", "--no-install-recommends",
		"-o", "APT::Install-Recommends=false", "-o", "Debug::NoLocking=true", "install"}, pkgs...)
	cmd := a.command(ctx, "apt-get", args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = multi{&out, p}, &out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("apt-get install --download-only: %w: %s (%s)", err, lastLines(out.String(), 4), probably(a.dir))
	}
	debs, err := filepath.Glob(filepath.Join(a.dir, "cache/archives/*.deb"))
	sort.Strings(debs)
	return debs, err
}

type multi struct {
	log  *bytes.Buffer
	show Progress
}

func (m multi) Write(p []byte) (int, error) {
	m.log.Write(p)
	return m.show.Write(p)
}

// system are the top folders that the private root has of its own.
var system = map[string]bool{"bin": true, "sbin": true, "lib": true, "lib32": true, "lib64": true, "libx32": true,
	"usr": true, "etc": true, "boot": true, "lost+found": true, "sys": true}

// enter is the script that runs within the new namespace: $1 is the root,
// then the folders to show in it up to "--", then where to go and what to run.
const enter = `set -e
root=$1; shift
while [ "$1" != -- ]; do
	mkdir -p "$root$1"
	mount --rbind "$1" "$root$1"
	shift
done
shift
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/tmp LC_ALL=C.UTF-8 sh -c 'cd "$1" && shift && exec "$@"' sh "$@"
`

// command is name with args, in dir, on this machine or in the root. All of
// this machine's folders but the system's are at their places there.
func (e *environment) command(ctx context.Context, dir, headers, name string, args ...string) *exec.Cmd {
	if e.root == "" {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		return cmd
	}
	a := append(unshareFlags(os.Getuid()), "sh", "-c", enter, "sh", e.root)
	a = append(a, bindDirs(dir, headers)...)
	a = append(a, "--", dir, name)
	return exec.CommandContext(ctx, "unshare", append(a, args...)...)
}

// unshareFlags make the namespace in which a private root is entered.
func unshareFlags(uid int) []string {
	flags := []string{"--mount", "--propagation", "private"}
	if uid != 0 {
		flags = append([]string{"--user", "--map-root-user"}, flags...)
	}
	return flags
}

// enterable says, before a private root is fetched, when the user can't enter one.
func enterable(ctx context.Context, uid int) error {
	out, err := exec.CommandContext(ctx, "unshare", append(unshareFlags(uid), "true")...).CombinedOutput()
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	err = fmt.Errorf("it can't be entered: %w: %s", err, lastLines(string(out), 2))
	if uid == 0 {
		return fmt.Errorf("%w: a mount namespace is needed: in a container, CAP_SYS_ADMIN", err)
	}
	return fmt.Errorf("%w: do it as root, or let users have namespaces: on Ubuntu 24.04 and newer `sysctl kernel.apparmor_restrict_unprivileged_userns=0`", err)
}

// bindDirs are the folders to show in a private root: every top folder but
// the system's, and of those the ones that are wanted.
func bindDirs(wanted ...string) []string {
	var out []string
	top, _ := os.ReadDir("/")
	for _, d := range top {
		if d.IsDir() && !system[d.Name()] {
			out = append(out, "/"+d.Name())
		}
	}
	for _, w := range wanted {
		if first, _, _ := strings.Cut(strings.TrimPrefix(w, "/"), "/"); system[first] {
			out = append(out, w)
		}
	}
	return out
}
