// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"strings"
	"testing"
)

// The guided tour: every check holds, and the device is as it was before.
func TestDemo(t *testing.T) {
	configure(t, "--family", "get", "--latency", "3ms")
	before := string(mustRun(t, "dioctl", "config", "get").stdout)
	for _, tour := range []string{"direct", "async", "all"} {
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
		if v.Checks < 20 || v.Held != v.Checks {
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
	for fault, says := range map[string]string{
		"dirty-missing":  "were marked dirty",
		"dirty-needless": "no page was marked dirty",
	} {
		mustRun(t, "dioctl", "fault", "arm", "--count", "1", fault)
		o := run(t, "dioctl", "demo", "direct")
		mustRun(t, "dioctl", "fault", "clear")
		failed := ""
		for _, line := range strings.Split(string(o.stdout), "\n") {
			if strings.Contains(line, "FAILED") {
				failed += line + "\n"
			}
		}
		if o.status != 1 || !strings.Contains(failed, says) {
			t.Errorf("%s: status %d, failed checks:\n%s", fault, o.status, failed)
		}
	}
}
