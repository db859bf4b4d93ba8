// SPDX-License-Identifier: GPL-2.0-only

package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// AddHost puts the host's file or whole directory at the same path in the
// guest. Symbolic links on the way stay links and what they lead to comes
// too; an ELF program brings its interpreter and libraries, a script its
// interpreter unless the guest has one at that path.
func (t *Tree) AddHost(p string) error {
	abs, err := filepath.Abs(p)
	if err != nil {
		return err
	}
	return t.addHost(abs, 0)
}

func (t *Tree) addHost(p string, depth int) error {
	if depth > 40 {
		return fmt.Errorf("%s: too many symbolic links", p)
	}
	real, err := t.walk(p, depth)
	if err != nil {
		return err
	}
	fi, err := os.Lstat(real)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return t.addDir(real, depth)
	}
	if q, err := t.resolve(real); err == nil && t.entries[q] != nil && t.entries[q].host == real {
		return nil
	}
	if err := t.putFile(real, real, fi); err != nil {
		return err
	}
	return t.addNeeded(real, depth)
}

// walk mirrors the symbolic links along p into the tree and returns the
// host's path without any link in it.
func (t *Tree) walk(p string, depth int) (string, error) {
	at := "/"
	parts := strings.Split(strings.Trim(filepath.Clean(p), "/"), "/")
	for i, part := range parts {
		next := filepath.Join(at, part)
		fi, err := os.Lstat(next)
		if err != nil {
			return "", err
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if q, err := t.resolve(next); err != nil {
			return "", err
		} else if e := t.entries[q]; e == nil || e.kind == link || e.kind == file {
			if e == nil || e.target != target {
				if err := t.Link(next, target); err != nil {
					return "", err
				}
			}
		}
		if depth > 40 {
			return "", fmt.Errorf("%s: too many symbolic links", p)
		}
		rest := filepath.Join(parts[i+1:]...)
		return t.walk(filepath.Join(joinLink(next, target), rest), depth+1)
	}
	return at, nil
}

func (t *Tree) addDir(root string, depth int) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return t.Dir(p, fi.Mode()&(fs.ModePerm|fs.ModeSticky|fs.ModeSetgid))
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			// What the link leads to may be outside the directory, or
			// nowhere: it is taken along where it exists.
			if err := t.Link(p, target); err != nil {
				return err
			}
			if to := joinLink(p, target); !within(root, to) {
				if _, err := os.Stat(to); err == nil {
					return t.addHost(to, depth+1)
				}
			}
			return nil
		case fi.Mode().IsRegular():
			if err := t.putFile(p, p, fi); err != nil {
				return err
			}
			if fi.Mode()&0o111 != 0 || strings.Contains(fi.Name(), ".so") {
				return t.addNeeded(p, depth)
			}
			return nil
		}
		return nil // sockets, pipes and devices mean nothing in the guest
	})
}

func within(root, p string) bool {
	return p == root || strings.HasPrefix(p, strings.TrimSuffix(root, "/")+"/")
}

// addNeeded adds what the file at p needs to be run or loaded.
func (t *Tree) addNeeded(p string, depth int) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	head, _ := r.Peek(4)
	switch {
	case string(head) == "\x7fELF":
		need, err := t.elf.needed(p)
		if err != nil {
			return err
		}
		for _, n := range need {
			if err := t.addHost(n, depth+1); err != nil {
				return fmt.Errorf("%s needs %s: %w", p, n, err)
			}
		}
		if len(need) > 0 && !t.Has("/etc/ld.so.cache") {
			// Directories of /etc/ld.so.conf are known by the cache alone.
			if err := t.File("/etc/ld.so.cache", "/etc/ld.so.cache"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	case len(head) >= 2 && string(head[:2]) == "#!":
		line, _ := r.ReadString('\n')
		return t.addInterpreter(p, line, depth)
	}
	return nil
}

func (t *Tree) addInterpreter(script, line string, depth int) error {
	words := strings.Fields(strings.TrimPrefix(line, "#!"))
	if len(words) == 0 {
		return nil
	}
	if !t.Has(words[0]) {
		if err := t.addHost(words[0], depth+1); err != nil {
			return fmt.Errorf("%s: interpreter: %w", script, err)
		}
	}
	if filepath.Base(words[0]) != "env" {
		return nil
	}
	for _, w := range words[1:] {
		if strings.HasPrefix(w, "-") || strings.Contains(w, "=") {
			continue
		}
		if t.HasCommand(w) {
			return nil
		}
		at, err := exec.LookPath(w)
		if err != nil {
			return fmt.Errorf("%s: interpreter: %w", script, err)
		}
		return t.AddHost(at)
	}
	return nil
}

// Path is the guest's search path for commands.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// HasCommand tells whether the guest finds name in its Path.
func (t *Tree) HasCommand(name string) bool {
	for _, d := range strings.Split(Path, ":") {
		if t.Has(d + "/" + name) {
			return true
		}
	}
	return false
}

// AddProgram puts the host's program at p in the guest, with what it needs.
func (t *Tree) AddProgram(p, host string) error {
	if err := t.File(p, host); err != nil {
		return err
	}
	return t.addNeeded(host, 0)
}
