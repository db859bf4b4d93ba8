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

// iter is a driver's own read_iter or write_iter.
type iter struct{ function, module string }

// moduleIters finds every function of a loaded module that has the shape of
// read_iter and write_iter: ssize_t f(struct kiocb *, struct iov_iter *).
// Their entry and return tell synchronous calls from asynchronous ones, and
// what the driver returned. What can't be watched is told as missing.
func (s *Session) moduleIters(kernel *btf.Spec) []hook {
	const all = "read_iter and write_iter of modules"
	modules, err := loadedModules()
	if err != nil {
		s.missing(all, err.Error(), iterRules, false)
		return nil
	}
	var iters []iter
	var untyped []string
	for _, m := range modules {
		found, err := s.typedIters(m)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			untyped = append(untyped, m)
		case err != nil:
			s.missing("read_iter and write_iter of module "+m, err.Error(), iterRules, false)
		}
		iters = append(iters, found...)
	}
	iters, twice := unique(iters, func(function string) bool { return has(kernel, function) })
	for _, i := range twice {
		s.missing(i.function+" of module "+i.module, "another function has the same name, and a probe goes by the name alone", iterRules, false)
	}
	if len(untyped) > 0 {
		table, err := readKallsyms()
		if err != nil {
			s.missing(all, err.Error(), iterRules, false)
		} else {
			for _, m := range untyped {
				for _, f := range table.named(m, "read_iter", "write_iter") {
					iters = append(iters, iter{f, m})
				}
			}
		}
	}
	var hooks []hook
	for _, i := range iters[:min(len(iters), maxHandlers)] {
		s.stacks.handlers = append(s.stacks.handlers, audit.Frame{Function: i.function, Module: i.module})
		hooks = append(hooks, hook{
			name: i.function, cookie: kindIter | uint64(len(s.stacks.handlers))<<cookieHandler, enter: true, exit: true, rules: iterRules,
		})
	}
	return hooks
}

// typedIters are a module's by its type information; fs.ErrNotExist: it has none.
func (s *Session) typedIters(module string) ([]iter, error) {
	spec, err := s.types.Module(module)
	if err != nil {
		return nil, fmt.Errorf("type information: %w", err)
	}
	var iters []iter
	for t, err := range spec.All() {
		if err != nil {
			return nil, fmt.Errorf("type information: %w", err)
		}
		if f, ok := t.(*btf.Func); ok && isIter(f) {
			iters = append(iters, iter{f.Name, module})
		}
	}
	return iters, nil
}

// unique leaves out the functions whose name several modules have, or the kernel itself.
func unique(iters []iter, kernels func(string) bool) (one, more []iter) {
	count := map[string]int{}
	for _, i := range iters {
		count[i.function]++
	}
	for _, i := range iters {
		if count[i.function] > 1 || kernels(i.function) {
			more = append(more, i)
		} else {
			one = append(one, i)
		}
	}
	return one, more
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
