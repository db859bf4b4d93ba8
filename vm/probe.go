// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"dio/vm/kernel"
)

// Opening /dev/kvm, even running code through it, succeeds on machines
// where no guest boots with it. So a guest is booted: 512 bytes that say
// 'K' on the serial port and then end QEMU through isa-debug-exit.
const (
	probeTimeout = 2 * time.Second
	probeAgain   = 10 * time.Second // for a machine that was too busy for it
	probeExit    = 85               // 42<<1 | 1
)

// bootSector is
//
//	mov dx, 0x3f8 ; mov al, 'K' ; out dx, al
//	mov dx, 0xf4  ; mov al, 42  ; out dx, al
//	cli ; hlt ; jmp $-1
func bootSector() []byte {
	s := make([]byte, 512)
	copy(s, []byte{0xba, 0xf8, 0x03, 0xb0, 'K', 0xee, 0xba, 0xf4, 0x00, 0xb0, 42, 0xee, 0xfa, 0xf4, 0xeb, 0xfd})
	s[510], s[511] = 0x55, 0xaa
	return s
}

type probeResult struct {
	Works bool   `json:"works"`
	Why   string `json:"why,omitempty"`
}

// refusalAge is how long it is believed that no guest boots: a machine that was
// too busy, or another hypervisor that held the CPU, are gone some time.
const refusalAge = 10 * time.Minute

// errNotTried is wrapped when it was this machine that failed, not KVM.
var errNotTried = errors.New("KVM could not be tried")

// errNothingCame is wrapped when the guest neither spoke nor ended in time.
var errNothingCame = errors.New("nothing came")

// kvmWorks tells whether a guest boots with KVM, and why not. That one does is
// remembered until this machine boots again, that none does for refusalAge.
func kvmWorks(ctx context.Context, qemu string) (bool, string) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return false, "there is no /dev/kvm"
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false, fmt.Sprintf("%v: is this user in the group kvm?", err)
	}
	f.Close()
	return remembered(ctx, probeFile(qemu), func() error {
		return probePatiently(ctx, func(limit time.Duration) error {
			return probeBoot(ctx, qemu, "kvm", "host", limit)
		})
	})
}

// probePatiently boots once more, and waits for longer, when nothing came.
func probePatiently(ctx context.Context, boot func(limit time.Duration) error) error {
	err := boot(probeTimeout)
	if errors.Is(err, errNothingCame) && ctx.Err() == nil {
		err = boot(probeAgain)
	}
	return err
}

// remembered is the answer kept in the file, or else that of try.
func remembered(ctx context.Context, keep string, try func() error) (bool, string) {
	if r, err := readProbe(keep); err == nil {
		return r.Works, r.Why
	}
	var r probeResult
	switch err := try(); {
	case err == nil:
		r.Works = true
	case ctx.Err() != nil:
		return false, ctx.Err().Error()
	case errors.Is(err, errNotTried):
		return false, err.Error()
	default:
		r.Why = "/dev/kvm opens, but no guest boots with it: " + err.Error()
	}
	if b, err := json.Marshal(r); err == nil {
		if os.MkdirAll(filepath.Dir(keep), 0o755) == nil {
			_ = os.WriteFile(keep, b, 0o644)
		}
	}
	return r.Works, r.Why
}

// readProbe is the answer in the file while it holds.
func readProbe(keep string) (r probeResult, err error) {
	fi, err := os.Stat(keep)
	if err != nil {
		return r, err
	}
	b, err := os.ReadFile(keep)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	if age := time.Since(fi.ModTime()); !r.Works && (age > refusalAge || age < 0) {
		return r, fmt.Errorf("%s is %v old", keep, age)
	}
	return r, nil
}

// ForgetProbe makes the next FindQEMU try KVM anew.
func ForgetProbe() error {
	return os.RemoveAll(filepath.Join(kernel.CacheDir(), "probe"))
}

// probeFile is where the answer for this boot is kept; who asks matters,
// for the device's permissions are part of the answer.
func probeFile(qemu string) string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		id = []byte("unknown")
	}
	name := fmt.Sprintf("kvm-%s-%d-%s.json", strings.TrimSpace(string(id)), os.Getuid(), strings.ReplaceAll(strings.Trim(qemu, "/"), "/", "-"))
	return filepath.Join(kernel.CacheDir(), "probe", name)
}

// probeBoot boots the sector with an accelerator.
func probeBoot(ctx context.Context, qemu, accel, cpu string, limit time.Duration) error {
	dir, err := os.MkdirTemp("", "dio-probe-")
	if err != nil {
		return fmt.Errorf("%w: %w", errNotTried, err)
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "boot")
	if err := os.WriteFile(disk, bootSector(), 0o600); err != nil {
		return fmt.Errorf("%w: %w", errNotTried, err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-accel", accel, "-cpu", cpu, "-M", "pc", "-m", "16M",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
		"-drive", "if=ide,format=raw,snapshot=on,file="+commas(disk))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w within %v", errNothingCame, limit)
	case errors.As(err, &exit) && exit.ExitCode() == probeExit && bytes.Contains(out.Bytes(), []byte("K")):
		return nil
	case err == nil:
		return errors.New("the guest reset itself")
	case exit == nil:
		return fmt.Errorf("%w: %w", errNotTried, err) // it didn't even start
	}
	first, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
	return fmt.Errorf("%w %s", err, first)
}
