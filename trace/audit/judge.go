// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// violation is one occurrence of a broken rule; those of one rule at one
// place become one finding.
type violation struct {
	rule     string
	severity string
	pages    uint32
	stack    Stack
	op       Op
	explain  string
}

// Judge applies every rule to the evidence.
func Judge(e Evidence) Report {
	r := Report{
		Schema:     Schema,
		Operations: e.Totals.Operations,
		Pins:       Pins{Taken: e.Totals.PinsTaken, Released: e.Totals.PinsReleased},
		Completions: Completions{
			Queued:    e.Totals.Queued,
			Completed: e.Totals.Completed,
		},
		Findings: []Finding{},
		Coverage: e.Coverage,
		Lost:     e.Lost,
	}
	for _, h := range e.Held {
		r.Pins.Outstanding += uint64(h.Pages)
	}
	var found []violation
	for _, rule := range rules {
		found = append(found, rule(&e)...)
	}
	if e.Lost.Unseen {
		doubt(found)
	}
	r.Findings = append(r.Findings, e.group(found)...)
	r.Lost.Add("findings without a stack, which may be those asked for", e.nowhere(found))
	if r.Coverage.Attached == nil {
		r.Coverage.Attached = []string{}
	}
	if r.Coverage.Missing == nil {
		r.Coverage.Missing = []Missing{}
	}
	r.Verdict = verdict(r)
	return r
}

// byAbsence are the rules that go by a pin or a completion that wasn't there, or by
// the end of one that was.
var byAbsence = []string{RuleOverUnpin, RuleDoubleComplete, RuleLostComplete}

// doubt makes advice of what isn't proven where pins or completions weren't seen.
func doubt(found []violation) {
	for i, v := range found {
		if slices.Contains(byAbsence, v.rule) && v.severity != SeverityAdvice {
			found[i].severity = SeverityAdvice
			found[i].explain += " It isn't proven here: pins or completions were not seen, and this may come of it."
		}
	}
}

// verdict: a proven violation stays one even when something else was missed.
func verdict(r Report) string {
	if slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != SeverityAdvice }) {
		return VerdictViolations
	}
	if r.Lost.Any() || slices.ContainsFunc(r.Coverage.Missing, func(m Missing) bool { return m.Essential }) {
		return VerdictIncomplete
	}
	return VerdictClean
}

// group makes one finding of all violations of one rule at one place.
func (e *Evidence) group(found []violation) []Finding {
	var out []Finding
	index := map[string]int{}
	places := places{}
	for _, v := range found {
		if !e.wanted(v.stack) && !e.wanted(v.op.PinStack) {
			continue
		}
		stack := v.stack
		if len(stack) == 0 {
			stack = v.op.PinStack
		}
		at := places.of(stack)
		key := v.rule + "\n" + v.severity + "\n" + at.text
		if i, ok := index[key]; ok {
			out[i].Count++
			out[i].Pages += uint64(v.pages)
			continue
		}
		index[key] = len(out)
		out = append(out, Finding{
			Rule: v.rule, Severity: v.severity, Count: 1, Pages: uint64(v.pages),
			Module: at.blamed.Module, Function: at.blamed.Function, File: at.blamed.File, Line: at.blamed.Line,
			Stack: render(stack), PID: v.op.PID, Comm: v.op.Comm, Explain: v.explain,
		})
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank(a.Severity), rank(b.Severity)), cmp.Compare(a.Rule, b.Rule))
	})
	return out
}

// nowhere counts the findings that the filters drop only because nothing tells
// where they are: of two stacks with one hash the kernel keeps one.
func (e *Evidence) nowhere(found []violation) uint64 {
	var n uint64
	for _, v := range found {
		if len(v.stack) == 0 && len(v.op.PinStack) == 0 && v.severity != SeverityAdvice && !e.wanted(nil) {
			n++
		}
	}
	return n
}

func rank(severity string) int {
	return slices.Index([]string{SeverityError, SeverityWarning, SeverityAdvice}, severity)
}

// place is what a finding tells of a stack.
type place struct {
	blamed Frame
	text   string
}

// places remembers it by the stack's memory: very many events may share few stacks.
type places map[stackMemory]place

type stackMemory struct {
	first  *Frame
	frames int
}

func (p places) of(s Stack) place {
	if len(s) == 0 {
		return place{}
	}
	key := stackMemory{&s[0], len(s)}
	at, ok := p[key]
	if !ok {
		at = place{blame(s), strings.Join(render(s), "\n")}
		p[key] = at
	}
	return at
}

// wanted says whether the stack passes the filters.
func (e *Evidence) wanted(s Stack) bool {
	if len(e.Modules) > 0 && !slices.ContainsFunc(s, func(f Frame) bool { return slices.Contains(e.Modules, f.Module) }) {
		return false
	}
	return e.Caller == nil || slices.ContainsFunc(s, func(f Frame) bool { return e.Caller.MatchString(f.Function) })
}

// helper matches functions that do what a driver told them to: the one to
// look at is their caller. notDriver are frames of the tracing itself.
var (
	helper = regexp.MustCompile(`^(__)?(pin_user|get_user_pages|unpin_|gup_|internal_get|memfd_pin|iov_iter_|set_page_dirty|` +
		`folio_mark_dirty|aio_complete|io_complete_rw|io_uring_cmd_done|bio_iov_iter|bio_release|bio_set_pages|bio_check_pages)`)
	notDriver = map[string]bool{"bpf": true, "__builtin__ftrace": true, "__builtin__kprobes": true}
)

// blame picks the frame that a person should look at: the innermost one of a
// module or, where none is in the stack, the first that isn't a helper.
func blame(s Stack) Frame {
	for _, f := range s {
		if f.Module != "" && !notDriver[f.Module] {
			return f
		}
	}
	for _, f := range s {
		if f.Module == "" && !helper.MatchString(f.Function) {
			return f
		}
	}
	return Frame{}
}

// render writes a stack as people know it from the kernel's log.
func render(s Stack) []string {
	out := make([]string, 0, len(s))
	for _, f := range s {
		if notDriver[f.Module] {
			continue
		}
		line := fmt.Sprintf("%s+0x%x", f.Function, f.Offset)
		if f.Module != "" {
			line += " [" + f.Module + "]"
		}
		if f.File != "" {
			line += fmt.Sprintf(" %s:%d", f.File, f.Line)
		}
		out = append(out, line)
	}
	return out
}
