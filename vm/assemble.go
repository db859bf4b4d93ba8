// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"dio/vm/guest"
	"dio/vm/initramfs"
	"dio/vm/kernel"
)

// portModules is what the virtio-serial port needs, in order, on kernels
// that don't have it built in (5.10 and 6.1).
var portModules = []string{"virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_console"}

// diskModules is what the disk needs where it isn't built in.
var diskModules = []string{"nvme", "ext4"}

// assemble makes the guest's root file system for s.
func assemble(s *Spec) (*initramfs.Tree, error) {
	t := initramfs.New()
	cfg := guest.Config{Args: append([]string(nil), s.Args...), Env: s.Env, Dir: s.Dir, Stdin: s.Stdin != nil, TTY: s.TTY, Disk: s.Disk != ""}
	if err := addBase(t, s); err != nil {
		return nil, err
	}
	if err := addModules(t, s, &cfg); err != nil {
		return nil, err
	}
	for _, f := range s.Files {
		if top := ownTop(f); top != "" {
			return nil, fmt.Errorf("put %s in the guest: it has a %s of its own", f, top)
		}
		if err := t.AddHost(f); err != nil {
			return nil, fmt.Errorf("put %s in the guest: %w", f, err)
		}
	}
	if err := addCommands(t, cfg.Args); err != nil {
		return nil, err
	}
	if cfg.Dir == "" || !t.Has(cfg.Dir) {
		cfg.Dir = "/root"
	}
	for _, o := range s.Outs {
		cfg.Outs = append(cfg.Outs, o.Guest)
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	return t, t.Data(guest.ConfigPath, b, 0o644)
}

// ownTop is the folder, of those that the kernel fills, that p lies in; ""
// when it lies in none.
func ownTop(p string) string {
	abs, err := filepath.Abs(p)
	if err != nil {
		return ""
	}
	for _, top := range []string{"/dev", "/proc", "/sys"} {
		if abs == top || strings.HasPrefix(abs, top+"/") {
			return top
		}
	}
	return ""
}

// addBase adds PID 1, busybox and the few files that programs look for.
func addBase(t *initramfs.Tree, s *Spec) error {
	self := s.Init
	if self == "" {
		var err error
		if self, err = os.Executable(); err != nil {
			return fmt.Errorf("find the running program: %w", err)
		}
	}
	if err := t.AddProgram("/usr/bin/dioctl", self); err != nil {
		return fmt.Errorf("put dioctl in the guest: %w", err)
	}
	if err := t.Link("/init", "usr/bin/dioctl"); err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w: run `make setup`, or install busybox-static", err)
	}
	if err := t.AddProgram("/usr/bin/busybox", busybox); err != nil {
		return fmt.Errorf("put busybox in the guest: %w", err)
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", busybox, err)
	}
	for sc := bufio.NewScanner(strings.NewReader(string(applets))); sc.Scan(); {
		if a := sc.Text(); a != "" && a != "busybox" {
			if err := t.WeakLink("/usr/bin/"+a, "busybox"); err != nil {
				return err
			}
		}
	}
	for p, text := range map[string]string{
		"/etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"/etc/group":         "root:x:0:\nnogroup:x:65534:\n",
		"/etc/hosts":         "127.0.0.1 localhost dio\n::1 localhost\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
		"/etc/hostname":      "dio\n",
		"/etc/os-release":    "NAME=dio\nID=dio\n",
		"/etc/profile":       "PS1='dio# '\n",
	} {
		if err := t.Data(p, []byte(text), 0o644); err != nil {
			return err
		}
	}
	// util-linux's mount and others look here.
	return t.WeakLink("/etc/mtab", "/proc/self/mounts")
}

// addModules adds the kernel's modules that s needs and those of the user,
// with a modules.dep so that modprobe works on them.
func addModules(t *initramfs.Tree, s *Spec, cfg *guest.Config) error {
	root := "/lib/modules/" + s.Kernel.Release
	wantEarly := portModules
	if s.Disk != "" {
		wantEarly = slices.Concat(portModules, diskModules)
	}
	var dep strings.Builder
	placed := map[string]bool{}
	place := func(mods []kernel.Module, into *[]string) error {
		for _, m := range mods {
			p := root + "/" + m.Rel
			if !placed[p] {
				placed[p] = true
				if err := t.Data(p, m.Data, 0o644); err != nil {
					return err
				}
				m.WriteDep(&dep, mods)
			}
			*into = append(*into, p)
		}
		return nil
	}
	if s.Kernel.Modules != "" {
		index, err := kernel.OpenModules(s.Kernel.Modules)
		if err != nil {
			return err
		}
		early, err := index.Resolve(index.Known(wantEarly)...)
		if err != nil {
			return err
		}
		if err := place(early, &cfg.Early); err != nil {
			return err
		}
		named, err := index.Resolve(s.KernelModules...)
		if err != nil {
			return err
		}
		if err := place(named, &cfg.Modules); err != nil {
			return err
		}
		for _, f := range []string{"modules.builtin", "modules.order", "modules.builtin.modinfo"} {
			if err := t.File(root+"/"+f, filepath.Join(s.Kernel.Modules, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	} else if len(s.KernelModules) > 0 {
		return fmt.Errorf("modules %s: this kernel came without a lib/modules/%s folder", strings.Join(s.KernelModules, ", "), s.Kernel.Release)
	}
	for _, p := range s.Modules {
		data, err := kernel.ReadModule(p)
		if err != nil {
			return err
		}
		if err := kernel.CheckVermagic(p, data, s.Kernel.Release); err != nil {
			return err
		}
		rel := "updates/" + kernel.ModuleName(p) + ".ko"
		if err := t.Data(root+"/"+rel, data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&dep, "%s:\n", rel)
		cfg.Modules = append(cfg.Modules, root+"/"+rel)
	}
	return t.Data(root+"/modules.dep", []byte(dep.String()), 0o644)
}

// addCommands adds the programs that args name: the command itself, and
// whatever follows a "--" among its arguments, for that is the next
// program of a command like `dioctl audit -- fio ...`. A host program that
// was named by a relative path is called by its absolute one.
func addCommands(t *initramfs.Tree, args []string) error {
	for i, a := range args {
		if i > 0 && args[i-1] != "--" {
			continue
		}
		if strings.Contains(a, "/") {
			abs, err := filepath.Abs(a)
			if err != nil {
				return err
			}
			fi, err := os.Stat(abs)
			if t.Has(a) || err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
				continue // in the guest already, or to be made there
			}
			args[i] = abs
			a = abs
		} else if t.HasCommand(a) {
			continue
		} else if at, err := exec.LookPath(a); err == nil {
			a = at
		} else {
			continue // PID 1 says so, with the status that a shell would give
		}
		if err := t.AddHost(a); err != nil {
			return fmt.Errorf("put the command %s in the guest: %w", a, err)
		}
	}
	return nil
}
