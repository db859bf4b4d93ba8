// SPDX-License-Identifier: GPL-2.0-only

// Command dioctl drives the dio test driver and any file through every I/O
// API of the kernel, audits what drivers do with the pages and requests
// they are given, and runs all of it in a disposable VM.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"dio/vm"
)

func main() {
	if os.Getpid() == 1 {
		vm.InitMain() // in a guest; returns when this is no guest of ours
	}
	os.Exit(realMain(os.Args))
}

func realMain(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end, a second one has its usual effect.
	context.AfterFunc(ctx, stop)
	if err := newApp(os.Stdout, os.Stderr).RunContext(ctx, args); err != nil {
		if msg := describe(err); msg != "" {
			fmt.Fprintf(os.Stderr, "dioctl: %s\n", msg)
		}
		return exitStatus(err)
	}
	return exitGood
}
