// SPDX-License-Identifier: GPL-2.0-only

package uring

import (
	"testing"
	"unsafe"
)

func TestKernelStructSizes(t *testing.T) {
	for _, s := range []struct {
		name      string
		got, want uintptr
	}{
		{"io_uring_params", unsafe.Sizeof(params{}), 120},
		{"io_uring_params.sq_off", unsafe.Offsetof(params{}.sqOff), 40},
		{"io_uring_params.cq_off", unsafe.Offsetof(params{}.cqOff), 80},
		{"io_uring_sqe", unsafe.Sizeof(SQE{}), 64},
		{"io_uring_sqe.user_data", unsafe.Offsetof(SQE{}.UserData), 32},
		{"io_uring_sqe.buf_index", unsafe.Offsetof(SQE{}.BufIndex), 40},
		{"io_uring_sqe.cmd", unsafe.Offsetof(SQE{}.Cmd), 48},
		{"io_uring_cqe", unsafe.Sizeof(CQE{}), 16},
		{"io_uring_getevents_arg", unsafe.Sizeof(getEventsArg{}), 24},
	} {
		if s.got != s.want {
			t.Errorf("%s: %d, the kernel has %d", s.name, s.got, s.want)
		}
	}
}
