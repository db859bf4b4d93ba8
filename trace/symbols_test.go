// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"strings"
	"testing"
)

const kallsyms = `ffffffff81000000 T _stext
ffffffff81001000 T vfs_read
ffffffff81002000 D not_text
ffffffff81003000 t aio_read
ffffffff81004000 t arch_rethook_trampoline
ffffffffc0400000 t drv_open	[drv]
ffffffffc0400100 t drv_read_iter	[drv]
ffffffffc0300000 T other_init	[other]
ffffffffc0405000 t bpf_trampoline_64	[bpf]
`

func TestFrame(t *testing.T) {
	table, err := parseKallsyms(strings.NewReader(kallsyms))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pc               uint64
		function, module string
		offset           uint64
	}{
		{0xffffffff81001010, "vfs_read", "", 0x10},
		{0xffffffff81002010, "vfs_read", "", 0x1010},
		{0xffffffff81004000, "arch_rethook_trampoline", "__builtin__ftrace", 0},
		{0xffffffffc0400080, "drv_open", "drv", 0x80},
		{0xffffffffc0400200, "drv_read_iter", "drv", 0x100},
		{0xffffffffc0300004, "other_init", "other", 4},
		{0xffffffffc0405020, "bpf_trampoline_64", "bpf", 0x20},
		{0xffffffff80000000, "0xffffffff80000000", "", 0},
	} {
		if f := table.frame(c.pc); f.Function != c.function || f.Module != c.module || f.Offset != c.offset {
			t.Errorf("%x is %+v, want %s+%x [%s]", c.pc, f, c.function, c.offset, c.module)
		}
	}
}

func TestHiddenSymbols(t *testing.T) {
	_, err := parseKallsyms(strings.NewReader("0000000000000000 T _stext\n"))
	if err == nil || !strings.Contains(err.Error(), "kptr_restrict") {
		t.Errorf("error %v, want one that names kptr_restrict", err)
	}
}
