// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dio/engine"
	"dio/ioctlapi"
	"dio/trace/audit"
)

// Each fault that the ABI knows has words, and a command in the tour that
// dioctl understands.
func TestFaultWorkloads(t *testing.T) {
	app := newApp(io.Discard, io.Discard)
	for _, id := range ioctlapi.Faults() {
		if faultWords[id].when == "" || faultWords[id].what == "" {
			t.Errorf("fault list has no words for %v", id)
		}
		w, ok := faultWorkloads[id]
		if ok != newFaultView(id).Audited {
			t.Errorf("%v: the tour has a command: %v, the auditor has a rule: %v", id, ok, !ok)
		}
		if !ok {
			continue
		}
		if _, err := engine.Lookup(w.engine); err != nil && !w.provoke {
			t.Errorf("%v: %v", id, err)
		}
		// In a folder that isn't there: nothing is written.
		args := w.args(id, filepath.Join(t.TempDir(), "missing", "device"), 1<<30-1<<20)
		if err := app.Run(append([]string{"dioctl"}, args...)); exitStatus(err) != exitEnvironment {
			t.Errorf("dioctl %s: %v", strings.Join(args, " "), err)
		}
	}
}

func TestFaultProof(t *testing.T) {
	hit := audit.Finding{Rule: "pin-leak", Module: "dio", Function: "dio_io_take", File: "pages.c", Line: 7, Explain: "why"}
	other, foreign := hit, hit
	other.Rule, foreign.Module = "over-unpin", "nvme"
	for name, c := range map[string]struct {
		verdict  string
		findings []audit.Finding
		caught   bool
	}{
		"caught":              {audit.VerdictViolations, []audit.Finding{hit, hit}, true},
		"nothing seen":        {audit.VerdictClean, nil, false},
		"another rule":        {audit.VerdictViolations, []audit.Finding{other}, false},
		"another rule, too":   {audit.VerdictViolations, []audit.Finding{hit, other}, false},
		"another module":      {audit.VerdictViolations, []audit.Finding{foreign}, false},
		"the auditor is lame": {audit.VerdictIncomplete, []audit.Finding{hit}, false},
	} {
		p := faultProof{Rule: "pin-leak"}
		if p.judge(audit.Report{Verdict: c.verdict, Findings: c.findings}); p.Caught != c.caught {
			t.Errorf("%s: %+v", name, p)
		}
		if c.caught && (p.Where != "dio_io_take [dio] pages.c:7" || p.Explain != "why") {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestShellWords(t *testing.T) {
	words := []string{"read", "-e", "io_uring", "", "/dev/a b", "it's", "$HOME"}
	out, err := exec.Command("sh", "-c", "printf '%s\\n' "+shellWords(words)).Output()
	if got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"); err != nil || !slices.Equal(got, words) {
		t.Errorf("%q became %q, %v", words, got, err)
	}
}

func TestFormatExact(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 1: "1", 1000: "1000", 4096: "4k", 64 << 10: "64k", 1023 << 20: "1023M", 1<<30 + 1: "1073741825", 2 << 30: "2G"} {
		got := formatExact(n)
		if back, err := parseSize(got); got != want || err != nil || back != n {
			t.Errorf("%d: %q, read back as %d, %v", n, got, back, err)
		}
	}
}

// What is armed, what is used up and what is neither are kept apart.
func TestFaultState(t *testing.T) {
	for _, c := range []struct {
		fault ioctlapi.Fault
		text  string
	}{
		{ioctlapi.Fault{}, "no"},
		{ioctlapi.Fault{Armed: 1, Every: 1}, "yes"},
		{ioctlapi.Fault{Armed: 1, Every: 3, Count: 2}, "1 in 3, 2 left"},
		{ioctlapi.Fault{Every: 1, Occasions: 9, Committed: 9}, "used up"},
		{ioctlapi.Fault{Committed: 9}, "no"}, // cleared
	} {
		if got := faultState(c.fault).armedText(); got != c.text {
			t.Errorf("%+v: %q, want %q", c.fault, got, c.text)
		}
	}
}
