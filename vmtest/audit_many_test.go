// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"testing"
	"time"

	"dio/ioctlapi"
)

// More kiocbs, one after the other, than the auditor has place for at a time: those
// that ended make room. AIO's and io_uring's come from different slabs, so few of
// these have the same address.
func TestAuditManyKiocbs(t *testing.T) {
	d := openDevice(t)
	setConfig(t, d, func(c *ioctlapi.Config) {
		c.LatencyNS = uint64(3 * time.Second)
		c.MaxInFlight, c.MaxInFlightFile = 1<<16, 1<<16
	})
	o := runWithin(t, 5*time.Minute, "dioctl", "audit", "--format", "json", "--lost-after", "2m", "--", "sh", "-c",
		`many() { dioctl read --discard --direct -b 4k --depth 28000 --length 112000k -e $1 /dev/dio0 >/dev/null; }
		many aio & first=$!
		many aio && wait $first && many io_uring`)
	v := verdictOf(t, o)
	t.Logf("%s: %d operations, %d requests", v.Verdict, v.Operations, v.Completions.Queued)
	if o.status != 0 || v.Verdict != "clean" || v.Lost.Events != 0 {
		t.Errorf("exit %d, verdict %s, rules %v: %s%s", o.status, v.Verdict, v.rules(), o.stdout, o.stderr)
	}
	if v.Completions.Completed < 3*28000 {
		t.Errorf("%d completions, want those of %d requests", v.Completions.Completed, 3*28000)
	}
}
