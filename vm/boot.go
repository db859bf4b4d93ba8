// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long the steps at the end may take before they are cut short.
const (
	graceAfterTerm = 5 * time.Second // for a command told to stop
	graceAfterExit = 3 * time.Second // for the guest's power off
)

// portInChild is the port's descriptor in QEMU: the first extra file.
const portInChild = 3

var (
	errTimeLimit = errors.New("time limit")
	errNoResult  = errors.New("no result")
)

// boot runs QEMU on m and talks to the guest until QEMU has ended.
// up is called once the guest is up: QEMU has read, or holds open, all of its
// files by then.
func boot(ctx context.Context, q *QEMU, m machine, s *Spec, start time.Time, up func()) (Result, error) {
	res := Result{Accel: "tcg"}
	switch {
	case m.icount:
		res.Accel = "tcg,icount"
	case q.KVM:
		res.Accel = "kvm"
	}
	s.Progress(fmt.Sprintf("booting %s (%s)", s.Kernel.Release, res.Accel))
	m.portFD = portInChild
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return res, fmt.Errorf("vm: socketpair: %w", err)
	}
	// Pollable, so that Close ends a Read.
	_ = unix.SetNonblock(fds[0], true)
	port, theirs := os.NewFile(uintptr(fds[0]), "port"), os.NewFile(uintptr(fds[1]), "port")
	defer port.Close()

	var stderr bytes.Buffer
	cmd := exec.Command(q.Path, q.args(m)...)
	cmd.Stdout, cmd.Stderr = &stderr, &stderr
	cmd.ExtraFiles = []*os.File{theirs}
	// A group of its own, so that ^C reaches only this program, which then
	// ends the guest in order; and no QEMU outlives it, however it ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		// Pdeathsig is sent when the starting thread ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	err = <-started
	theirs.Close()
	if err != nil {
		return res, fmt.Errorf("vm: start %s: %w", q.Path, err)
	}

	c := newConversation(port, s, &res, start)
	c.up = up
	talked := make(chan error, 1)
	go func() { talked <- c.run() }()

	limit := time.NewTimer(s.Timeout)
	defer limit.Stop()
	cancelled := ctx.Done()
	var kill, leave <-chan time.Time
	var verdict, qemu error
	exited, over, left := false, false, false
	for !exited || !over {
		select {
		case err := <-talked:
			over = true
			if verdict == nil {
				verdict = err
			}
			kill = time.After(graceAfterExit)
		case err := <-ended:
			// What the guest sent before is still in the socket, whose other
			// end is closed now: the talk comes to its end.
			exited, qemu = true, err
		case <-limit.C:
			verdict = errTimeLimit
			_ = cmd.Process.Kill()
		case <-cancelled:
			cancelled = nil
			verdict = ctx.Err()
			c.signal(unix.SIGTERM)
			kill = time.After(graceAfterTerm)
		case <-kill:
			_ = cmd.Process.Kill()
		case <-leave:
			over, left = true, true
		}
		if exited && !over && verdict != nil && leave == nil {
			// An output that nobody reads may hold the talk for ever.
			leave = time.After(graceAfterExit)
		}
	}
	if words := bytes.TrimSpace(stderr.Bytes()); verdict != nil && qemu != nil && len(words) > 0 {
		verdict = fmt.Errorf("%w: qemu: %w: %s", verdict, qemu, words)
		if err := addToConsole(m.console, words); err != nil {
			verdict = fmt.Errorf("%w (%w)", verdict, err)
		}
	}
	if left {
		return Result{Accel: res.Accel}, c.explain(verdict, s) // the rest is still the talk's
	}
	return res, c.explain(verdict, s)
}

// addToConsole puts QEMU's own last words behind the guest's, for who reads the log later.
func addToConsole(path string, words []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "\nqemu: %s\n", words)
	return errors.Join(err, f.Close())
}

// explain turns what ended the conversation into what a person reads.
func (c *conversation) explain(err error, s *Spec) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.EPIPE):
		// The last: nobody reads the command's output any more.
		return fmt.Errorf("vm: stopped: %w", err)
	case errors.Is(err, errTimeLimit):
		when := "while the command ran"
		if !c.heard() {
			when = "before the guest's first word"
		}
		return &Error{What: fmt.Sprintf("time limit of %v, %s", s.Timeout, when)}
	case !c.heard():
		return &Error{What: "the guest did not come up", Err: err}
	}
	return &Error{What: "the guest ended without a result", Err: err}
}
