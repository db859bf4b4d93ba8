// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"slices"
	"strings"
	"testing"
)

// Every fault is committed, caught by its rule alone and clean without it; a
// fault that was armed before doesn't disturb, and none is left armed.
func TestDemoFaults(t *testing.T) {
	configure(t, "--family", "get", "--latency", "3ms")
	before := string(mustRun(t, "dioctl", "config", "get").stdout)
	mustRun(t, "dioctl", "fault", "arm", "pin-leak")
	t.Cleanup(func() { mustRun(t, "dioctl", "fault", "clear") })
	o := runWithin(t, 5*commandLimit, "dioctl", "demo", "faults", "--format", "json")
	v := decode[struct {
		Checks, Held int
		Tours        []struct {
			Faults []struct {
				Fault, Rule, Command, Where, Explain string
				Committed                            uint64
				Caught                               bool
				Clean                                bool `json:"clean_after"`
			}
		}
	}](t, o)
	if o.status != 0 || v.Checks == 0 || v.Held != v.Checks || len(v.Tours) != 1 {
		t.Fatalf("status %d, %d of %d checks held\n%s%s", o.status, v.Held, v.Checks, o.stdout, o.stderr)
	}
	type listedFault struct {
		Name, Rule string
		Audited    bool
		State      struct {
			Armed     bool
			UsedUp    bool `json:"used_up"`
			Committed uint64
		}
	}
	listed := decode[struct{ Faults []listedFault }](t, mustRun(t, "dioctl", "fault", "list", "--format", "json"))
	listed.Faults = slices.DeleteFunc(listed.Faults, func(f listedFault) bool { return !f.Audited })
	if len(listed.Faults) < 15 || len(v.Tours[0].Faults) != len(listed.Faults) {
		t.Fatalf("%d faults are listed, the tour showed %d", len(listed.Faults), len(v.Tours[0].Faults))
	}
	for i, f := range v.Tours[0].Faults {
		if want := listed.Faults[i]; f.Fault != want.Name || f.Rule != want.Rule || want.State.Armed || want.State.UsedUp || want.State.Committed == 0 {
			t.Errorf("%+v is listed as %+v", f, want)
		}
		if f.Committed != 1 || !f.Caught || !f.Clean || f.Explain == "" || !strings.Contains(f.Where, "[dio]") || !strings.HasPrefix(f.Command, "dioctl ") {
			t.Errorf("%+v", f)
		}
	}
	if after := string(mustRun(t, "dioctl", "config", "get").stdout); after != before {
		t.Errorf("the tour left another configuration:\n%s\nbefore:\n%s", after, before)
	}
}
