// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"

	"dio/trace/audit"
)

// symbol is a text symbol of the kernel or a module.
type symbol struct {
	addr   uint64
	name   string
	module string
}

// symbols are sorted by address, modules apart from the kernel: a nearest
// symbol must never reach across a module's end.
type symbols struct {
	kernel []symbol
	module map[string][]symbol
	ranges []moduleRange
}

type moduleRange struct {
	first, last uint64
	name        string
}

func readKallsyms() (*symbols, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	defer f.Close()
	return parseKallsyms(f)
}

// parseKallsyms reads /proc/kallsyms, tens of thousands of lines, once.
func parseKallsyms(r io.Reader) (*symbols, error) {
	s := &symbols{module: map[string][]symbol{}}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		line := sc.Bytes()
		// "ffffffff81000000 T _stext" or "... t dio_read_iter\t[dio]"
		if len(line) < 20 {
			continue
		}
		if c := line[17] | 0x20; c != 't' && c != 'w' {
			continue
		}
		var addr uint64
		for _, c := range line[:16] {
			addr = addr<<4 | uint64(hex(c))
		}
		name, module, found := bytes.Cut(line[19:], []byte{'\t'})
		if !found {
			s.kernel = append(s.kernel, symbol{addr, string(name), trampolines[string(name)]})
			continue
		}
		m := string(bytes.Trim(module, "[]"))
		s.module[m] = append(s.module[m], symbol{addr, string(name), m})
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	byAddr := func(a, b symbol) int { return cmp.Compare(a.addr, b.addr) }
	slices.SortStableFunc(s.kernel, byAddr)
	for name, list := range s.module {
		slices.SortStableFunc(list, byAddr)
		if generated(name) {
			continue // scattered between the modules: no range
		}
		s.ranges = append(s.ranges, moduleRange{list[0].addr, list[len(list)-1].addr + 4096, name})
	}
	if len(s.kernel) == 0 || s.kernel[len(s.kernel)-1].addr == 0 {
		return nil, errors.New("read the kernel's symbols: all addresses are zero: kernel.kptr_restrict hides them, even from root if it is 2")
	}
	return s, nil
}

func hex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// trampolines are what a function returns to whose return is hooked, and are no
// more of the kernel's own doing than what is generated for it.
var trampolines = map[string]string{
	"arch_rethook_trampoline": "__builtin__ftrace",
	"return_to_handler":       "__builtin__ftrace",
	"kretprobe_trampoline":    "__builtin__kprobes",
	"__kretprobe_trampoline":  "__builtin__kprobes",
}

// generated names what kallsyms lists as modules but aren't: the code that
// BPF, ftrace and kprobes generate.
func generated(module string) bool {
	return module == "bpf" || strings.HasPrefix(module, "__builtin__")
}

// frame names an address. The last function of a module has an unknown end,
// so of the modules in question the one with the nearest symbol is taken.
func (s *symbols) frame(pc uint64) audit.Frame {
	var best *symbol
	try := func(list []symbol) {
		if i := nearest(list, pc); i >= 0 && (best == nil || list[i].addr > best.addr) {
			best = &list[i]
		}
	}
	for _, r := range s.ranges {
		if pc >= r.first && pc < r.last {
			try(s.module[r.name])
		}
	}
	if best == nil {
		for name, list := range s.module {
			if generated(name) {
				try(list)
			}
		}
		try(s.kernel)
	}
	if best == nil {
		return audit.Frame{Function: fmt.Sprintf("0x%x", pc)}
	}
	return audit.Frame{Function: best.name, Module: best.module, Offset: pc - best.addr}
}

func nearest(list []symbol, pc uint64) int {
	return sort.Search(len(list), func(i int) bool { return list[i].addr > pc }) - 1
}
