// SPDX-License-Identifier: GPL-2.0-only

// Package vm runs one command in a disposable virtual machine with a
// kernel of choice, and brings back its output, its files, its status and
// what the kernel had to say.
//
// The guest's root is an initramfs made on the spot of a static dioctl
// (which is PID 1 there, see package guest), busybox and what the Spec asks
// for. A run passes only when the guest says so with an explicit frame:
// a guest that panics, hangs or is cut off is an *Error.
package vm

import (
	"fmt"
	"io"
	"strings"
	"time"

	"dio/vm/kernel"
	"dio/vm/wire"
)

// Spec is one run. Only Kernel and Args are needed.
type Spec struct {
	Kernel *kernel.Image
	Args   []string // the command and its arguments
	Env    []string // NAME=VALUE, beside and over the normal ones
	Dir    string   // working directory in the guest; /root when "" or absent there

	Files         []string // host files and folders, at the same paths in the guest, with their libraries
	Modules       []string // .ko files of the host, loaded in order before the command
	KernelModules []string // modules of the kernel, by name, with what they need, loaded first
	Disk          string   // host folder, as an ext4 file system at guest.DiskPath
	Outs          []Out    // files and folders to bring back

	CPUs    int           // 2 when 0
	Memory  int64         // bytes; when 0, 1 GiB (debug kernel: 2) and what the files take
	Icount  bool          // instruction-counting clock, one CPU
	Timeout time.Duration // of the whole run; 10 minutes when 0
	Append  string        // added to the kernel's command line
	Devices []string      // QEMU devices by name and properties, e.g. "edu"
	QEMU    []string      // further QEMU arguments

	// Emulator is the QEMU to use; FindQEMU's when nil. Where it is too old for Icount
	// the one that scripts/setup unpacked serves, unless the environment names one.
	Emulator *QEMU

	Stdin          io.Reader // nil: nothing, as from /dev/null
	Stdout, Stderr io.Writer // nil: thrown away
	TTY            *wire.Size
	Resized        <-chan wire.Size // new sizes of the terminal, with TTY

	// Init is the dioctl that becomes PID 1 and /usr/bin/dioctl; the
	// running program when "".
	Init string
	// Progress is told each stage, in a few words; may be nil.
	Progress func(stage string)
	// Console is where the console's log is kept; a temporary file that is
	// removed after a run without an Error when "".
	Console string
}

// Out is a file or folder of the guest to bring back to the host.
type Out struct{ Guest, Host string }

// ParseOut reads GUEST:HOST.
func ParseOut(s string) (Out, error) {
	g, h, ok := strings.Cut(s, ":")
	if !ok || g == "" || h == "" {
		return Out{}, fmt.Errorf("%q: want GUEST:HOST, for example /tmp/result.json:result.json", s)
	}
	return Out{Guest: g, Host: h}, nil
}

// Result is a run that the guest brought to its end.
type Result struct {
	Status     int           // the command's exit status, 128+n for signal n
	Signal     string        // name of the signal that killed it, or ""
	Release    string        // the guest's kernel
	Accel      string        // "kvm", "tcg" or "tcg,icount"
	Booted     time.Duration // from the start to PID 1's first word
	Took       time.Duration // altogether
	Complaints []string      // the kernel's own, see Complaints
	OutErrors  []error       // outputs that could not be brought back
	Kmsg       string        // the kernel's whole log
}

// Error is a VM that failed, as opposed to a command that did.
type Error struct {
	What       string // "the guest panicked", "time limit of 10m0s", ...
	Err        error  // the cause, or nil
	Console    string // where the console's log is, or ""
	Tail       string // its last lines
	Complaints []string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("vm: " + e.What)
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Tail != "" {
		b.WriteString("\n--- end of the console ---\n" + e.Tail)
		if e.Console != "" {
			b.WriteString("\n--- all of it: " + e.Console + " ---")
		}
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }
