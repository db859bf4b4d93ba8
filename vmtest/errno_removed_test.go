// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Each path is told ENODEV when the device was removed, and none of its calls counts.
func TestErrnoRemoved(t *testing.T) {
	d := openDevice(t)
	noPins(t, d) // looks at the old device's counts when all is over
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	commands := hasCommands(t, d)
	type path struct {
		errnoPath
		*errnoKit
		do errnoDo
	}
	var paths []path
	for _, p := range errnoPaths {
		if commands || !p.isCommand() {
			k := newErrnoKit(t, d)
			paths = append(paths, path{p, k, p.make(k)})
		}
	}
	unbind(t)
	defer bind(t, config)
	before, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		for _, access := range p.access {
			if _, err := unix.FcntlInt(uintptr(p.fd), unix.F_SETFL, access.flag()); err != nil {
				t.Fatal(err)
			}
			for _, write := range []bool{false, true} {
				c := &errnoCall{fd: p.fd, write: write, vec: [][]byte{p.pages(0, 1)}, pos: errnoPos}
				if n, err := p.do(c); n != 0 || !errors.Is(err, unix.ENODEV) {
					t.Errorf("%s, %s, write %v: %d, %v, want ENODEV", p.name, access, write, n, err)
				}
			}
		}
	}
	if after, err := d.Stats(); err != nil || after != before {
		t.Errorf("stats: %+v, they were %+v, %v", after, before, err)
	}
}
