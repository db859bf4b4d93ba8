// SPDX-License-Identifier: GPL-2.0-only

// Command dioctl drives the dio test driver and any file through every I/O
// API of the kernel, audits what drivers do with the pages and requests
// they are given, and runs all of it in a disposable VM.
package main

import (
	"fmt"
	"os"

	"dio/vm"
)

func main() {
	if os.Getpid() == 1 {
		vm.InitMain() // in a guest; returns when this is no guest of ours
	}
	// Where Debian keeps mke2fs, depmod and chroot; a user's PATH may lack these folders.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	os.Exit(realMain(os.Args))
}

func realMain(args []string) int {
	ctx, stop := endOnSignals()
	defer stop()
	out := &brokenPipe{w: os.Stdout, broken: stop}
	err := newApp(out, os.Stderr).RunContext(ctx, args)
	if out.seen() && silenced(err) {
		return exitBrokenPipe
	}
	if err != nil {
		if msg := describe(err); msg != "" {
			fmt.Fprintf(os.Stderr, "dioctl: %s\n", msg)
		}
		return exitStatus(err)
	}
	return exitGood
}
