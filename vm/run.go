// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dio/vm/initramfs"
	"dio/vm/kernel"
)

// Defaults of a Spec.
const (
	DefaultTimeout = 10 * time.Minute
	DefaultMemory  = 1 << 30
	DefaultCPUs    = 2
)

// NoTimeout is a time limit that is none.
const NoTimeout = 1 << 62 * time.Nanosecond

// StageRunning is the stage that Progress hears when the guest is up.
const StageRunning = "running"

// Run boots, runs the command and waits for the end. An *Error means that
// the VM failed and nothing is known about the command; any other error,
// that the machine could not be made. When ctx ends the command gets
// SIGTERM and a short while, then the VM is killed; Run returns ctx's error.
func Run(ctx context.Context, spec Spec) (Result, error) {
	if spec.Kernel == nil || len(spec.Args) == 0 {
		return Result{}, errors.New("vm: a kernel and a command are needed")
	}
	setDefaults(&spec)
	start := time.Now()
	q := spec.Emulator
	if q == nil {
		var err error
		if q, err = FindQEMU(ctx); err != nil {
			return Result{}, err
		}
	}
	q, err := q.fit(ctx, spec.Icount)
	if err != nil {
		return Result{}, err
	}
	dir, err := os.MkdirTemp("", "dio-vm-")
	if err != nil {
		return Result{}, fmt.Errorf("vm: %w", err)
	}
	defer os.RemoveAll(dir)

	m, err := build(ctx, q, &spec, dir)
	if err != nil {
		if spec.Console == "" && m.console != "" {
			os.Remove(m.console) // nothing was written to it
		}
		return Result{}, err
	}
	keep := m.console // survives a failure
	// The sooner the files are gone, the less is left by a program that is
	// killed while it waits.
	res, err := boot(ctx, q, m, &spec, start, func() { os.RemoveAll(dir) })
	res.Took = time.Since(start)
	log, _ := os.ReadFile(keep)
	res.Complaints = Complaints(string(log), res.Kmsg)
	var failed *Error
	if errors.As(err, &failed) {
		failed.Complaints = res.Complaints
		failed.Tail = tail(string(log), 40)
		failed.Console = keep
		if text := panicLine(string(log)); text != "" {
			failed.What, failed.Err = "the guest's kernel gave up: "+text, nil
		}
	} else if spec.Console == "" {
		os.Remove(keep)
	}
	return res, err
}

func setDefaults(s *Spec) {
	if s.CPUs == 0 {
		s.CPUs = DefaultCPUs
	}
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	if s.Progress == nil {
		s.Progress = func(string) {}
	}
	if s.Stdout == nil {
		s.Stdout = io.Discard
	}
	if s.Stderr == nil {
		s.Stderr = io.Discard
	}
}

// build makes the files of one machine in dir.
func build(ctx context.Context, q *QEMU, s *Spec, dir string) (machine, error) {
	s.Progress("assembling the guest")
	m := machine{
		kernel: s.Kernel.Vmlinuz, initrd: filepath.Join(dir, "initrd"), console: s.Console,
		cpus: s.CPUs, memory: s.Memory, icount: s.Icount, devices: s.Devices, extra: s.QEMU,
		cmdline: cmdline(q, s),
	}
	if !q.KVM || s.Icount {
		// An emulated kernel takes a second or more to unpack itself. One
		// that was unpacked here starts at once (and isn't randomised).
		if p, err := kernel.Vmlinux(ctx, s.Kernel); err == nil && kernel.HasPVH(p) {
			m.kernel = p
		}
	}
	if m.console == "" {
		f, err := os.CreateTemp("", "dio-console-*.log")
		if err != nil {
			return m, fmt.Errorf("vm: %w", err)
		}
		f.Close()
		m.console = f.Name()
	}
	t, err := assemble(s)
	if err != nil {
		return m, fmt.Errorf("vm: %w", err)
	}
	if m.memory == 0 {
		// The archive and what is unpacked from it are both in memory.
		m.memory = DefaultMemory
		if s.Kernel.Name == kernel.Debug { // its checkers' records take a third
			m.memory *= 2
		}
		if n := t.Size(); n > 64<<20 {
			m.memory += 2 * n
		}
	}
	if err := writeInitrd(t, m.initrd); err != nil {
		return m, err
	}
	if s.Disk != "" {
		s.Progress("making the disk of " + s.Disk)
		m.disk = filepath.Join(dir, "disk")
		if err := makeDisk(ctx, s.Disk, m.disk); err != nil {
			return m, fmt.Errorf("vm: %w", err)
		}
	}
	return m, nil
}

// cmdline is the kernel's.
func cmdline(q *QEMU, s *Spec) string {
	words := []string{baseCmdline}
	if !q.KVM || s.Icount {
		// The emulated counter is the host's own; the kernel's watchdog
		// mistakes a busy host for a bad counter and takes a slow clock.
		words = append(words, "tsc=reliable")
	}
	if s.Kernel.Name == kernel.Debug {
		// The second bug of a run is told, too.
		words = append(words, "kasan_multi_shot")
	}
	if s.Append != "" {
		words = append(words, s.Append)
	}
	return strings.Join(words, " ")
}

func writeInitrd(t *initramfs.Tree, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("vm: %w", err)
	}
	_, err = t.WriteTo(f)
	if err = errors.Join(err, f.Close()); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			err = fmt.Errorf("%w: the guest's files need %d MiB there; free some, or set TMPDIR", err, t.Size()>>20)
		}
		return fmt.Errorf("vm: write %s: %w", path, err)
	}
	return nil
}

// tail is the last lines of s that say something: n of them, or up to five
// times as many where a complaint began further up, for its head tells most.
func tail(s string, n int) string {
	var lines []string
	for _, l := range strings.Split(s, "\n") {
		if l = strings.TrimRight(l, "\r "); l != "" {
			lines = append(lines, l)
		}
	}
	from := max(0, len(lines)-n)
	for i := max(0, len(lines)-5*n); i < from; i++ {
		if len(Complaints(lines[i])) > 0 {
			from = i
			break
		}
	}
	return strings.Join(lines[from:], "\n")
}

// panicLine is the console's line that tells why the kernel stopped.
func panicLine(console string) string {
	for _, l := range strings.Split(console, "\n") {
		if strings.Contains(l, "Kernel panic") {
			return strings.TrimRight(message(l), "\r ")
		}
	}
	return ""
}

// ParseMemory reads a size such as 512M, 2G or 2GiB, in bytes.
func ParseMemory(text string) (int64, error) {
	digits := strings.TrimRight(text, "kKmMgGtTiIbB")
	n, err := strconv.ParseInt(digits, 10, 64)
	shift, ok := map[string]uint{"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(text[len(digits):]), "b"), "i")]
	if err != nil || !ok || n <= 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("%q: want a size such as 512M or 2G", text)
	}
	if n <<= shift; n < 128<<20 {
		return 0, fmt.Errorf("%s: a guest needs at least 128M", text)
	}
	return n, nil
}
