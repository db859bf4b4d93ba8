// SPDX-License-Identifier: GPL-2.0-only

package vm_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dio/vm"
	"dio/vm/vmtest"
)

// firmware is what QEMU loads to boot a kernel, without a BIOS for the screen.
func firmware(t *testing.T, qemu string) (files []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), qemu, "-L", "help").Output()
	if err != nil {
		t.Fatalf("%s -L help: %v", qemu, err)
	}
	for _, name := range []string{"bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"} {
		found := false
		for _, dir := range strings.Fields(string(out)) {
			if p := filepath.Join(dir, name); !found {
				if _, err := os.Stat(p); err == nil {
					files, found = append(files, p), true
				}
			}
		}
		if !found {
			t.Fatalf("no %s in %s", name, out)
		}
	}
	return files
}

// Where KVM doesn't work it does in a guest, for QEMU emulates a processor that can
// virtualize: there it is found, and a kernel boots with it.
func TestVMWithKVM(t *testing.T) {
	vmtest.Need(t)
	q, err := vm.FindQEMU(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if q.KVM {
		t.Log("KVM works here: all other tests of VMs use it")
		return
	}
	if f, err := elf.Open(q.Path); err == nil {
		f.Close()
	} else {
		t.Skipf("%s isn't a program by itself, with libraries that can be packed with it: %v", q.Path, err)
	}
	img := vmtest.Kernel(t)
	ran := vmtest.Run(t, vm.Spec{
		Kernel: img, Memory: 3 << 30, Timeout: 10 * time.Minute,
		KernelModules: []string{"kvm-amd"},
		Files:         append([]string{q.Path, img.Vmlinuz, img.Modules}, firmware(t, q.Path)...),
		Env:           []string{"DIO_QEMU=" + q.Path, "KERNEL=" + img.Vmlinuz},
		Args: sh(`
			set -e
			dioctl vm probe >&2
			echo in | dioctl vm run --kernel $KERNEL --no-dio --cpus 2 --memory 512M --timeout 5m --summary -- \
				sh -c 'cat; uname -r; nproc; grep -c hypervisor /proc/cpuinfo; exit 3' || echo $?`),
	})
	if want := "in\n" + img.Release + "\n2\n2\n3\n"; ran.Status != 0 || ran.Stdout != want {
		t.Errorf("status %d, %q, want %q: %s", ran.Status, ran.Stdout, want, ran.Stderr)
	}
	for _, want := range []string{"a guest was seen to boot with it", "vm: kernel " + img.Release + ", kvm, "} {
		if !strings.Contains(ran.Stderr, want) {
			t.Errorf("%q isn't told: %s", want, ran.Stderr)
		}
	}
}
