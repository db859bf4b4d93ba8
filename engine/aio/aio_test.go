// SPDX-License-Identifier: GPL-2.0-only

package aio

import (
	"testing"
	"unsafe"
)

func TestKernelStructSizes(t *testing.T) {
	for _, s := range []struct {
		name      string
		got, want uintptr
	}{
		{"iocb", unsafe.Sizeof(IOCB{}), 64},
		{"iocb.aio_lio_opcode", unsafe.Offsetof(IOCB{}.Opcode), 16},
		{"iocb.aio_buf", unsafe.Offsetof(IOCB{}.Buf), 24},
		{"iocb.aio_flags", unsafe.Offsetof(IOCB{}.Flags), 56},
		{"io_event", unsafe.Sizeof(Event{}), 32},
	} {
		if s.got != s.want {
			t.Errorf("%s: %d, the kernel has %d", s.name, s.got, s.want)
		}
	}
}
