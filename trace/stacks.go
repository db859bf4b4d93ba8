// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"slices"

	"dio/trace/audit"
)

// codeBase is the upper half of every address of the kernel's code, of which the
// programs tell the lower: x86-64 has it, and that of modules, in the topmost 2 GiB.
const codeBase = 0xffffffff << 32

// stackID is which stack it is: the programs' word for it (0: none) below the
// driver's function that returned there (0: none).
type stackID struct {
	handler uint32
	stack   uint64
}

// stacks are those of the evidence, each one only once however many events have
// it: a driver that does everything wrong has very many events and few places.
type stacks struct {
	read     func(id uint32, pcs *[32]uint64) error
	handlers []audit.Frame // the drivers' functions, by the number in their cookie
	known    map[stackID]audit.Stack
	patched  []audit.Stack // those that lacked a caller, which is their second frame for now
}

// get is a stack by the programs' word. Addresses stand in Offset until name
// has named them, in place: who holds the stack has the names, too.
func (s *stacks) get(word uint64) audit.Stack { return s.below(0, word) }

// below is a stack with the driver's function before it: that of a return begins
// at its caller.
func (s *stacks) below(handler uint32, word uint64) audit.Stack {
	which := stackID{handler, word}
	if st, ok := s.known[which]; ok || which == (stackID{}) {
		return st
	}
	var st audit.Stack
	if handler > 0 && int(handler) <= len(s.handlers) {
		st = append(st, s.handlers[handler-1])
	}
	var pcs [32]uint64
	if id := uint32(word); id > 0 && s.read(id-1, &pcs) == nil {
		from := len(st)
		for _, pc := range pcs {
			if pc == 0 {
				break
			}
			st = append(st, audit.Frame{Offset: pc})
		}
		caller := audit.Frame{Offset: codeBase | word>>32}
		if frames := st[from:]; word>>32 != 0 && len(frames) > 0 && !slices.Contains(frames, caller) {
			st = slices.Insert(st, from+1, caller)
			s.patched = append(s.patched, st[from:])
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
	for _, st := range s.patched {
		settleCaller(st)
	}
	s.patched = nil
}

// settleCaller moves the second frame to below the function whose caller it is:
// the first, but for the code that called the program.
func settleCaller(st audit.Stack) {
	for i := 1; i < len(st)-1 && generated(st[i-1].Module); i++ {
		st[i], st[i+1] = st[i+1], st[i]
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
