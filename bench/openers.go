// SPDX-License-Identifier: GPL-2.0-only

package bench

import "dio/engine"

// opener makes a loop.
type opener func(*job) (loop, error)

// Psync is the engine that only this package has: pread(2), pwrite(2).
const Psync = "psync"

// openers are the APIs with a loop of their own; any other engine is driven
// through its Queue.
var openers = map[string]opener{
	Psync:             openPsync,
	"preadv":          openPreadv,
	"preadv2":         openPreadv2,
	"mmap":            openMmap,
	"ioctl":           openIoctl,
	"ioctl-buffer":    openIoctlBuffer,
	"splice":          openSplice,
	"aio":             openAIO,
	"io_uring":        openUring,
	"io_uring-fixed":  openUringFixed,
	"io_uring-iopoll": openUringPoll,

	"uring_cmd":        openUringCmd,
	"uring_cmd-fixed":  openUringCmdFixed,
	"uring_cmd-iopoll": openUringCmdPoll,
}

// Names are the engines that can be measured: psync, then the engine
// package's.
func Names() []string { return append([]string{Psync}, engine.Names()...) }
