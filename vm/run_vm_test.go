// SPDX-License-Identifier: GPL-2.0-only

package vm_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dio/vm"
	"dio/vm/kernel"
	"dio/vm/vmtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	vmtest.Cleanup()
	os.Exit(code)
}

func sh(script string) []string { return []string{"sh", "-c", script} }

// One boot for what a command sees: streams, status, files both ways, the
// system around it.
func TestVMCommand(t *testing.T) {
	vmtest.Need(t)
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	if err := os.WriteFile(in, []byte(strings.Repeat("payload ", 1<<17)), 0o644); err != nil {
		t.Fatal(err)
	}
	files := []string{in}
	if ls, err := exec.LookPath("sha256sum"); err == nil {
		files = append(files, ls) // a program with shared libraries
	}
	out, tree := filepath.Join(dir, "out"), filepath.Join(dir, "tree")
	ran := vmtest.Run(t, vm.Spec{
		Args: sh(`
			set -e
			cat
			echo to-stderr >&2
			cmp ` + in + ` ` + in + `
			cp ` + in + ` /tmp/copy
			mkdir -p /tmp/tree/sub; echo deep > /tmp/tree/sub/file; ln -s file /tmp/tree/sub/link
			sha256sum ` + in + ` >&2
			for d in /proc/self /sys/kernel/tracing/events /sys/kernel/debug/tracing /sys/fs/bpf /sys/fs/cgroup/cgroup.procs /dev/shm /dev/pts/ptmx /dev/null /dev/fd/0; do
				[ -e $d ] || { echo missing $d; exit 9; }
			done
			grep -q ' /dev/hugepages hugetlbfs' /proc/mounts || { echo no hugetlbfs; exit 9; }
			[ "$(id -u) $HOME $EXTRA" = "0 /root value" ] || { echo "$(id -u) $HOME $EXTRA"; exit 9; }
			ping -c 1 -W 5 127.0.0.1 > /dev/null || { echo no loopback; exit 9; }
			(sleep 300 &)
			lsmod >&2
			exit 42`),
		Stdin: strings.NewReader("from stdin\n"), Env: []string{"EXTRA=value"}, Files: files,
		KernelModules: []string{"null_blk", "zram"},
		Outs:          []vm.Out{{Guest: "/tmp/copy", Host: out}, {Guest: "/tmp/tree", Host: tree}},
		Timeout:       2 * time.Minute,
	})
	if ran.Status != 42 || ran.Stdout != "from stdin\n" {
		t.Errorf("status %d, stdout %q, stderr %q", ran.Status, ran.Stdout, ran.Stderr)
	}
	for _, want := range []string{"to-stderr", "null_blk", "zram"} {
		if !strings.Contains(ran.Stderr, want) {
			t.Errorf("no %q on stderr: %q", want, ran.Stderr)
		}
	}
	got, err := os.ReadFile(out)
	want, _ := os.ReadFile(in)
	if err != nil || string(got) != string(want) {
		t.Errorf("the file came back with %d bytes of %d: %v", len(got), len(want), err)
	}
	if b, err := os.ReadFile(tree + "/sub/link"); err != nil || string(b) != "deep\n" {
		t.Errorf("the folder came back with %q, %v", b, err)
	}
	if ran.Release != vmtest.Kernel(t).Release || ran.Kmsg == "" || ran.Booted == 0 {
		t.Errorf("release %q, %d bytes of kernel log, booted after %v", ran.Release, len(ran.Kmsg), ran.Booted)
	}
}

func TestVMSignaled(t *testing.T) {
	ran := vmtest.Run(t, vm.Spec{Args: sh("kill -SEGV $$"), CPUs: 1})
	if ran.Status != 139 || ran.Signal != "SIGSEGV" {
		t.Errorf("%+v", ran.Result)
	}
}

func TestVMNotThere(t *testing.T) {
	ran := vmtest.Run(t, vm.Spec{Args: []string{"no-such-command"}, CPUs: 1})
	if ran.Status != 127 || !strings.Contains(ran.Stderr, "--file") {
		t.Errorf("status %d, stderr %q", ran.Status, ran.Stderr)
	}
}

// A panic is no result, whatever the command printed before.
func TestVMPanic(t *testing.T) {
	ran, err := vmtest.Try(t, vm.Spec{Args: sh("echo all is well; echo c > /proc/sysrq-trigger; sleep 60"), Timeout: time.Minute})
	var failed *vm.Error
	if !errors.As(err, &failed) {
		t.Fatalf("%v, %+v", err, ran.Result)
	}
	if !strings.Contains(failed.What, "Kernel panic - not syncing: sysrq triggered crash") || !strings.Contains(failed.Tail, "Call Trace") || len(failed.Complaints) == 0 {
		t.Errorf("%+v", failed)
	}
	if _, err := os.Stat(failed.Console); err != nil {
		t.Errorf("the console's log: %v", err)
	}
}

func TestVMTimeLimit(t *testing.T) {
	vmtest.Need(t)
	img, init := vmtest.Kernel(t), vmtest.Dioctl(t)
	start := time.Now()
	_, err := vmtest.Try(t, vm.Spec{Kernel: img, Init: init, Args: []string{"sleep", "600"}, Timeout: 15 * time.Second, CPUs: 1})
	var failed *vm.Error
	if !errors.As(err, &failed) || !strings.Contains(failed.What, "time limit") {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 25*time.Second {
		t.Errorf("it took %v to give up after 15 s", took)
	}
}

// A cancelled run lets the command end in order, and leaves nothing behind.
func TestVMCancel(t *testing.T) {
	vmtest.Need(t)
	spec := vm.Spec{Kernel: vmtest.Kernel(t), Init: vmtest.Dioctl(t), CPUs: 1, Console: filepath.Join(t.TempDir(), "log"),
		Args: sh("trap 'echo ended in order; exit 3' TERM; echo started; while :; do sleep 0.1; done")}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out strings.Builder
	spec.Stdout = writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "started") {
			cancel()
		}
		return out.Write(p)
	})
	_, err := vm.Run(ctx, spec)
	if !errors.Is(err, context.Canceled) || !strings.Contains(out.String(), "ended in order") {
		t.Errorf("%v, stdout %q", err, out.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// What the kernel says at warning level is seen, and so is what it says
// more quietly.
func TestVMComplaints(t *testing.T) {
	ran, err := vmtest.Try(t, vm.Spec{CPUs: 1, Args: sh(`
		echo '<4>WARNING: CPU: 0 PID: 1 at test.c:1 loud+0x0' > /dev/kmsg
		echo '<6>UBSAN: shift-out-of-bounds in quiet.c:1' > /dev/kmsg
		echo '<4>nothing to see' > /dev/kmsg`)})
	if err != nil {
		t.Fatal(err)
	}
	if len(ran.Complaints) != 2 || !strings.Contains(ran.Complaints[0], "loud") || !strings.Contains(ran.Complaints[1], "quiet") {
		t.Errorf("%q", ran.Complaints)
	}
}

// Fast reading and slow reading commands, and one that reads nothing, get
// or leave a long input without a hang.
func TestVMStdin(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	ran := vmtest.Run(t, vm.Spec{CPUs: 1, Stdin: strings.NewReader(long), Args: sh("head -c 1000000 | wc -c; sleep 1; wc -c"), Timeout: time.Minute})
	if ran.Status != 0 || !strings.HasPrefix(ran.Stdout, "1000000\n") {
		t.Errorf("%d, %q", ran.Status, ran.Stdout)
	}
	ran = vmtest.Run(t, vm.Spec{CPUs: 1, Stdin: strings.NewReader(long), Args: []string{"true"}, Timeout: time.Minute})
	if ran.Status != 0 {
		t.Errorf("%+v", ran.Result)
	}
}

func TestVMDiskAndDevice(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/sub/file", []byte("on disk\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ran := vmtest.Run(t, vm.Spec{CPUs: 1, Disk: dir, Devices: []string{"edu"},
		Args: sh("cat /mnt/disk/sub/file; echo new > /mnt/disk/new && cat /mnt/disk/new; cat /sys/bus/pci/devices/*/uevent | grep PCI_ID=1234:11E8; [ -d /proc/self ]")})
	if ran.Stdout != "on disk\nnew\nPCI_ID=1234:11E8\n" {
		t.Errorf("%q, %q", ran.Stdout, ran.Stderr)
	}
}

func TestVMIcount(t *testing.T) {
	ran := vmtest.Run(t, vm.Spec{Icount: true, Args: []string{"nproc"}})
	if ran.Stdout != "1\n" || ran.Accel != "tcg,icount" {
		t.Errorf("%q, %s", ran.Stdout, ran.Accel)
	}
}

const helloC = `#include <linux/module.h>
static int __init hello_init(void) { pr_info("the test's module\n"); return 0; }
static void __exit hello_exit(void) { }
module_init(hello_init);
module_exit(hello_exit);
MODULE_DESCRIPTION("test");
MODULE_LICENSE("GPL");
`

// A module built here loads there, with type information.
func TestVMModule(t *testing.T) {
	vmtest.Need(t)
	img := vmtest.Kernel(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"hello.c": helloC, "Kbuild": "obj-m := hello.o\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var log strings.Builder
	mods, err := kernel.Build(t.Context(), img, dir, kernel.BuildOptions{Out: &log}, nil)
	if err != nil || len(mods) != 1 {
		t.Fatalf("%v, %v: %s", mods, err, log.String())
	}
	ran := vmtest.Run(t, vm.Spec{Kernel: img, CPUs: 1, Modules: mods, Args: sh("dmesg | grep -c \"the test's module\"; ls /sys/kernel/btf/hello 2>/dev/null; rmmod hello && modprobe hello && lsmod | grep -c ^hello")})
	want := "1\n/sys/kernel/btf/hello\n1\n"
	if img.Name == "5.10" { // can't load a module's
		want = "1\n1\n"
	}
	if ran.Stdout != want {
		t.Errorf("%q, %q", ran.Stdout, ran.Stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "hello.c"), []byte("no C\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	if _, err := kernel.Build(t.Context(), img, dir, kernel.BuildOptions{Out: &log}, nil); err == nil || !strings.Contains(log.String(), "error") {
		t.Errorf("bad code: %v, log %q", err, log.String())
	}
}
