// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// neighbour keeps the device busy, read by read, until the test is over. It is
// bounded by itself, too.
func neighbour(t *testing.T) {
	t.Helper()
	stop := filepath.Join(t.TempDir(), "stop")
	c := exec.Command("sh", "-c", `for i in $(seq 300); do
		for engine in aio io_uring preadv; do
			[ -e "$0" ] && exit
			dioctl read --discard -e $engine --direct --depth 8 -b 16k --length 512k /dev/dio0 >/dev/null || exit 1
		done
	done`, stop)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(stop, nil, 0o600); err != nil {
			t.Error(err)
			c.Process.Kill()
		}
		if err := c.Wait(); err != nil {
			t.Errorf("the neighbour: %v", err)
		}
	})
}

// What others do with the memory, the pages and the kiocbs that an audited
// program had before them is not its fault.
func TestAuditNeighbour(t *testing.T) {
	configure(t)
	neighbour(t)
	for range 2 {
		o, v := audit(t, "sh", "-c", `for engine in aio io_uring preadv aio io_uring preadv; do
			dioctl read --discard -e $engine --direct --depth 8 -b 16k --length 1M /dev/dio0 >/dev/null || exit
		done`)
		if o.status != 0 || v.Verdict != "clean" || v.Lost.Events != 0 || v.Lost.UntrackedPages != 0 {
			t.Errorf("exit %d, verdict %s, rules %v: %s%s", o.status, v.Verdict, v.rules(), o.stdout, o.stderr)
		}
		if v.Pins.Taken < 6*256 || v.Pins.Taken != v.Pins.Released {
			t.Errorf("pins %+v, want those of 6 MiB", v.Pins)
		}
	}
}

// An audit of everything may end in the middle of the work, and is clean.
func TestAuditInTheMiddle(t *testing.T) {
	configure(t)
	neighbour(t)
	for range 3 {
		o := runWithin(t, 2*time.Minute, "dioctl", "audit", "--format", "json", "--duration", "3s")
		v := verdictOf(t, o)
		t.Logf("%s: %d operations, pins %+v, completions %+v", v.Verdict, v.Operations, v.Pins, v.Completions)
		if o.status != 0 || v.Verdict != "clean" {
			t.Errorf("exit %d, verdict %s, rules %v: %s%s", o.status, v.Verdict, v.rules(), o.stdout, o.stderr)
		}
		if v.Pins.Taken == 0 || v.Operations == 0 {
			t.Errorf("nothing was seen: %+v", v)
		}
	}
}
