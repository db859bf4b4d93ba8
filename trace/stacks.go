// SPDX-License-Identifier: GPL-2.0-only

package trace

import "dio/trace/audit"

// stackID is which stack it is: the programs' number for it (0: none) below the
// driver's function that returned there (0: none).
type stackID struct{ handler, stack uint32 }

// stacks are those of the evidence, each one only once however many events have
// it: a driver that does everything wrong has very many events and few places.
type stacks struct {
	read     func(id uint32, pcs *[32]uint64) error
	handlers []audit.Frame // the drivers' functions, by the number in their cookie
	known    map[stackID]audit.Stack
}

// get is a stack by the programs' number. Addresses stand in Offset until name
// has named them, in place: who holds the stack has the names, too.
func (s *stacks) get(id uint32) audit.Stack { return s.below(0, id) }

// below is a stack with the driver's function before it: that of a return begins
// at its caller.
func (s *stacks) below(handler, id uint32) audit.Stack {
	which := stackID{handler, id}
	if st, ok := s.known[which]; ok || which == (stackID{}) {
		return st
	}
	var st audit.Stack
	if handler > 0 && int(handler) <= len(s.handlers) {
		st = append(st, s.handlers[handler-1])
	}
	var pcs [32]uint64
	if id > 0 && s.read(id-1, &pcs) == nil {
		for _, pc := range pcs {
			if pc == 0 {
				break
			}
			st = append(st, audit.Frame{Offset: pc})
		}
	}
	if s.known == nil {
		s.known = map[stackID]audit.Stack{}
	}
	s.known[which] = st
	return st
}

// any says whether there is one to name.
func (s *stacks) any() bool {
	for _, st := range s.known {
		if len(st) > 0 {
			return true
		}
	}
	return false
}

// name names the functions in every stack, and their lines.
func (s *stacks) name(frame func(pc uint64) audit.Frame, line func(module, function string, offset uint64) (string, int)) {
	named := map[audit.Frame]audit.Frame{}
	for _, st := range s.known {
		for i, raw := range st {
			f, ok := named[raw]
			if !ok {
				f = raw
				if f.Function == "" {
					f = frame(raw.Offset)
				}
				if f.Module != "" && !generated(f.Module) && f.File == "" {
					f.File, f.Line = line(f.Module, f.Function, f.Offset)
				}
				named[raw] = f
			}
			st[i] = f
		}
	}
}

// symbolize names the functions in every stack of the evidence.
func (s *Session) symbolize() error {
	if !s.stacks.any() {
		return nil // a clean run needs no names
	}
	table, err := readKallsyms()
	if err != nil {
		return err
	}
	s.stacks.name(table.frame, newLines(s.symbols).at)
	return nil
}
