// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"regexp"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	leak := []Held{{Pages: 1, Op: read(nil)}}
	nowhere := read(func(op *Op) { op.PinStack = nil })
	for name, c := range map[string]struct {
		evidence Evidence
		want     string
	}{
		"clean":                 {Evidence{}, VerdictClean},
		"events lost":           {Evidence{Lost: Lost{Events: 1}}, VerdictIncomplete},
		"pages not tracked":     {Evidence{Lost: Lost{UntrackedPages: 1}}, VerdictIncomplete},
		"lost, yet proven":      {Evidence{Lost: Lost{Events: 1}, Held: leak}, VerdictViolations},
		"essential hook absent": {Evidence{Coverage: Coverage{Missing: []Missing{{Hook: "x", Essential: true}}}}, VerdictIncomplete},
		"other hook absent":     {Evidence{Coverage: Coverage{Missing: []Missing{{Hook: "x"}}}}, VerdictClean},
		"another module's":      {Evidence{Held: leak, Modules: []string{"other"}}, VerdictClean},
		"this module's":         {Evidence{Held: leak, Modules: []string{"other", "drv"}}, VerdictViolations},
		"whose isn't known":     {Evidence{Held: []Held{{Pages: 1, Op: nowhere}}, Modules: []string{"drv"}}, VerdictIncomplete},
		"nobody asks whose":     {Evidence{Held: []Held{{Pages: 1, Op: nowhere}}}, VerdictViolations},
		"another caller's":      {Evidence{Held: leak, Caller: regexp.MustCompile("^other_")}, VerdictClean},
		"this caller's":         {Evidence{Held: leak, Caller: regexp.MustCompile("^drv_")}, VerdictViolations},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Judge(c.evidence).Verdict; got != c.want {
				t.Errorf("verdict %s, want %s", got, c.want)
			}
		})
	}
}

// What goes by a pin or a completion that wasn't seen is advice where some weren't.
func TestNotProven(t *testing.T) {
	over := Event{Kind: EventOverUnpin, Pages: 1, Stack: releasedAt, Op: read(nil)}
	again := Event{Kind: EventCompletedAgain, Stack: releasedAt, Op: read(nil)}
	for name, c := range map[string]struct {
		evidence Evidence
		proven   bool // where something else was lost, or this in spite of it
	}{
		"over-unpin":      {evidence: Evidence{Events: []Event{over}}},
		"double-complete": {evidence: Evidence{Events: []Event{again}}},
		"lost-complete":   {evidence: Evidence{Overdue: []Op{read(nil)}}},
		"pin-leak":        {evidence: Evidence{Held: []Held{{Pages: 1, Op: read(nil)}}}, proven: true},
	} {
		t.Run(name, func(t *testing.T) {
			for unseen, proven := range map[bool]bool{false: true, true: c.proven} {
				e := c.evidence
				if unseen {
					e.Lost.AddUnseen("a run was skipped", 1)
				} else {
					e.Lost.Add("the ring was full", 1)
				}
				severity, verdict := SeverityAdvice, VerdictIncomplete
				if proven {
					severity, verdict = SeverityError, VerdictViolations
				}
				r := Judge(e)
				if len(r.Findings) != 1 || r.Findings[0].Rule != name || r.Findings[0].Severity != severity || r.Verdict != verdict {
					t.Errorf("unseen %v: %s, findings %+v", unseen, r.Verdict, r.Findings)
				}
			}
		})
	}
}

// Violations of one rule at one place are one finding; elsewhere, another.
func TestGrouping(t *testing.T) {
	elsewhere := read(func(op *Op) { op.PinStack = stack("pin_user_pages", "drv:drv_ioctl") })
	r := Judge(Evidence{Held: []Held{{Pages: 1, Op: read(nil)}, {Pages: 2, Op: read(nil)}, {Pages: 4, Op: elsewhere}}})
	if len(r.Findings) != 2 || r.Findings[0].Count != 2 || r.Findings[0].Pages != 3 || r.Findings[1].Count != 1 {
		t.Errorf("findings %+v", r.Findings)
	}
	if r.Pins.Outstanding != 7 {
		t.Errorf("%d pins outstanding, want 7", r.Pins.Outstanding)
	}
}

// What was lost is told with its causes; what wasn't is none.
func TestLostCauses(t *testing.T) {
	var l Lost
	l.Add("nothing", 0)
	if l.Any() || l.Causes != nil {
		t.Errorf("nothing was lost: %+v", l)
	}
	l.Add("the ring was full", 2)
	l.Add("a run was skipped", 3)
	if !l.Any() || l.Events != 5 || len(l.Causes) != 2 {
		t.Errorf("lost %+v", l)
	}
	var b strings.Builder
	if err := Judge(Evidence{Lost: l}).WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"5 events", "2: the ring was full", "3: a run was skipped"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
