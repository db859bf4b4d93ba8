// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"fmt"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// detachInBackground gives the links a second holder, so that closing them
// costs nothing; the function that it returns lets go of that one. The kernel
// detaches a link at once when its last descriptor is closed, waiting for
// every task to have left the program (0.2 s a link under emulation), but
// from a worker when its last pin goes (6.5 and newer; older kernels wait
// here too). The pins are in a bpffs that is mounted nowhere. Where any of
// this can't be had, closing takes its time, and nothing else changes.
func detachInBackground(links []link.Link) func() {
	none := func() {}
	if len(links) == 0 {
		return none
	}
	config, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return none
	}
	defer unix.Close(config)
	if err := unix.FsconfigCreate(config); err != nil {
		return none
	}
	mount, err := unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return none
	}
	for i, l := range links {
		if err := l.Pin(fmt.Sprintf("/proc/self/fd/%d/%d", mount, i)); err != nil {
			break // this and the rest are closed the slow way
		}
	}
	return func() { unix.Close(mount) }
}
