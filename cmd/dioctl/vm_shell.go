// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"os"
	"os/signal"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"dio/vm"
	"dio/vm/wire"
)

func vmShellCommand() *cli.Command {
	return &cli.Command{
		Name:  "shell",
		Usage: "boot and open a shell in the guest",
		Description: "On a terminal the shell is interactive. Commands may also come through a pipe:\n" +
			"echo 'dmesg | tail' | dioctl vm shell",
		Flags:  machineFlags(),
		Action: vmShell,
	}
}

func vmShell(c *cli.Context) error {
	spec, err := specFromFlags(c)
	if err != nil {
		return err
	}
	if err := machineFor(c, &spec); err != nil {
		return err
	}
	if !c.IsSet("timeout") {
		spec.Timeout = vm.NoTimeout // a person decides
	}
	spec.Args, spec.Stdin = []string{"/bin/sh"}, os.Stdin
	p := progressTo(os.Stderr)
	spec.Progress = showBoot(p)

	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	if term.IsTerminal(in) && term.IsTerminal(out) {
		spec.Args = append(spec.Args, "-l")
		spec.Env = append([]string{"TERM=" + os.Getenv("TERM")}, spec.Env...)
		size := terminalSize(out)
		spec.TTY = &size
		stop, sizes := watchSize(out)
		defer stop()
		spec.Resized = sizes
		// Raw only once the guest listens: ^C must end a hanging boot.
		var old *term.State
		defer func() {
			if old != nil {
				_ = term.Restore(in, old)
			}
		}()
		show := spec.Progress
		spec.Progress = func(stage string) {
			show(stage)
			if stage == vm.StageRunning {
				old, _ = term.MakeRaw(in)
			}
		}
		res, err := vm.Run(c.Context, spec)
		if old != nil {
			_ = term.Restore(in, old)
			old = nil
		}
		p.Clear()
		return vmVerdict(c, res, err)
	}
	res, err := vm.Run(c.Context, spec)
	p.Clear()
	return vmVerdict(c, res, err)
}

func terminalSize(fd int) wire.Size {
	cols, rows, err := term.GetSize(fd)
	if err != nil {
		return wire.Size{Rows: 24, Cols: 80}
	}
	return wire.Size{Rows: uint16(rows), Cols: uint16(cols)}
}

// watchSize tells each new size of the terminal until it is stopped.
func watchSize(fd int) (stop func(), sizes <-chan wire.Size) {
	winch, out := make(chan os.Signal, 1), make(chan wire.Size, 1)
	signal.Notify(winch, unix.SIGWINCH)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-winch:
				select {
				case out <- terminalSize(fd):
				case <-done:
					return
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(winch); close(done) }, out
}
