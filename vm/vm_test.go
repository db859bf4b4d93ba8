// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dio/vm/guest"
	"dio/vm/initramfs"
	"dio/vm/kernel"
	"dio/vm/kernel/kotest"
)

func TestComplaints(t *testing.T) {
	guilty := []string{
		"WARNING: CPU: 1 PID: 77 at mm/gup.c:123 unpin_user_page+0x1/0x2 [dio]",
		"WARNING: mm/gup.c:123 at unpin_user_page+0x1/0x2, CPU#0: dioctl/77",
		"WARNING: possible recursive locking detected",
		"WARNING: possible circular locking dependency detected",
		"WARNING: suspicious RCU usage",
		"BUG: kernel NULL pointer dereference, address: 0000000000000008",
		"BUG: KASAN: slab-use-after-free in dio_complete+0x1/0x2 [dio]",
		"BUG: sleeping function called from invalid context at mm/x.c:1",
		"BUG: unable to handle page fault for address: ffffc90000",
		"BUG: scheduling while atomic: dioctl/77/0x00000002",
		"BUG: Bad page state in process dioctl  pfn:12345",
		"BUG: workqueue lockup - pool cpus=0",
		"kernel BUG at mm/swap.c:12!",
		"Oops: 0002 [#1] PREEMPT SMP NOPTI",
		"Oops: general protection fault, probably for non-canonical address 0xdead",
		"general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
		"Kernel panic - not syncing: sysrq triggered crash",
		"INFO: task dioctl:77 blocked for more than 60 seconds.",
		"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
		"rcu: INFO: rcu_preempt self-detected stall on CPU",
		"watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [dioctl:77]",
		"unreferenced object 0xffff888003 (size 64):",
		"kmemleak: unreferenced object 0xffff888003 (size 64):",
		"refcount_t: underflow; use-after-free.",
		"list_del corruption. prev->next should be x, but was y",
		"list_add corruption. next->prev should be prev (x), but was y.",
		"UBSAN: array-index-out-of-bounds in drivers/x.c:1:2",
		"BUG dio_request (Tainted: G           O      ): Objects remaining on __kmem_cache_shutdown()",
		"=== Objects remaining in dio_request on __kmem_cache_shutdown()",
	}
	innocentLines := []string{
		"dio: loading out-of-tree module taints kernel.",
		"dio: module verification failed: signature and/or required key missing - tainting kernel",
		"Command line: console=ttyS0 oops=panic panic=-1",
		"mtrr: your CPUs had inconsistent variable MTRR settings",
		"clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc-early' as unstable because the skew is too large:",
		"acpi PNP0A03:00: fail to add MMCONFIG information",
		"Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
		"Speculative Return Stack Overflow: WARNING: See https://kernel.org/doc/html/latest/admin-guide/hw-vuln/srso.html for mitigation options.",
		"[Firmware Bug]: TSC doesn't count with P0 frequency!",
		"kmemleak: Kernel memory leak detector initialized (mem pool available: 15669)",
		"kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", // PID 1 tells which are the run's
		"rcu: \\x09RCU callback double-/use-after-free debug is enabled.",
		"kfence: initialized - using 2097152 bytes for 255 objects",
		"rcu: Preemptible hierarchical RCU implementation.",
		"debug: a bug in nothing", "",
	}
	for _, l := range guilty {
		for _, stamped := range []string{"[    5.123456] " + l, "[    5.123456][   T77] " + l, l, "[    5.123456] " + l + "\r"} {
			if got := Complaints(stamped + "\n"); len(got) != 1 {
				t.Errorf("missed: %q", stamped)
			}
		}
	}
	for _, l := range innocentLines {
		if got := Complaints("[    5.123456] " + l + "\n"); len(got) != 0 {
			t.Errorf("not a complaint: %q", l)
		}
	}
	// The console and the kernel's log tell the same; twice is twice.
	console := "[    1.000000] BUG: one\r\n[    2.000000] BUG: one\r\n"
	if got := Complaints(console, strings.ReplaceAll(console, "\r", "")+"[    3.000000] WARNING: two\n"); len(got) != 3 {
		t.Errorf("%q", got)
	}
}

func TestArgs(t *testing.T) {
	m := machine{kernel: "k", initrd: "i", console: "/a,b", cpus: 2, memory: 1 << 30, cmdline: "c", portFD: 3, disk: "/d", devices: []string{"edu"}, extra: []string{"-s"}}
	emulated := strings.Join((&QEMU{}).args(m), " ")
	for _, want := range []string{"max,-cx16,-la57", "tcg,thread=multi", "-smp 2", "-m 1024M", "path=/a,,b", "-no-reboot", "nvme", "-device edu", "fd=3"} {
		if !strings.Contains(emulated, want) {
			t.Errorf("no %q in %s", want, emulated)
		}
	}
	if !strings.HasSuffix(emulated, " -s") {
		t.Error("further arguments must be last, to win")
	}
	if kvm := strings.Join((&QEMU{KVM: true}).args(m), " "); !strings.Contains(kvm, "-accel kvm -cpu host") || strings.Contains(kvm, "tcg") {
		t.Error(kvm)
	}
	m.icount = true
	icount := strings.Join((&QEMU{KVM: true}).args(m), " ")
	if !strings.Contains(icount, "-icount shift=0,sleep=off") || !strings.Contains(icount, "-smp 1") || strings.Contains(icount, "kvm") {
		t.Error(icount)
	}
}

func TestBootSector(t *testing.T) {
	s := bootSector()
	if len(s) != 512 || s[510] != 0x55 || s[511] != 0xaa || s[4] != 'K' || s[10]<<1|1 != probeExit {
		t.Errorf("% x", s[:16])
	}
}

// The control: where a guest surely boots, the probe must say so.
func TestProbeBoots(t *testing.T) {
	q, err := FindQEMU(context.Background())
	if err != nil {
		t.Skip(err)
	}
	if err := probeBoot(context.Background(), q.Path, "tcg", "max", probeAgain); err != nil {
		t.Errorf("the probe under emulation: %v", err)
	}
}

func TestParseMemory(t *testing.T) {
	for text, want := range map[string]int64{"512M": 512 << 20, "2G": 2 << 30, "2GiB": 2 << 30, "1g": 1 << 30, "134217728": 128 << 20, "1TiB": 1 << 40} {
		if got, err := ParseMemory(text); got != want || err != nil {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "G", "-1G", "1X", "64M", "0", "99999999999999999999", "9999999999T", "1.5G", "1GG"} {
		if got, err := ParseMemory(bad); err == nil {
			t.Errorf("%q: %d", bad, got)
		}
	}
}

func TestParseOut(t *testing.T) {
	if o, err := ParseOut("/tmp/a:b:c"); err != nil || o.Guest != "/tmp/a" || o.Host != "b:c" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{"", "x", ":x", "x:"} {
		if _, err := ParseOut(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestTail(t *testing.T) {
	if got := tail("a\r\n\nb\nc\n", 2); got != "b\nc" {
		t.Errorf("%q", got)
	}
	if got := tail("before\n[ 3.0] Kernel panic - why\nRIP\nb\nc\n", 2); got != "[ 3.0] Kernel panic - why\nRIP\nb\nc" {
		t.Errorf("%q", got)
	}
	if got := tail("[ 3.0] Oops\n"+strings.Repeat("x\n", 20), 2); got != "x\nx" {
		t.Errorf("%q", got)
	}
	if got := panicLine("x\n[    3.000000] Kernel panic - not syncing: why\r\n"); got != "Kernel panic - not syncing: why" {
		t.Errorf("%q", got)
	}
}

func TestError(t *testing.T) {
	cause := errors.New("cause")
	e := &Error{What: "it broke", Err: cause, Tail: "last words", Console: "/log"}
	if !errors.Is(e, cause) {
		t.Error("the cause is hidden")
	}
	for _, want := range []string{"it broke", "cause", "last words", "/log"} {
		if !strings.Contains(e.Error(), want) {
			t.Errorf("no %q in %q", want, e.Error())
		}
	}
}

func TestAddCommands(t *testing.T) {
	dir := t.TempDir()
	prog := filepath.Join(dir, "prog")
	if err := os.WriteFile(prog, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("PATH", dir)
	tree := initramfs.New()
	for _, p := range []string{"/bin/sh", "/bin/dioctl"} {
		if err := tree.Data(p, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"dioctl", "prog", "--", "./prog", "prog", "--", "prog", "--", "nosuch"}
	if err := addCommands(tree, args); err != nil {
		t.Fatal(err)
	}
	if args[3] != prog || args[1] != "prog" || args[6] != "prog" {
		t.Errorf("%q", args)
	}
	if !tree.Has(prog) {
		t.Error("the program is not in the guest")
	}
}

func TestRunRefuses(t *testing.T) {
	if _, err := Run(context.Background(), Spec{Args: []string{"true"}}); err == nil {
		t.Error("no kernel")
	}
}

// What the disk needs is loaded before it's looked for, where the kernel hasn't got it
// built in; what the command wants, after that.
func TestDiskModules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string][]byte{
		"modules.builtin":      []byte("kernel/fs/ext4/ext4.ko\n"),
		"kernel/nvme-core.ko":  kotest.Module("depends="),
		"kernel/nvme.ko":       kotest.Module("depends=nvme-core"),
		"kernel/virtio.ko":     kotest.Module("depends="),
		"kernel/wanted.ko":     kotest.Module("depends=nvme-core,own"),
		"kernel/own.ko":        kotest.Module("depends="),
		"kernel/not-wanted.ko": kotest.Module("depends="),
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		disk           string
		early, modules string
	}{
		"a disk":  {"/some/folder", "virtio nvme-core nvme", "nvme-core own wanted"},
		"no disk": {"", "virtio", "nvme-core own wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := initramfs.New()
			var cfg guest.Config
			s := &Spec{Kernel: &kernel.Image{Name: "k", Release: "1.2", Modules: dir}, Disk: c.disk, KernelModules: []string{"wanted"}}
			if err := addModules(tree, s, &cfg); err != nil {
				t.Fatal(err)
			}
			for _, x := range []struct {
				what string
				got  []string
				want string
			}{{"early", cfg.Early, c.early}, {"for the command", cfg.Modules, c.modules}} {
				var names []string
				for _, p := range x.got {
					if !tree.Has(p) {
						t.Errorf("%s isn't in the guest", p)
					}
					names = append(names, strings.TrimSuffix(filepath.Base(p), ".ko"))
				}
				if got := strings.Join(names, " "); got != x.want {
					t.Errorf("%s: %s, want %s", x.what, got, x.want)
				}
			}
		})
	}
}

func TestBaseCmdline(t *testing.T) {
	// Without these a panic would hang, and a warning never be seen.
	words := strings.Fields(baseCmdline)
	for _, want := range []string{"panic=-1", "loglevel=5", "console=ttyS0", "rdinit=/init"} {
		if !slices.Contains(words, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestCmdline(t *testing.T) {
	spec := &Spec{Kernel: &kernel.Image{Name: "6.12"}, Append: "a=b"}
	if c := cmdline(&QEMU{KVM: true}, spec); strings.Contains(c, "tsc=") || strings.Contains(c, "kasan") || !strings.HasSuffix(c, " a=b") {
		t.Error(c)
	}
	spec.Kernel.Name = kernel.Debug
	if c := cmdline(&QEMU{}, spec); !strings.Contains(c, " tsc=reliable kasan_multi_shot a=b") {
		t.Error(c)
	}
}
