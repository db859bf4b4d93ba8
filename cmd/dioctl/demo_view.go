// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"strings"
)

// demoView is the result of demo.
type demoView struct {
	Schema   string     `json:"schema"`
	Kernel   string     `json:"kernel"`
	Device   string     `json:"device"`
	Capacity uint64     `json:"capacity"`
	Tours    []tourView `json:"tours"`
	Lost     uint64     `json:"lost_events"`
	Checks   int        `json:"checks"`
	Held     int        `json:"held"`
}

type tourView struct {
	Name  string     `json:"name"`
	Title string     `json:"title"`
	Steps []stepView `json:"steps"`
	// Faults sums the tour of faults up.
	Faults []faultProof `json:"faults,omitempty"`
	// Tape has the runs of the tour of the tape.
	Tape []tapeRun `json:"tape,omitempty"`
}

type stepView struct {
	Title  string      `json:"title"`
	Rows   []rowView   `json:"rows,omitempty"`
	Lines  []string    `json:"lines,omitempty"`
	Checks []checkView `json:"checks"`
}

// rowView sets the book's word beside today's and what was seen of it.
type rowView struct {
	Book  string `json:"book"`
	Today string `json:"today"`
	Seen  string `json:"seen"`
}

type checkView struct {
	What string `json:"what"`
	Held bool   `json:"held"`
}

// step adds a step to the tour at hand.
func (d *demo) step(title string) *stepView {
	d.tour.Steps = append(d.tour.Steps, stepView{Title: title, Checks: []checkView{}})
	return &d.tour.Steps[len(d.tour.Steps)-1]
}

func (s *stepView) row(book, today, seenFormat string, args ...any) {
	s.Rows = append(s.Rows, rowView{book, today, fmt.Sprintf(seenFormat, args...)})
}

func (s *stepView) line(format string, args ...any) {
	s.Lines = append(s.Lines, fmt.Sprintf(format, args...))
}

func (s *stepView) check(held bool, format string, args ...any) {
	s.Checks = append(s.Checks, checkView{fmt.Sprintf(format, args...), held})
}

// count sums the checks up; lost events would make every number a guess.
func (v *demoView) count(lost uint64) {
	v.Lost = lost
	for _, t := range v.Tours {
		for _, s := range t.Steps {
			for _, c := range s.Checks {
				v.Checks++
				if c.Held {
					v.Held++
				}
			}
		}
	}
	v.Checks++
	if lost == 0 {
		v.Held++
	}
}

func (v *demoView) text(w io.Writer) {
	fmt.Fprintf(w, "Linux %s, %s of %s\n", v.Kernel, v.Device, formatSize(int64(v.Capacity)))
	for _, t := range v.Tours {
		fmt.Fprintf(w, "\n%s: %s\n%s\n", strings.ToUpper(t.Name), t.Title, strings.Repeat("=", len(t.Name)+2+len(t.Title)))
		for i, s := range t.Steps {
			fmt.Fprintf(w, "\n%d. %s\n", i+1, s.Title)
			s.text(w)
		}
		proofTable(w, t.Faults)
	}
	fmt.Fprintln(w)
	if v.Lost > 0 {
		fmt.Fprintf(w, "FAILED  %d trace events were lost: the numbers above can't be trusted\n", v.Lost)
	}
	if v.Held == v.Checks {
		fmt.Fprintf(w, "All %d checks held.\n", v.Checks)
	} else {
		fmt.Fprintf(w, "%d of %d checks held; look for FAILED above.\n", v.Held, v.Checks)
	}
}

func (s *stepView) text(w io.Writer) {
	if len(s.Rows) > 0 {
		fmt.Fprintf(w, "   %-20s %-38s %s\n", "the book", "today", "seen")
		for _, r := range s.Rows {
			fmt.Fprintf(w, "   %-20s %-38s %s\n", r.Book, r.Today, r.Seen)
		}
	}
	for _, l := range s.Lines {
		fmt.Fprintf(w, "   %s\n", l)
	}
	for _, c := range s.Checks {
		mark := "ok"
		if !c.Held {
			mark = "FAILED"
		}
		fmt.Fprintf(w, "   %-7s%s\n", mark, c.What)
	}
}
