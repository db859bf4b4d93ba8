// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// A device that is bound without enough memory isn't there, and what it had got is
// given back (kmemleak looks, when the guest is done): the next try succeeds.
func TestOutOfMemoryBind(t *testing.T) {
	if _, err := os.Stat(failNth); err != nil {
		t.Skipf("this kernel can't have an allocation fail on demand (the debug kernel can): %v", err)
	}
	for _, c := range []struct {
		path, folder, name string
		within             callers
		step, least        int
	}{
		{ioctlapi.DefaultPath, driverFolder, softwareName, driverCode(t), 1, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := edu(t, c.path)
			config, err := d.Config()
			if err == nil {
				err = d.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			failWithin(t, c.within, c.within)
			f := newFailing(t)
			fd, err := unix.Open(c.folder+"bind", unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			mem := anonymous(t, 1)
			copy(mem, c.name)
			fired, alive := 0, true
			for nth := 1; ; nth += c.step {
				if alive {
					eduWrite(t, c.folder+"unbind", c.name)
				}
				n, e, hit := f.run(nth, syscallOf(unix.SYS_WRITE, uintptr(fd), addr(&mem[0]), uintptr(len(c.name))))
				alive = e == 0
				if alive {
					eduAwait(t, c.path)
				} else if _, err := os.Stat(c.path); err == nil {
					t.Errorf("allocation %d: bind fails with %v, and the device is there", nth, e)
				}
				if hit {
					fired++
				}
				if e != 0 && (!hit || e != unix.ENOMEM) || e == 0 && n != len(c.name) {
					t.Errorf("allocation %d, failed: %v: %d, %v", nth, hit, n, e)
				}
				if !hit || t.Failed() {
					break
				}
			}
			if !alive {
				eduBind(t, c.name, c.path)
			}
			t.Logf("%d failures", fired)
			if fired < c.least {
				t.Errorf("%d failures were met, want %d or more", fired, c.least)
			}
			if c.path == ioctlapi.DefaultPath {
				setConfig(t, edu(t, c.path), func(now *ioctlapi.Config) { *now = config })
			}
			k := &oomKit{t: t, d: edu(t, c.path), shortage: f}
			k.roundTrip(c.path)
		})
	}
}
