// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"time"

	"golang.org/x/sys/unix"
)

// interruptGrace is what a command that had the interrupt from its terminal is
// given to end, before it is sent one in case that this one came from kill(1).
const interruptGrace = 5 * time.Second

// foreground says that a terminal's ^C reaches this process, and so the commands
// that it started, which share its process group.
func foreground() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
