// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Two reads of one sector each share a page, and one of them fails: first or
// last, the older or the younger. Its pin is rightly released clean.
func TestDriverSharedPageFails(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	fd, aio := openRaw(t, unix.O_DIRECT), newAIO(t, 2)
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionWorker} {
		for _, latency := range [][2]uint64{{300, 50}, {50, 300}} {
			for fails := range 2 {
				inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1, Offset: scratch + 4096, Length: 4096, Count: 1})
				page := anonymous(t, 1) // nobody has marked it dirty yet
				var controls []*aioControl
				for i, ms := range latency {
					setConfig(t, d, func(c *ioctlapi.Config) { c.Completion, c.LatencyNS = completion, ms*1e6 })
					at := int64(scratch)
					if i == fails {
						at += 4096
					}
					c := control(aioRead, fd, page[i*512:][:512], at)
					if err := aio.submit(c); err != nil {
						t.Fatal(err)
					}
					controls = append(controls, c)
				}
				var results []int64
				for range controls {
					results = append(results, aio.wait(10*time.Second).res)
				}
				if slices.Sort(results); results[0] != -int64(unix.EIO) || results[1] != 512 {
					t.Errorf("%v, latencies %v: %v, want one -EIO and 512", completion, latency, results)
				}
			}
		}
	}
}

// Both succeed, in another order than they came.
func TestSharedPageHelper(t *testing.T) {
	d := openDevice(t)
	fd, aio := openRaw(t, unix.O_DIRECT), newAIO(t, 2)
	page := anonymous(t, 1)
	for i := range 2 {
		setConfig(t, d, func(c *ioctlapi.Config) {
			c.Completion, c.LatencyNS = ioctlapi.CompletionAuto, uint64(300-250*i)*1e6
		})
		if err := aio.submit(control(aioRead, fd, page[i*512:][:512], scratch)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if e := aio.wait(10 * time.Second); e.res != 512 {
			t.Errorf("a read ended with %d", e.res)
		}
	}
}

// A clean release that may be the failed one's is nobody's fault. If none of two
// marks the page that they share, it is found all the same.
func TestAuditSharedPage(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	configure(t, "--family", "pin")
	o, v := audit(t, self, "-test.run", "^TestDriverSharedPageFails$")
	if o.status != 0 || v.Verdict != "clean" || v.Pins.Taken != 16 || v.Pins.Released != 16 {
		t.Errorf("one fails: exit %d, verdict %s, pins %+v\n%s%s", o.status, v.Verdict, v.Pins, o.stdout, o.stderr)
	}
	mustRun(t, "dioctl", "fault", "arm", "--count", "2", "dirty-missing")
	o, v = audit(t, self, "-test.run", "^TestSharedPageHelper$")
	mustRun(t, "dioctl", "fault", "clear", "dirty-missing")
	if o.status != 1 || !slices.Equal(v.rules(), []string{"dirty-missing"}) {
		t.Errorf("none marks the page: exit %d, rules %v\n%s%s", o.status, v.rules(), o.stdout, o.stderr)
	}
}
