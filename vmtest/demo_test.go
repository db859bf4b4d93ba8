// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"strings"
	"testing"
)

// The guided tour: every check holds, and the device is as it was before.
func TestDemo(t *testing.T) {
	configure(t, "--family", "get", "--latency", "3ms", "--model", "disk", "--bandwidth", "7M", "--reposition", "5ms")
	t.Cleanup(func() {
		mustRun(t, "dioctl", "config", "set", "--model", "ram", "--bandwidth", "0", "--reposition", "0")
	})
	before := string(mustRun(t, "dioctl", "config", "get").stdout)
	for _, tour := range []string{"direct", "async", "tape", "all"} {
		v := decode[struct {
			Checks, Held int
			Tours        []struct {
				Steps []struct {
					Title  string
					Checks []struct {
						What string
						Held bool
					}
				}
			}
		}](t, run(t, "dioctl", "demo", tour, "--format", "json"))
		if v.Checks < 17 || v.Held != v.Checks {
			t.Errorf("demo %s: %d of %d checks held", tour, v.Held, v.Checks)
		}
		for _, tour := range v.Tours {
			for _, s := range tour.Steps {
				for _, c := range s.Checks {
					if !c.Held {
						t.Errorf("%s: %s", s.Title, c.What)
					}
				}
			}
		}
	}
	o := mustRun(t, "dioctl", "demo")
	for _, line := range strings.Split(string(o.stdout), "\n") {
		if len(line) > 100 {
			t.Errorf("a line of %d columns: %s", len(line), line)
		}
	}
	if !strings.Contains(string(o.stdout), "checks held.") {
		t.Errorf("no verdict at the end:\n%s", o.stdout)
	}
	if after := string(mustRun(t, "dioctl", "config", "get").stdout); after != before {
		t.Errorf("the tour left another configuration:\n%s\nbefore:\n%s", after, before)
	}
}

// The tour notices a driver that does wrong: its numbers aren't made up.
func TestDemoSeesFaults(t *testing.T) {
	for fault, c := range map[string]struct{ tour, says string }{
		"dirty-missing":  {"direct", "were marked dirty"},
		"dirty-needless": {"direct", "no page was marked dirty"},
		"early-complete": {"async", "completed exactly once, after its pages were released"},
	} {
		mustRun(t, "dioctl", "fault", "arm", "--count", "1", fault)
		o := run(t, "dioctl", "demo", c.tour)
		mustRun(t, "dioctl", "fault", "clear")
		failed := ""
		for _, line := range strings.Split(string(o.stdout), "\n") {
			if strings.Contains(line, "FAILED") {
				failed += line + "\n"
			}
		}
		if o.status != 1 || !strings.Contains(failed, c.says) {
			t.Errorf("%s: status %d, failed checks:\n%s", fault, o.status, failed)
		}
	}
}

// The tape's tour by its numbers: each engine gains with each depth, and they
// are the driver's, which also counts what the tour did.
func TestDemoTape(t *testing.T) {
	before := readStats(t)
	v := decode[struct {
		Checks, Held int
		Tours        []struct {
			Name string
			Tape []struct {
				Engine                 string
				Depth, Requests, Tries int
				Bytes, Stalls, Seeks   uint64
				Rate                   float64 `json:"bytes_per_second"`
			}
		}
	}](t, mustRun(t, "dioctl", "demo", "tape", "--format", "json"))
	if v.Held != v.Checks || len(v.Tours) != 1 || v.Tours[0].Name != "tape" {
		t.Fatalf("%+v", v)
	}
	runs := v.Tours[0].Tape
	want := []string{"pwritev 1", "aio 2", "aio 4", "aio 8", "io_uring 2", "io_uring 4", "io_uring 8", "aio 8"}
	if len(runs) != len(want) {
		t.Fatalf("%d runs: %+v", len(runs), runs)
	}
	var stalls, written uint64
	for i, r := range runs {
		t.Logf("%+v", r)
		if got := fmt.Sprintf("%s %d", r.Engine, r.Depth); got != want[i] || r.Tries < 1 {
			t.Errorf("run %d is %s, want %s; %d tries", i, got, want[i], r.Tries)
		}
		stalls, written = stalls+r.Stalls, written+r.Bytes
	}
	if one, deep := runs[0], runs[3]; one.Stalls != uint64(one.Requests-1) || deep.Stalls > 2 || deep.Rate < 2*one.Rate {
		t.Errorf("one at a time %+v, 8 in flight %+v", one, deep)
	}
	after := readStats(t)
	if after.Stalls-before.Stalls < stalls || after.BytesWritten-before.BytesWritten < written {
		t.Errorf("the tour tells of %d stalls and %d bytes, the driver of %d and %d", stalls, written,
			after.Stalls-before.Stalls, after.BytesWritten-before.BytesWritten)
	}
}
