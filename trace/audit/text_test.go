// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

var fullReport = Report{
	Schema: Schema, Verdict: VerdictViolations, Operations: 4,
	Pins:        Pins{Taken: 16, Released: 15, Outstanding: 1},
	Completions: Completions{Queued: 4, Completed: 4},
	Findings: []Finding{
		{Rule: "pin-leak", Severity: "error", Count: 1, Module: "your", Function: "your_read", File: "your.c", Line: 7, Stack: []string{"your_read"}, PID: 12, Comm: "cat", Pages: 1, Explain: "a page stays pinned"},
		{Rule: "dirty-missing", Severity: "error", Count: 2, Stack: []string{}, Explain: "a page was released clean"},
		{Rule: "pin-leak", Severity: "error", Count: 1, Stack: []string{}, Explain: "another"},
	},
	Coverage: Coverage{Attached: []string{"unpin_user_pages"}, Missing: []Missing{{Hook: "bio_release_pages", Reason: "no such function", Rules: []string{"pin-leak"}}}},
	Lost:     Lost{Events: 1, Causes: []Cause{{Why: "the ring was full", Events: 1}}},
}

// The verdict is the last line, for who reads no more; findings say where and what.
func TestText(t *testing.T) {
	for verdict, last := range map[string]string{
		VerdictClean:      "audit: clean: every page released, every written page marked, every request completed once",
		VerdictIncomplete: "audit: incomplete: no rule is proven broken, but not everything was seen",
		VerdictViolations: "audit: violations: 3 finding(s): pin-leak, dirty-missing",
	} {
		r := fullReport
		r.Verdict = verdict
		if verdict != VerdictViolations {
			r.Findings = nil
		}
		var b strings.Builder
		if err := r.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if got := lines[len(lines)-1]; got != last {
			t.Errorf("the last line is %q, want %q", got, last)
		}
		want := []string{"16 taken, 15 released, 1 outstanding", "4 queued, 4 completed", "1 functions watched, 1 not"}
		if verdict == VerdictViolations {
			want = append(want, "error: pin-leak in your_read [your] your.c:7", "1 time(s), 1 page(s), process 12 (cat)", "a page was released clean")
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s: no %q in\n%s", verdict, w, b.String())
			}
		}
	}
}

// The names of the report's fields are a promise to those who read it.
func TestReportFields(t *testing.T) {
	text, err := json.Marshal(fullReport)
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	object := func(v any) map[string]any { return v.(map[string]any) }
	first := func(v any) map[string]any { return object(v.([]any)[0]) }
	for _, c := range []struct {
		name string
		v    map[string]any
		want string
	}{
		{"report", r, "completions coverage findings lost operations pins schema verdict"},
		{"pins", object(r["pins"]), "outstanding released taken"},
		{"completions", object(r["completions"]), "completed queued"},
		{"finding", first(r["findings"]), "comm count explain file function line module pages pid rule severity stack"},
		{"coverage", object(r["coverage"]), "attached missing"},
		{"missing", first(object(r["coverage"])["missing"]), "hook reason rules"},
		{"lost", object(r["lost"]), "causes events untracked_pages"},
		{"cause", first(object(r["lost"])["causes"]), "events why"},
	} {
		if got := strings.Join(slices.Sorted(maps.Keys(c.v)), " "); got != c.want {
			t.Errorf("%s has %s, want %s", c.name, got, c.want)
		}
	}
	if r["schema"] != "dio.audit/1" {
		t.Errorf("schema %v", r["schema"])
	}
}
