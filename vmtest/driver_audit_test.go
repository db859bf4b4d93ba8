// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// driverTests are the tests that must be clean under the auditor, error paths
// and all. One that is new is audited with the others; where that can't be, it
// stands in notAudited.
const driverTests = "^Test(Driver|Remov(al|ed)|Buffer|Edu|ABI|Errno|NoMemory|CopyWithLatency|CopyLimits|Engines)"

// otherTests are about something else: they audit by themselves, break rules on
// purpose, measure, or take from the whole machine what an audit needs too.
const otherTests = "^Test(Audit|SharedPageHelper|Copy(EveryEngine|OddPlaces|SeesDifference)|Bench|Demo|Missing|Fault|Fio|Fuzz|OutOfMemory|Tool)"

// notAudited are those that TestDriverAudited leaves out: each has an audit of
// its own, or a reason why the auditor has nothing to say to it.
var notAudited = map[string]struct{ audit, reason string }{
	"TestDriverAudited":          {reason: "is the audit"},
	"TestDriverHugePagesAudited": {reason: "is an audit"},
	"TestBufferAudited":          {reason: "is an audit"},
	"TestBufferHelper":           {audit: "TestBufferAudited"},
	"TestDriverHugePages":        {audit: "TestDriverHugePagesAudited"},
	"TestDriverSharedPage":       {audit: "TestDriverHugePagesAudited"},
	"TestDriverSharedPageFails":  {audit: "TestAuditSharedPage"},
	"TestEduEveryEngine":         {reason: "audits itself"},
	"TestEduFaults":              {reason: "is an audit"},
	"TestDriverFaultUsedUp":      {reason: "commits dirty-missing on purpose, which is found"},
	"TestEduMapping":             {reason: "needs a free page above 4 GiB, where an audit's memory may have taken the last"},
	"TestDriverResetGauges":      {reason: "commits pin-leak and lost-complete on purpose, which are found"},
}

// auditedVariable tells a test's process that it is audited.
const auditedVariable = "DIO_AUDITED"

// underAudit tells whether this process is: a test that would audit itself doesn't
// then, and the driver, whose functions are watched, can't be unloaded.
func underAudit() bool { return os.Getenv(auditedVariable) != "" }

// testsOf lists this program's tests whose name matches.
func testsOf(t *testing.T, pattern string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(self, "-test.list", pattern).Output()
	if err != nil {
		t.Fatalf("list the tests: %v\n%s", err, out)
	}
	var tests []string
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimSpace(line); strings.HasPrefix(name, "Test") {
			tests = append(tests, name)
		}
	}
	return tests
}

// What notAudited says is so: the tests are there, and have one excuse each. And
// no test is left out that isn't said to be about something else.
func TestAuditExcuses(t *testing.T) {
	all, driver, others := testsOf(t, "."), testsOf(t, driverTests), testsOf(t, otherTests)
	for _, name := range all {
		if slices.Contains(driver, name) == slices.Contains(others, name) {
			t.Errorf("%s has to match one of driverTests and otherTests", name)
		}
	}
	for name, e := range notAudited {
		if !slices.Contains(driver, name) {
			t.Errorf("%s isn't a test of the driver (%s): drop it from notAudited", name, driverTests)
		}
		if (e.audit == "") == (e.reason == "") {
			t.Errorf("%s: notAudited needs the audit that covers it, or a reason, and not both", name)
		}
		if e.audit != "" && !slices.Contains(all, e.audit) {
			t.Errorf("%s: its audit, %s, isn't there: drop it from notAudited, and it is audited with the others", name, e.audit)
		}
	}
}

// endOfTest is what a test's end looks like in the output of go's test programs.
var endOfTest = regexp.MustCompile(`(?m)^--- (PASS|SKIP|FAIL): (\w+) `)

// All tests of the driver but notAudited, in one audit: nothing found, nothing
// lost, every pin released, every request completed once.
func TestDriverAudited(t *testing.T) {
	tests := slices.DeleteFunc(testsOf(t, driverTests), func(name string) bool { _, out := notAudited[name]; return out })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(auditedVariable, "1")
	const limit = 30 * time.Minute // a kernel that checks everything takes so long
	begin := time.Now()
	// Some requests wait for several seconds on purpose, none for a minute.
	o := runWithin(t, limit, "dioctl", "audit", "--format", "json", "--lost-after", "1m", "--",
		self, "-test.v", "-test.timeout", limit.String(), "-test.run", "^("+strings.Join(tests, "|")+")$")
	v := verdictOf(t, o)
	t.Logf("%d tests in %v: %s; %d operations, %d pins taken, %d released, %d queued, %d completed", len(tests), time.Since(begin).Round(time.Second),
		v.Verdict, v.Operations, v.Pins.Taken, v.Pins.Released, v.Completions.Queued, v.Completions.Completed)

	var passed, skipped, failed []string
	for _, m := range endOfTest.FindAllStringSubmatch(o.stderr, -1) {
		switch m[1] {
		case "PASS":
			passed = append(passed, m[2])
		case "SKIP":
			skipped = append(skipped, m[2])
		default:
			failed = append(failed, m[2])
		}
	}
	t.Logf("skipped: %v", skipped)
	for _, name := range tests {
		if !slices.Contains(passed, name) && !slices.Contains(skipped, name) {
			failed = append(failed, name)
		}
	}
	slices.Sort(failed)
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if failed = slices.Compact(failed); len(failed) > 0 {
		say("under audit these fail, or didn't come to their end: %v", failed)
	}
	if len(passed) < 9*len(tests)/10 {
		say("of %d tests only %d passed", len(tests), len(passed))
	}
	if o.status != 0 || v.Verdict != "clean" || v.Lost.Events != 0 || v.Lost.UntrackedPages != 0 {
		say("status %d, verdict %s, lost %+v", o.status, v.Verdict, v.Lost)
	}
	for _, f := range v.Findings {
		say("%s (%s), %d times, %s in %s; %s", f.Rule, f.Severity, f.Count, f.Function, f.Module, f.Explain)
	}
	if v.Pins.Taken != v.Pins.Released || v.Pins.Outstanding != 0 || v.Completions.Queued != v.Completions.Completed {
		say("pins %+v, completions %+v", v.Pins, v.Completions)
	}
	if v.Pins.Taken < 50_000 || v.Completions.Queued < 1000 {
		say("pins %+v, completions %+v: the tests make far more", v.Pins, v.Completions)
	}
	if len(wrong) > 0 {
		// What counts comes last: it is what's read.
		t.Errorf("%s%s\nWhich test it is, this tells: dioctl audit --lost-after 1m -- %s -test.run '^NAME$'. "+
			"What is found in the driver is mended in kmod/, what is found or lost wrongly in trace/; only a test that can't be clean, "+
			"because it breaks a rule on purpose, goes to notAudited, with that for a reason.\n%s",
			o.stdout, outputOfTests(o.stderr), self, strings.Join(wrong, "\n"))
	}
}

// outputOfTests leaves out what says nothing: that a test runs, or ended well.
func outputOfTests(out string) string {
	var b bytes.Buffer
	for line := range strings.Lines(out) {
		word := strings.TrimSpace(line)
		if !strings.HasPrefix(word, "=== ") && !strings.HasPrefix(word, "--- PASS") && !strings.HasPrefix(word, "--- SKIP") {
			b.WriteString(line)
		}
	}
	return b.String()
}
