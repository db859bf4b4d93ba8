// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// stackLines bounds the stack in text; JSON has all of it.
const stackLines = 10

// WriteText writes the report for a person; the verdict is its last line.
func (r Report) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "audit saw")
	fmt.Fprintf(b, "  operations   %d\n", r.Operations)
	fmt.Fprintf(b, "  pins         %d taken, %d released, %d outstanding\n", r.Pins.Taken, r.Pins.Released, r.Pins.Outstanding)
	fmt.Fprintf(b, "  completions  %d queued, %d completed\n", r.Completions.Queued, r.Completions.Completed)
	fmt.Fprintf(b, "  coverage     %d functions watched", len(r.Coverage.Attached))
	if n := len(r.Coverage.Missing); n > 0 {
		fmt.Fprintf(b, ", %d not", n)
	}
	fmt.Fprintln(b)
	writeGaps(b, r.Coverage.Missing)
	if r.Lost.Any() {
		fmt.Fprintf(b, "  LOST         %d events, %d pages not tracked: the verdict can't be trusted to be complete\n",
			r.Lost.Events, r.Lost.UntrackedPages)
		for _, c := range r.Lost.Causes {
			fmt.Fprintf(b, "               %d: %s\n", c.Events, c.Why)
		}
	}
	for _, f := range r.Findings {
		r.writeFinding(b, f)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(b)
	}
	fmt.Fprintf(b, "audit: %s\n", r.summary())
	return b.Flush()
}

// writeGaps tells of the essential hooks that are missing, once for each reason.
func writeGaps(w io.Writer, missing []Missing) {
	var reasons []string
	hooks, rules := map[string][]string{}, map[string][]string{}
	for _, m := range missing {
		if !m.Essential {
			continue
		}
		if hooks[m.Reason] == nil {
			reasons = append(reasons, m.Reason)
		}
		hooks[m.Reason] = append(hooks[m.Reason], m.Hook)
		for _, rule := range m.Rules {
			if !slices.Contains(rules[m.Reason], rule) {
				rules[m.Reason] = append(rules[m.Reason], rule)
			}
		}
	}
	for _, reason := range reasons {
		for i, line := range wrap(fmt.Sprintf("%s: %s; rules in doubt: %s",
			strings.Join(hooks[reason], ", "), reason, strings.Join(rules[reason], ", ")), 85) {
			label := "NOT WATCHED"
			if i > 0 {
				label = ""
			}
			fmt.Fprintf(w, "  %-11s  %s\n", label, line)
		}
	}
}

func (r Report) summary() string {
	switch r.Verdict {
	case VerdictClean:
		return "clean: every page released, every written page marked, every request completed once"
	case VerdictIncomplete:
		return "incomplete: no rule is proven broken, but not everything was seen"
	}
	var rules []string
	for _, f := range r.Findings {
		if f.Severity != SeverityAdvice && !slices.Contains(rules, f.Rule) {
			rules = append(rules, f.Rule)
		}
	}
	return fmt.Sprintf("violations: %d finding(s): %s", len(r.Findings), strings.Join(rules, ", "))
}

func (r Report) writeFinding(b io.Writer, f Finding) {
	where := f.Function
	if f.Module != "" {
		where += " [" + f.Module + "]"
	}
	if f.File != "" {
		where += fmt.Sprintf(" %s:%d", f.File, f.Line)
	}
	fmt.Fprintf(b, "\n%s: %s in %s\n", f.Severity, f.Rule, where)
	fmt.Fprintf(b, "  %d time(s), %d page(s), process %d (%s)\n", f.Count, f.Pages, f.PID, f.Comm)
	for _, line := range wrap(f.Explain, 92) {
		fmt.Fprintf(b, "  %s\n", line)
	}
	for i, line := range f.Stack {
		if i == stackLines {
			fmt.Fprintf(b, "    ... %d more\n", len(f.Stack)-i)
			break
		}
		fmt.Fprintf(b, "    %s\n", line)
	}
}

func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
