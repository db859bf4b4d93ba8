// SPDX-License-Identifier: GPL-2.0-only

package vm_test

import (
	"testing"
	"time"

	"dio/vm"
	"dio/vm/vmtest"
)

// pausing is a reader of output who looks elsewhere for a while.
type pausing struct {
	pause time.Duration
	n     int // bytes
}

func (p *pausing) Write(b []byte) (int, error) {
	if p.n == 0 {
		time.Sleep(p.pause)
	}
	p.n += len(b)
	return len(b), nil
}

// The guest is done long before its output is read: it stays until then.
func TestVMSlowReader(t *testing.T) {
	const size = 1_000_000
	w := &pausing{pause: 15 * time.Second}
	ran := vmtest.Run(t, vm.Spec{CPUs: 1, Stdout: w, Args: sh("head -c 1000000 /dev/zero; exit 7")})
	if ran.Status != 7 || w.n != size {
		t.Errorf("status %d, %d bytes, want 7 and %d", ran.Status, w.n, size)
	}
}
