// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dio/vm/wire"
)

// System is what PID 1 wants from the kernel.
type System interface {
	Mkdir(path string, mode uint32) error
	// Empty tells whether the folder has nothing in it.
	Empty(path string) bool
	Mount(source, target, fstype string, flags uintptr, data string) error
	LoadModule(path string) error
	// OpenPort opens the virtio-serial port of that name, which may take
	// its time to appear.
	OpenPort(name string, patience time.Duration) (io.ReadWriter, error)
	// FindDisk is the device node of the first nvme disk.
	FindDisk(patience time.Duration) (string, error)
	// Settle does the small things that never fail a run: host name,
	// loopback interface, device links.
	Settle()
	Start(c Command) (Process, error)
	// Wait reaps any one child; ECHILD when there is none.
	Wait() (pid int, status unix.WaitStatus, err error)
	Kill(pid int, sig unix.Signal) error
	// Kmsg is the kernel's log from its start, as the console prints it;
	// it ends only by Drain.
	Kmsg() (Output, error)
	// Jiffies is the kernel's clock as Kmemleak wants it.
	Jiffies() uint64
	// Kmemleak is the leaks of objects allocated since that time found by
	// kernels that look for them, "" else.
	Kmemleak(since uint64) (string, error)
	Greeting() wire.Greeting
	PowerOff() error
}

// Command is a process to start.
type Command struct {
	Path string
	Args []string
	Env  []string
	Dir  string
	// Stdin: whether to make a pipe for input; /dev/null else.
	Stdin bool
	// TTY, if any, is the size of the pseudo terminal to run on.
	TTY *wire.Size
}

// Process is a started Command and this end of its streams. Stdin is nil
// without one, Stderr nil on a terminal.
type Process struct {
	Pid    int
	Stdin  io.WriteCloser
	Stdout Output
	Stderr Output
	Resize func(wire.Size) error
}

// Output is a stream that a process and its children write to. Read ends
// with io.EOF once all of them closed it, or, after Drain, as soon as
// nothing is left of what was in it: a child that lives on, silent or not,
// must not hold up the end.
type Output interface {
	io.Reader
	Drain()
}

// waitForPort bounds how long the port may take to appear.
const waitForPort = 20 * time.Second

// failedStart is the status of a command that could not be started, as in
// a shell.
const failedStart = 127

type pid1 struct {
	sys System
	cfg *Config
	out *wire.Writer
	in  *input

	mu  sync.Mutex
	pid int // of the command; 0 before and after
	p   Process
}

// Run is PID 1 from mount to power off. It returns only when the power did
// not go off, or in tests.
func Run(sys System, configPath string) error {
	err := run(sys, configPath)
	if err != nil {
		// There may be no port: the console is read by the host too.
		fmt.Fprintf(os.Stderr, "dio init: %v\n", err)
	}
	return errors.Join(err, sys.PowerOff())
}

func run(sys System, configPath string) error {
	cfg, err := loadConfig(configPath)
	if err != nil {
		return err
	}
	if err := mountAll(sys, early); err != nil {
		return err
	}
	for _, m := range cfg.Early {
		if err := sys.LoadModule(m); err != nil {
			return fmt.Errorf("load %s: %w", m, err)
		}
	}
	port, err := sys.OpenPort(PortName, waitForPort)
	if err != nil {
		return err
	}
	i := &pid1{sys: sys, cfg: cfg, out: wire.NewWriter(port)}
	i.in = newInput(func(n uint32) error { return i.out.SendUint32(wire.Credit, n) })
	if err := i.out.SendJSON(wire.Hello, sys.Greeting()); err != nil {
		return err
	}
	bye := make(chan error, 1)
	go func() { bye <- i.listen(wire.NewReader(port)) }()

	status, err := i.work()
	if err != nil {
		// The host turns this into "the VM failed", with the text.
		_ = i.out.SendText(wire.Fail, err.Error())
	} else if err := i.out.SendJSON(wire.Exit, status); err != nil {
		return err
	}
	// The port takes more than the host has read, which waits for whoever reads the
	// command's output: without power all of that would be lost, the result last. The
	// wait ends with the host, and the host ends by its own time limit.
	<-bye
	return nil
}

// work prepares the system, runs the command and sends what it leaves.
func (i *pid1) work() (wire.Status, error) {
	if err := mountAll(i.sys, late); err != nil {
		return wire.Status{}, err
	}
	i.sys.Settle()
	flushKmsg := i.watchKmsg()
	defer flushKmsg()
	began := i.sys.Jiffies()
	if i.cfg.Disk {
		if err := i.mountDisk(); err != nil {
			return wire.Status{}, err
		}
	}
	for _, m := range i.cfg.Modules {
		if err := i.sys.LoadModule(m); err != nil {
			return wire.Status{}, fmt.Errorf("load %s: %w%s", m, err, hintLoad(err))
		}
	}
	status, err := i.command()
	if err != nil {
		return status, err
	}
	for n, p := range i.cfg.Outs {
		i.sendOut(uint8(n), p)
	}
	if leaks, err := i.sys.Kmemleak(began); err != nil {
		_ = i.out.SendText(wire.Note, err.Error())
	} else if leaks != "" {
		_ = i.out.SendText(wire.Kmsg, "kmemleak: "+leaks)
	}
	return status, nil
}

func hintLoad(err error) string {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return " (built for another kernel? see the console log)"
	case errors.Is(err, unix.ENOENT):
		return " (a symbol is missing: does it need another module? see the console log)"
	}
	return ""
}

func (i *pid1) mountDisk() error {
	dev, err := i.sys.FindDisk(waitForPort)
	if err != nil {
		return err
	}
	if err := i.sys.Mkdir(DiskPath, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", DiskPath, err)
	}
	if err := i.sys.Mount(dev, DiskPath, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", dev, DiskPath, err)
	}
	return nil
}

// environment is a root shell's, with extra winning.
func environment(extra []string) []string {
	env := []string{"PATH=" + searchPath, "HOME=/root", "USER=root", "LOGNAME=root",
		"SHELL=/bin/sh", "TERM=linux", "LANG=C.UTF-8", "TMPDIR=/tmp"}
	for _, e := range extra {
		name, _, _ := strings.Cut(e, "=")
		kept := env[:0:0]
		for _, old := range env {
			if !strings.HasPrefix(old, name+"=") {
				kept = append(kept, old)
			}
		}
		env = append(kept, e)
	}
	return env
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds name the way a shell with env would.
func lookPath(name string, env []string) (string, error) {
	dirs := searchPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			dirs = v
		}
	}
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, d := range filepath.SplitList(dirs) {
			candidates = append(candidates, filepath.Join(d, name))
		}
	}
	for _, c := range candidates {
		if fi, err := os.Stat(c); err == nil && !fi.IsDir() && fi.Mode()&0o111 != 0 {
			return c, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, os.ErrNotExist)
}

// command runs the command to its end and sends all its output.
func (i *pid1) command() (wire.Status, error) {
	env := environment(i.cfg.Env)
	path, err := lookPath(i.cfg.Args[0], env)
	if err != nil {
		_ = i.out.SendText(wire.Note, fmt.Sprintf("%s: not found in the guest (give it by --file)", i.cfg.Args[0]))
		return wire.Status{Code: failedStart}, nil
	}
	dir := i.cfg.Dir
	if dir == "" {
		dir = "/root"
	}
	i.mu.Lock()
	p, err := i.sys.Start(Command{Path: path, Args: i.cfg.Args, Env: env, Dir: dir, Stdin: i.cfg.Stdin, TTY: i.cfg.TTY})
	if err != nil {
		i.mu.Unlock()
		code := failedStart
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOEXEC) {
			code = 126
		}
		_ = i.out.SendText(wire.Note, fmt.Sprintf("start %s: %v", path, err))
		return wire.Status{Code: code}, nil
	}
	i.pid, i.p = p.Pid, p
	i.mu.Unlock()

	if p.Stdin != nil {
		go i.in.feed(p.Stdin)
	} else {
		go i.in.feed(nil)
	}
	var streams sync.WaitGroup
	copyOut := func(t wire.Type, o Output) {
		if o != nil {
			streams.Go(func() { _, _ = io.Copy(i.out.Stream(t, 0), o) })
		}
	}
	copyOut(wire.Stdout, p.Stdout)
	copyOut(wire.Stderr, p.Stderr)

	status, err := i.reap(p.Pid)
	for _, o := range []Output{p.Stdout, p.Stderr} {
		if o != nil {
			o.Drain()
		}
	}
	streams.Wait()
	return status, err
}

// reap waits for the command, and for every orphan that ends before it.
func (i *pid1) reap(pid int) (wire.Status, error) {
	for {
		got, ws, err := i.sys.Wait()
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return wire.Status{}, fmt.Errorf("wait for the command: %w", err)
		case got == pid && (ws.Exited() || ws.Signaled()):
			i.mu.Lock()
			i.pid = 0
			i.mu.Unlock()
			if ws.Signaled() {
				return wire.Status{Code: 128 + int(ws.Signal()), Signal: unix.SignalName(syscall.Signal(ws.Signal()))}, nil
			}
			return wire.Status{Code: ws.ExitStatus()}, nil
		}
	}
}

// listen takes the host's frames until Bye or the end of the port.
func (i *pid1) listen(r *wire.Reader) error {
	for {
		f, err := r.Next()
		if err != nil {
			i.in.end()
			return err
		}
		switch f.Type {
		case wire.Bye:
			return nil
		case wire.Stdin:
			i.in.push(f.Payload)
		case wire.StdinEnd:
			i.in.end()
		case wire.Signal:
			if n, err := f.Uint32(); err == nil {
				i.signal(unix.Signal(n))
			}
		case wire.Resize:
			var s wire.Size
			i.mu.Lock()
			if f.JSON(&s) == nil && i.pid != 0 && i.p.Resize != nil {
				_ = i.p.Resize(s)
			}
			i.mu.Unlock()
		}
	}
}

// signal passes sig to the command's process group while it lives.
func (i *pid1) signal(sig unix.Signal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pid != 0 {
		_ = i.sys.Kill(-i.pid, sig)
	}
}
