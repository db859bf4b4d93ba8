// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"dio/vm/wire"
)

// Start starts c in a session of its own. The child is reaped by Wait
// alone: os/exec would race with it for the status.
func (Linux) Start(c Command) (Process, error) {
	if c.TTY != nil {
		return startOnTTY(c)
	}
	var ours, theirs []int
	closeAll := func(fds []int) {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
	pipe := func(childWrites bool) error {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("make a pipe: %w", err)
		}
		if childWrites {
			ours, theirs = append(ours, p[0]), append(theirs, p[1])
			return unix.SetNonblock(p[0], true)
		}
		ours, theirs = append(ours, p[1]), append(theirs, p[0])
		return nil
	}
	var err error
	if c.Stdin {
		err = pipe(false)
	} else {
		var null int
		if null, err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
			theirs = append(theirs, null)
		}
	}
	for range 2 {
		if err == nil {
			err = pipe(true)
		}
	}
	var pid int
	if err == nil {
		pid, err = forkExec(c, theirs, &syscall.SysProcAttr{Setsid: true})
	}
	closeAll(theirs)
	if err != nil {
		closeAll(ours)
		return Process{}, err
	}
	p := Process{Pid: pid}
	if c.Stdin {
		p.Stdin = rawFile(ours[0])
		ours = ours[1:]
	}
	if p.Stdout, err = newDrainable(ours[0]); err == nil {
		p.Stderr, err = newDrainable(ours[1])
	}
	return p, err
}

func forkExec(c Command, fds []int, attr *syscall.SysProcAttr) (int, error) {
	dir := c.Dir
	if _, err := os.Stat(dir); err != nil {
		dir = "/"
	}
	files := make([]uintptr, len(fds))
	for i, fd := range fds {
		files[i] = uintptr(fd)
	}
	return syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{Dir: dir, Env: c.Env, Files: files, Sys: attr})
}

func startOnTTY(c Command) (Process, error) {
	ptm, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return Process{}, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	resize := func(s wire.Size) error {
		return unix.IoctlSetWinsize(ptm, unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	}
	n, err := unix.IoctlGetInt(ptm, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(ptm, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = resize(*c.TTY)
	}
	tty := -1
	if err == nil {
		tty, err = unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	var pid int
	if err == nil {
		pid, err = forkExec(c, []int{tty, tty, tty}, &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0})
		_ = unix.Close(tty)
	}
	var out *drainable
	if err == nil {
		out, err = newDrainable(ptm)
	}
	if err != nil {
		_ = unix.Close(ptm)
		return Process{}, fmt.Errorf("start on a terminal: %w", err)
	}
	return Process{Pid: pid, Stdin: ttyInput{rawPoll(ptm)}, Stdout: out, Resize: resize}, nil
}

// ttyInput ends a terminal's input the way a person does, by ^D.
type ttyInput struct{ io.Writer }

func (t ttyInput) Close() error {
	_, err := t.Write([]byte{4})
	return err
}

// rawPoll writes to a descriptor that doesn't block by itself.
type rawPoll int

func (f rawPoll) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(int(f), p[done:])
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(f), Events: unix.POLLOUT}}, -1)
		case err != nil:
			return done, err
		default:
			done += n
		}
	}
	return done, nil
}

// drainable is an Output over a descriptor that doesn't block.
type drainable struct {
	fd      int
	wake    [2]int // a pipe: Drain closes its writing end
	once    sync.Once
	drained atomic.Bool
	read    func(fd int, p []byte) (int, error)

	// The reading goroutine's own.
	ending bool
	left   int // bytes to take before the end, once it is ending
}

func newDrainable(fd int) (*drainable, error) {
	d := &drainable{fd: fd, read: unix.Read}
	if err := unix.Pipe2(d.wake[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	return d, nil
}

// Drain makes Read end as soon as what was written until now is taken.
func (d *drainable) Drain() {
	d.once.Do(func() {
		d.drained.Store(true)
		_ = unix.Close(d.wake[1])
	})
}

// maxBacklog is more than a terminal or the kernel's log ever holds unread
// here, in bytes.
const maxBacklog = 8 << 20

// backlog is at least as many bytes as are in the descriptor.
func (d *drainable) backlog() int {
	if n, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETPIPE_SZ, 0); err == nil {
		return n
	}
	return maxBacklog
}

// Read waits for bytes, for the last writer's close or for Drain. After that
// it takes no more than can have been there: who still writes may never stop.
func (d *drainable) Read(p []byte) (int, error) {
	for {
		if !d.ending && d.drained.Load() {
			d.ending, d.left = true, d.backlog()
		}
		if d.ending && d.left <= 0 {
			return 0, io.EOF
		}
		n, err := d.read(d.fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EIO): // a terminal without a user
			return 0, io.EOF
		case errors.Is(err, unix.EAGAIN):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			d.left -= n
			return n, nil
		}
		if d.ending {
			return 0, io.EOF
		}
		fds := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}, {Fd: int32(d.wake[0]), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
	}
}
