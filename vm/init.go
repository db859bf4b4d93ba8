// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"fmt"
	"os"

	"dio/vm/guest"
)

// InitMain is main for a dioctl that runs as PID 1 of a guest; it ends
// with the machine. A program that happens to be PID 1 elsewhere, as in a
// container, is no guest: InitMain returns at once.
func InitMain() {
	if _, err := os.Stat(guest.ConfigPath); err != nil {
		return
	}
	if err := guest.Run(guest.Linux{}, guest.ConfigPath); err != nil {
		fmt.Fprintf(os.Stderr, "dio init: %v\n", err)
	}
	os.Exit(1) // the kernel panics, and the host sees it
}
