// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"dio/vm/kernel"
)

// qemuEnv names another QEMU than the PATH's.
const qemuEnv = "DIO_QEMU"

// minEmulated is the first QEMU whose emulation is trusted: 7.2 crashes
// kernel 6.12 after cmpxchg16b; 8 and 9 are untested.
const minEmulated = 10

// QEMU is the emulator found on this machine.
type QEMU struct {
	Path         string
	Version      string
	Major, Minor int
	KVM          bool   // a guest was seen to boot with it
	WhyNoKVM     string // when not
}

var versionLine = regexp.MustCompile(`version (\d+)\.(\d+)\S*`)

// ErrNoQEMU is wrapped when there is no usable QEMU.
var ErrNoQEMU = errors.New("no usable QEMU")

// unpacked is where scripts/setup unpacks a QEMU, below the cache, on releases that
// have none that can emulate.
const unpacked = "qemu/bin/qemu-system-x86_64"

// FindQEMU finds QEMU, its version, and whether KVM works with it: the one that
// DIO_QEMU names, or the PATH's, or the unpacked one where the PATH's won't do.
func FindQEMU(ctx context.Context) (*QEMU, error) {
	if p := os.Getenv(qemuEnv); p != "" {
		return findQEMU(ctx, p)
	}
	q, err := findQEMU(ctx, "qemu-system-x86_64")
	if err != nil {
		if own, e := findQEMU(ctx, filepath.Join(kernel.CacheDir(), unpacked)); e == nil {
			return own, nil
		}
	}
	return q, err
}

func findQEMU(ctx context.Context, name string) (*QEMU, error) {
	p, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w: run `make setup`, or install your distribution's qemu-system-x86 (Debian 12: from bookworm-backports), or point %s at one", ErrNoQEMU, name, err, qemuEnv)
	}
	out, err := exec.CommandContext(ctx, p, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s --version: %w", ErrNoQEMU, p, err)
	}
	q, err := parseVersion(string(out))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoQEMU, p, err)
	}
	q.Path = p
	q.KVM, q.WhyNoKVM = kvmWorks(ctx, p)
	if err := q.trusted(false); err != nil {
		return nil, err
	}
	return q, nil
}

// fit is the QEMU that a guest can run on: q, or, where q isn't to be trusted with it and
// nobody named it, the unpacked one. FindQEMU may have taken an old one for its KVM, which
// doesn't serve a clock that counts instructions.
func (q *QEMU) fit(ctx context.Context, icount bool) (*QEMU, error) {
	err := q.trusted(icount)
	if err == nil {
		return q, nil
	}
	if os.Getenv(qemuEnv) == "" {
		if own, e := findQEMU(ctx, filepath.Join(kernel.CacheDir(), unpacked)); e == nil && own.trusted(icount) == nil {
			return own, nil
		}
	}
	return nil, err
}

// trusted refuses to emulate a guest with a version that corrupts it. The clock
// that counts instructions emulates, also where KVM works.
func (q *QEMU) trusted(icount bool) error {
	if q.Major >= minEmulated || q.KVM && !icount {
		return nil
	}
	why := "for a clock that counts instructions (--icount)"
	next := "`scripts/setup qemu` gets a newer one on Debian 12 and Ubuntu 24.04 (Debian 13 and Ubuntu 25.10 have one), or point " + qemuEnv + " at one"
	if os.Getenv(qemuEnv) != "" { // setup takes it for what is wanted
		next = "let " + qemuEnv + " name a newer one, or unset it"
	}
	if !q.KVM {
		why = fmt.Sprintf("without KVM (%s)", q.WhyNoKVM)
		next += ", or use a machine with KVM; where KVM should work, `dioctl vm probe --again` tries it anew"
	}
	return fmt.Errorf("%w: %s is version %s, and %s versions before %d corrupt the guest they emulate: %s",
		ErrNoQEMU, q.Path, q.Version, why, minEmulated, next)
}

func parseVersion(out string) (*QEMU, error) {
	m := versionLine.FindStringSubmatch(out)
	if m == nil {
		first, _, _ := strings.Cut(out, "\n")
		return nil, fmt.Errorf("its version can't be read from %q", first)
	}
	q := &QEMU{Version: strings.TrimPrefix(m[0], "version ")}
	q.Major, _ = strconv.Atoi(m[1])
	q.Minor, _ = strconv.Atoi(m[2])
	return q, nil
}

// machine is what one VM is made of.
type machine struct {
	kernel, initrd, console string
	disk                    string // image file, or ""
	cpus                    int
	memory                  int64 // bytes
	icount                  bool
	cmdline                 string
	devices                 []string
	extra                   []string
	portFD                  int
}

// baseCmdline: the console for the log alone; warnings and worse reach it,
// the rest only /dev/kmsg, for a serial line is slow. An oops ends the run:
// what a broken kernel says afterwards proves nothing.
const baseCmdline = "console=ttyS0 quiet loglevel=5 rdinit=/init panic=-1 oops=panic " +
	"mitigations=off no_timer_check random.trust_cpu=on 8250.nr_uarts=1 audit=0 selinux=0 apparmor=0 " +
	"net.ifnames=0 rcupdate.rcu_expedited=1 cryptomgr.notests initcall_blacklist=jent_mod_init"

// args is QEMU's command line for m.
func (q *QEMU) args(m machine) []string {
	a := []string{"-M", "pc,usb=off,vmport=off,hpet=off"}
	switch {
	case m.icount:
		a = append(a, "-accel", "tcg,thread=single", "-cpu", "max,-cx16,-la57", "-icount", "shift=0,sleep=off")
		m.cpus = 1
	case q.KVM:
		a = append(a, "-accel", "kvm", "-cpu", "host")
	default:
		a = append(a, "-accel", "tcg,thread=multi", "-cpu", "max,-cx16,-la57")
	}
	a = append(a,
		"-smp", strconv.Itoa(m.cpus), "-m", strconv.FormatInt(m.memory>>20, 10)+"M",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.kernel, "-initrd", m.initrd, "-append", m.cmdline,
		"-chardev", "file,id=console,path="+commas(m.console), "-serial", "chardev:console",
		"-device", "virtio-serial-pci,max_ports=2",
		"-chardev", "socket,id=port,fd="+strconv.Itoa(m.portFD), "-device", "virtserialport,chardev=port,name=dio")
	if m.disk != "" {
		a = append(a, "-drive", "if=none,id=disk,format=raw,cache=unsafe,file="+commas(m.disk), "-device", "nvme,drive=disk,serial=dio")
	}
	for _, d := range m.devices {
		a = append(a, "-device", d)
	}
	return append(a, m.extra...)
}

// commas doubles the commas of a path, as QEMU's option syntax wants.
func commas(p string) string { return strings.ReplaceAll(p, ",", ",,") }
