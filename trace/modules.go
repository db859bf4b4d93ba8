// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"dio/trace/audit"

	"github.com/cilium/ebpf/btf"
)

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
	for _, m := range modules {
		spec, err := s.types.Module(m)
		if errors.Is(err, fs.ErrNotExist) {
			continue // built without type information
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
			s.handlers = append(s.handlers, audit.Frame{Function: f.Name, Module: m})
			hooks = append(hooks, hook{
				name: f.Name, cookie: kindIter | uint64(len(s.handlers))<<32, enter: true, exit: true,
				rules: []string{audit.RuleSyncAsAsync, audit.RuleDoubleComplete},
			})
		}
	}
	return hooks, nil
}

func isIter(f *btf.Func) bool {
	proto, ok := f.Type.(*btf.FuncProto)
	return ok && len(proto.Params) == 2 && pointsTo(proto.Params[0].Type, "kiocb") && pointsTo(proto.Params[1].Type, "iov_iter")
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
