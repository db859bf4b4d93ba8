// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"dio/trace/audit"

	"github.com/cilium/ebpf/btf"
)

var iterRules = []string{audit.RuleSyncAsAsync, audit.RuleDoubleComplete, audit.RuleResultRange, audit.RuleLengthOverflow}

// moduleIters finds every function of a loaded module that has the shape of
// read_iter and write_iter: ssize_t f(struct kiocb *, struct iov_iter *).
// Their entry and return tell synchronous calls from asynchronous ones, and
// what the driver returned.
func (s *Session) moduleIters() ([]hook, error) {
	modules, err := loadedModules()
	if err != nil {
		return nil, err
	}
	var hooks []hook
	add := func(function, module string) {
		if len(s.stacks.handlers) == maxHandlers {
			return
		}
		s.stacks.handlers = append(s.stacks.handlers, audit.Frame{Function: function, Module: module})
		hooks = append(hooks, hook{
			name: function, cookie: kindIter | uint64(len(s.stacks.handlers))<<cookieHandler, enter: true, exit: true,
			rules: iterRules,
		})
	}
	var untyped []string
	for _, m := range modules {
		spec, err := s.types.Module(m)
		if errors.Is(err, fs.ErrNotExist) {
			untyped = append(untyped, m)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("type information of module %s: %w", m, err)
		}
		for t, err := range spec.All() {
			if err != nil {
				return nil, fmt.Errorf("type information of module %s: %w", m, err)
			}
			f, ok := t.(*btf.Func)
			if !ok || !isIter(f) {
				continue
			}
			add(f.Name, m)
		}
	}
	if len(untyped) == 0 {
		return hooks, nil
	}
	table, err := readKallsyms()
	if err != nil {
		return hooks, err
	}
	for _, m := range untyped {
		for _, f := range table.named(m, "read_iter", "write_iter") {
			add(f, m)
		}
	}
	return hooks, nil
}

// named lists the module's functions with one of these endings, where no
// other function has the same name: a probe goes by the name alone. It is how
// to tell them where a module has no type information, as before 5.11.
func (s *symbols) named(module string, endings ...string) []string {
	var names []string
	for _, f := range s.module[module] {
		if !slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(f.name, e) }) {
			continue
		}
		same := func(other symbol) bool { return other.name == f.name && other.addr != f.addr }
		unique := !slices.ContainsFunc(s.kernel, same)
		for _, list := range s.module {
			unique = unique && !slices.ContainsFunc(list, same)
		}
		if unique {
			names = append(names, f.name)
		}
	}
	return names
}

func isIter(f *btf.Func) bool {
	proto, ok := f.Type.(*btf.FuncProto)
	if !ok || len(proto.Params) != 2 || !pointsTo(proto.Params[0].Type, "kiocb") || !pointsTo(proto.Params[1].Type, "iov_iter") {
		return false
	}
	// Others of these parameters return an int, whose upper half on return is
	// anything, or nothing.
	ret, ok := btf.UnderlyingType(proto.Return).(*btf.Int)
	return ok && ret.Size == 8
}

func pointsTo(t btf.Type, name string) bool {
	p, ok := btf.UnderlyingType(t).(*btf.Pointer)
	if !ok {
		return false
	}
	s, ok := btf.UnderlyingType(p.Target).(*btf.Struct)
	return ok && s.Name == name
}

func loadedModules() ([]string, error) {
	f, err := os.Open("/proc/modules")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without modules
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, _, ok := strings.Cut(sc.Text(), " "); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
