// SPDX-License-Identifier: GPL-2.0-only

package initramfs

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// elfSearch finds shared libraries the way ld.so does on this host.
type elfSearch struct {
	dirs []string // of /etc/ld.so.conf, then the built-in ones; filled on first use
	conf string   // another ld.so.conf, for tests
}

// needed is what the ELF file at p asks for by itself: its interpreter and
// the libraries of its DT_NEEDED. A file for another machine or without a
// dynamic section needs nothing.
func (s *elfSearch) needed(p string) ([]string, error) {
	f, err := elf.Open(p)
	if err != nil {
		var bad *elf.FormatError
		if errors.As(err, &bad) {
			return nil, nil // core dumps and test data; not ours to judge
		}
		return nil, err
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 && f.Machine != elf.EM_386 {
		return nil, nil
	}
	var out []string
	for _, ph := range f.Progs {
		if ph.Type == elf.PT_INTERP {
			b, err := io.ReadAll(ph.Open())
			if err != nil {
				return nil, fmt.Errorf("%s: interpreter: %w", p, err)
			}
			out = append(out, strings.TrimRight(string(b), "\x00"))
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil || len(libs) == 0 {
		return out, nil // no dynamic section
	}
	var first []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		runs, _ := f.DynString(tag)
		for _, r := range runs {
			for _, d := range strings.Split(r, ":") {
				first = append(first, expandOrigin(d, filepath.Dir(p)))
			}
		}
	}
	for _, lib := range libs {
		at, err := s.find(lib, first, f.Class, f.Machine)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		out = append(out, at)
	}
	return out, nil
}

func expandOrigin(d, origin string) string {
	return strings.NewReplacer("${ORIGIN}", origin, "$ORIGIN", origin,
		"${LIB}", "lib", "$LIB", "lib", "${PLATFORM}", "x86_64", "$PLATFORM", "x86_64").Replace(d)
}

func (s *elfSearch) find(lib string, first []string, class elf.Class, machine elf.Machine) (string, error) {
	if strings.Contains(lib, "/") {
		return lib, nil
	}
	if s.dirs == nil {
		conf := s.conf
		if conf == "" {
			conf = "/etc/ld.so.conf"
		}
		s.dirs = append(ldSoConf(conf, 0),
			"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
			"/lib64", "/usr/lib64", "/lib", "/usr/lib", "/lib32", "/usr/lib32", "/lib/i386-linux-gnu")
	}
	for _, dirs := range [][]string{first, filepath.SplitList(os.Getenv("LD_LIBRARY_PATH")), s.dirs} {
		for _, d := range dirs {
			at := filepath.Join(d, lib)
			if fits(at, class, machine) {
				return at, nil
			}
		}
	}
	return "", fmt.Errorf("shared library %s not found on this host (checked run paths, /etc/ld.so.conf and the standard folders)", lib)
}

// fits tells whether at is a library of that class and machine; ld.so
// passes over others.
func fits(at string, class elf.Class, machine elf.Machine) bool {
	f, err := elf.Open(at)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Class == class && f.Machine == machine
}

func ldSoConf(name string, depth int) []string {
	f, err := os.Open(name)
	if err != nil || depth > 8 {
		return nil
	}
	defer f.Close()
	var dirs []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line, _, _ := strings.Cut(sc.Text(), "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "include" && len(words) > 1:
			pattern := words[1]
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(name), pattern)
			}
			more, _ := filepath.Glob(pattern)
			for _, m := range more {
				dirs = append(dirs, ldSoConf(m, depth+1)...)
			}
		case filepath.IsAbs(words[0]):
			dirs = append(dirs, words[0])
		}
	}
	return dirs
}
