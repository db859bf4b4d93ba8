// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Modules finds a kernel's modules by name. A distribution's package has no
// modules.dep (that is made at installation), so what a module needs is
// read from the module itself.
type Modules struct {
	dir     string
	paths   map[string]string // name to path under dir
	builtin map[string]bool
}

// Module is one module to load.
type Module struct {
	Name string
	Rel  string // path under lib/modules/RELEASE, without a compression suffix
	Data []byte // the ELF file, decompressed
	deps []string
}

// OpenModules indexes the folder lib/modules/RELEASE.
func OpenModules(dir string) (*Modules, error) {
	m := &Modules{dir: dir, paths: map[string]string{}, builtin: map[string]bool{}}
	b, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, line := range strings.Fields(string(b)) {
		m.builtin[ModuleName(line)] = true
	}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			m.paths[ModuleName(p)] = p
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("index modules: %w", err)
	}
	return m, nil
}

// ModuleName is the name of the module in the file at p: "-" is "_".
func ModuleName(p string) string {
	name, _, _ := strings.Cut(filepath.Base(p), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// ErrNoModule is wrapped when a kernel has no module of a name.
var ErrNoModule = errors.New("no such module")

// Resolve gives the modules to load, in order, for all names to be there:
// what each needs comes before it. Built-in ones need no loading.
func (m *Modules) Resolve(names ...string) ([]Module, error) {
	var out []Module
	state := map[string]int{} // 1 being visited, 2 done
	var visit func(name, wantedBy string, soft bool) error
	visit = func(name, wantedBy string, soft bool) error {
		name = ModuleName(name)
		if state[name] != 0 || m.builtin[name] {
			return nil // a cycle would be the kernel's own mistake
		}
		p, ok := m.paths[name]
		if !ok {
			if soft {
				return nil
			}
			if wantedBy != "" {
				wantedBy = " (wanted by " + wantedBy + ")"
			}
			return fmt.Errorf("%w: %s%s in %s: this kernel has it neither built in nor as a module", ErrNoModule, name, wantedBy, m.dir)
		}
		state[name] = 1
		mod, err := m.read(name, p)
		if err != nil {
			return err
		}
		for _, d := range mod.deps {
			d, soft := strings.CutPrefix(d, "?")
			if err := visit(d, name, soft); err != nil {
				return err
			}
		}
		state[name] = 2
		out = append(out, mod)
		return nil
	}
	for _, n := range names {
		if err := visit(n, "", false); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *Modules) read(name, p string) (Module, error) {
	data, err := ReadModule(p)
	if err != nil {
		return Module{}, err
	}
	info, err := Modinfo(data)
	if err != nil {
		return Module{}, fmt.Errorf("%s: %w", p, err)
	}
	rel, err := filepath.Rel(m.dir, p)
	if err != nil {
		return Module{}, err
	}
	mod := Module{Name: name, Data: data, Rel: rel[:strings.LastIndex(rel, ".ko")+3]}
	// "softdep=pre: a b post: c": what makes it work better, loaded first.
	for _, s := range info["softdep"] {
		pre := false
		for _, w := range strings.Fields(s) {
			switch {
			case strings.HasSuffix(w, ":"):
				pre = w == "pre:"
			case pre:
				mod.deps = append(mod.deps, "?"+w)
			}
		}
	}
	for _, s := range info["depends"] {
		for _, d := range strings.Split(s, ",") {
			if d != "" {
				mod.deps = append(mod.deps, d)
			}
		}
	}
	return mod, nil
}

// ReadModule is the ELF file at p, decompressed if its name says so.
func ReadModule(p string) ([]byte, error) {
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch filepath.Ext(p) {
	case ".xz":
		r, err = xz.NewReader(f)
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(f); err == nil {
			defer z.Close()
			r = z
		}
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(r)
	}
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", p, err)
	}
	return b, nil
}

// Modinfo is a module's own description: each key with its values.
func Modinfo(module []byte) (map[string][]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, fmt.Errorf("not a kernel module: %w", err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("not a kernel module: it has no .modinfo")
	}
	b, err := s.Data()
	if err != nil {
		return nil, err
	}
	info := map[string][]string{}
	for _, line := range bytes.Split(b, []byte{0}) {
		if k, v, ok := strings.Cut(string(line), "="); ok {
			info[k] = append(info[k], v)
		}
	}
	return info, nil
}

// Known is names without those that this kernel has in no form: some
// kernels merged or split modules.
func (m *Modules) Known(names []string) []string {
	var out []string
	for _, n := range names {
		if _, ok := m.paths[ModuleName(n)]; ok || m.builtin[ModuleName(n)] {
			out = append(out, n)
		}
	}
	return out
}

// WriteDep writes the module's line of modules.dep; all is where what it
// needs is found.
func (m Module) WriteDep(w io.Writer, all []Module) {
	fmt.Fprintf(w, "%s:", m.Rel)
	for _, name := range m.closure(all) {
		for _, o := range all {
			if o.Name == name {
				fmt.Fprintf(w, " %s", o.Rel)
			}
		}
	}
	fmt.Fprintln(w)
}

// closure is what m needs, directly or not, nearest first as depmod has it.
func (m Module) closure(all []Module) []string {
	var out []string
	seen := map[string]bool{m.Name: true}
	var visit func(deps []string)
	visit = func(deps []string) {
		for _, d := range deps {
			d = ModuleName(strings.TrimPrefix(d, "?"))
			if seen[d] {
				continue
			}
			seen[d] = true
			out = append(out, d)
			for _, o := range all {
				if o.Name == d {
					visit(o.deps)
				}
			}
		}
	}
	visit(m.deps)
	return out
}

// CheckVermagic refuses a module that the kernel would refuse: better a
// clear word before the boot than "Exec format error" after it.
func CheckVermagic(p string, data []byte, release string) error {
	info, err := Modinfo(data)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	for _, v := range info["vermagic"] {
		built, _, _ := strings.Cut(v, " ")
		if built != release {
			return fmt.Errorf("%s was built for kernel %s, this one is %s: build it by `dioctl vm build`", p, built, release)
		}
	}
	return nil
}
