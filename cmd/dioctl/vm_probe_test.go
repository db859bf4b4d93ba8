// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dio/vm"
)

// fakeQEMU answers --version, and boots no guest.
func fakeQEMU(t *testing.T, version string) string {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	p := filepath.Join(t.TempDir(), "qemu")
	script := "#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version " + version + " (Test)'\n"
	if err := os.WriteFile(p, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DIO_QEMU", p)
	return p
}

func TestVMProbe(t *testing.T) {
	p := fakeQEMU(t, "10.0.2")
	status, out, _ := dioctl(t, "vm", "probe", "--format", "json")
	var got probed
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	if status != exitFinding || got.Accelerator != "tcg" || got.Reason == "" || got.QEMU != (probeQEMU{p, "10.0.2"}) {
		t.Errorf("status %d, %+v", status, got)
	}
	status, out, _ = dioctl(t, "vm", "probe", "--again")
	if status != exitFinding || !strings.Contains(out, "tcg") || !strings.Contains(out, p) {
		t.Errorf("status %d, %q", status, out)
	}
	fakeQEMU(t, "7.2.1")
	if status, _, msg := dioctl(t, "vm", "probe"); status != exitEnvironment || !strings.Contains(msg, "unset it") || !strings.Contains(msg, "vm probe --again") {
		t.Errorf("an emulator that is too old: status %d, %q", status, msg)
	}
	if status, _, _ := dioctl(t, "vm", "probe", "x"); status != exitUsage {
		t.Errorf("an operand: status %d", status)
	}
	r := probeReport(&vm.QEMU{Path: "q", Version: "7.2.0", Major: 7, KVM: true})
	if r.Accelerator != "kvm" || r.Reason == "" {
		t.Errorf("%+v", r)
	}
}
