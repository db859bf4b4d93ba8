// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// verdict is what the tests read of the auditor's report.
type verdict struct {
	Schema     string `json:"schema"`
	Verdict    string `json:"verdict"`
	Operations uint64 `json:"operations"`
	Pins       struct {
		Taken       uint64 `json:"taken"`
		Released    uint64 `json:"released"`
		Outstanding uint64 `json:"outstanding"`
	} `json:"pins"`
	Completions struct {
		Queued    uint64 `json:"queued"`
		Completed uint64 `json:"completed"`
	} `json:"completions"`
	Findings []finding `json:"findings"`
	Coverage struct {
		Attached []string `json:"attached"`
	} `json:"coverage"`
	Lost struct {
		Events         uint64 `json:"events"`
		UntrackedPages uint64 `json:"untracked_pages"`
		Causes         []struct {
			Why    string `json:"why"`
			Events uint64 `json:"events"`
		} `json:"causes"`
	} `json:"lost"`
}

type finding struct {
	Rule     string   `json:"rule"`
	Severity string   `json:"severity"`
	Count    uint64   `json:"count"`
	Module   string   `json:"module"`
	Function string   `json:"function"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Stack    []string `json:"stack"`
	PID      int      `json:"pid"`
	Comm     string   `json:"comm"`
	Pages    uint64   `json:"pages"`
	Explain  string   `json:"explain"`
}

// pageless are the rules about requests, whose findings may be about no page.
var pageless = []string{"double-complete", "lost-complete", "sync-as-async", "result-range", "cancel-fn-misuse"}

// reported reads the report of an audit that was made here, and has it say what
// every report must: what was watched, and of each finding whose it is.
func reported(t *testing.T, report []byte) verdict {
	t.Helper()
	var v verdict
	if err := json.Unmarshal(report, &v); err != nil {
		t.Fatalf("the audit's report: %v: %s", err, report)
	}
	if v.Schema != "dio.audit/1" || len(v.Coverage.Attached) == 0 {
		t.Errorf("schema %q, attached to %v", v.Schema, v.Coverage.Attached)
	}
	for _, f := range v.Findings {
		if f.PID == 0 || f.Comm == "" || f.Count == 0 || f.Explain == "" || len(f.Stack) == 0 ||
			f.Pages == 0 && !slices.Contains(pageless, f.Rule) {
			t.Errorf("the finding doesn't say all: %+v", f)
		}
	}
	return v
}

// verdictOf is what a command reported on its standard output.
func verdictOf(t *testing.T, o outcome) verdict {
	t.Helper()
	if len(o.stdout) == 0 {
		t.Fatalf("%s: no report, exit status %d: %s", strings.Join(o.args, " "), o.status, o.stderr)
	}
	return reported(t, o.stdout)
}

func (v verdict) rules() []string {
	var rules []string
	for _, f := range v.Findings {
		rules = append(rules, f.Rule)
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}

func audit(t *testing.T, args ...string) (outcome, verdict) {
	t.Helper()
	return auditFor(t, commandLimit, args...)
}

func auditFor(t *testing.T, limit time.Duration, args ...string) (outcome, verdict) {
	t.Helper()
	o := runWithin(t, limit, append([]string{"dioctl", "audit", "--format", "json", "--"}, args...)...)
	v := verdictOf(t, o)
	t.Logf("%s: %s; %d operations, %d pins taken, %d released, %d queued, %d completed",
		strings.Join(args, " "), v.Verdict, v.Operations, v.Pins.Taken, v.Pins.Released, v.Completions.Queued, v.Completions.Completed)
	return o, v
}

// configure sets the driver up for one test and puts the defaults back after it.
func configure(t *testing.T, settings ...string) {
	t.Helper()
	if len(settings) > 0 {
		mustRun(t, append([]string{"dioctl", "config", "set"}, settings...)...)
	}
	t.Cleanup(func() {
		mustRun(t, "dioctl", "config", "set", "--family", "pin", "--completion", "auto", "--latency", "0")
	})
}
