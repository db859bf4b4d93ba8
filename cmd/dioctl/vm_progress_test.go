// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"dio/vm"
)

// terminal opens one of cols columns: what a program has of it, and a function that
// closes that and gives what was shown.
func terminal(t *testing.T, cols uint16) (*os.File, func() string) {
	t.Helper()
	ptm, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ptm.Close() })
	n, err := unix.IoctlGetInt(int(ptm.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptm.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(ptm.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 5, Col: cols})
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return tty, func() string {
		tty.Close()
		shown, _ := io.ReadAll(ptm) // ends with EIO: nobody has the other end
		return string(shown)
	}
}

// pipe is what a program writes to when it's no terminal.
func pipe(t *testing.T) (*os.File, func() string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return w, func() string {
		w.Close()
		said, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		return string(said)
	}
}

// Long work has one line of a terminal, never wider than that, and takes it away; in
// a pipe it has a line a stage, and a tool's own words are kept from it.
func TestProgress(t *testing.T) {
	work := func(f *os.File) {
		p := progressTo(f)
		p.Stage("unpacking %s", "headers")
		fmt.Fprint(p, "  CC a.o\n  LD a.ko\n")
		p.Stage("building")
		p.Clear()
		p.Clear()
	}
	const line = "\r\x1b[K"
	tty, shown := terminal(t, 24)
	work(tty)
	if got, want := shown(), line+"unpacking headers"+line+"unpacking headers: LD a"+line+"building"+line; got != want {
		t.Errorf("a terminal shows %q, want %q", got, want)
	}
	w, said := pipe(t)
	work(w)
	if got, want := said(), "unpacking headers\nbuilding\n"; got != want {
		t.Errorf("a pipe has %q, want %q", got, want)
	}
}

// A boot shows its stages until the command runs; a pipe is the command's alone.
func TestShowBoot(t *testing.T) {
	boot := func(f *os.File) {
		p := progressTo(f)
		show := showBoot(p)
		show("booting")
		show(vm.StageRunning)
		p.Clear()
	}
	tty, shown := terminal(t, 80)
	boot(tty)
	if got, want := shown(), "\r\x1b[Kbooting ...\r\x1b[K"; got != want {
		t.Errorf("a terminal shows %q, want %q", got, want)
	}
	w, said := pipe(t)
	boot(w)
	if got := said(); got != "" {
		t.Errorf("a pipe has %q", got)
	}
}
