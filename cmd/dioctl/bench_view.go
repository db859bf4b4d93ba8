// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"dio/bench"
)

// benchView is what was measured now.
type benchView struct {
	reports   []bench.Report
	crossover bool
}

// benchReport is a report as JSON shows it.
type benchReport struct {
	bench.Report
	Crossovers []bench.Crossover `json:"crossover,omitempty"`
}

func (v *benchView) anything() bool {
	for _, r := range v.reports {
		for _, res := range r.Results {
			if res.Figures != nil {
				return true
			}
		}
	}
	return false
}

// json writes one object a target.
func (v *benchView) json(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	for _, r := range v.reports {
		out := benchReport{Report: r}
		if v.crossover {
			out.Crossovers = bench.Crossovers(r.Results)
		}
		if err := enc.Encode(out); err != nil {
			return err
		}
	}
	return nil
}

func (v *benchView) text(w io.Writer) {
	first := v.reports[0]
	fmt.Fprintf(w, "kernel %s; %s\n\n", first.Kernel, clockWords(first.Clock))
	unit := first.Clock.Unit()
	busy := v.has(func(r bench.Result) bool { return r.BusyNSPerOp != nil })
	spread := v.has(func(r bench.Result) bool { return r.Repeats > 1 })
	head := "TARGET\tENGINE\tMODE\tRW\tBLOCK\tDEPTH\tOPS/S\tBYTES/S\t" + unit + "/OP"
	if busy {
		head += "\t" + unit + "/OP, ALL"
	}
	if spread {
		head += "\tSPREAD"
	}
	head += "\tP50\tP99\tMAX\tCPU/OP\tCALLS/OP\tFAULTS/OP\tSWITCHES/OP\tCACHED"
	rows := []string{strings.ToUpper(head)}
	var missing []string
	for _, r := range v.reports {
		for _, res := range r.Results {
			if res.Figures != nil {
				rows = append(rows, benchRow(&r, res, busy, spread))
				continue
			}
			if line := fmt.Sprintf("%s\t%s\t%s", r.Name(), res.Engine, res.Unavailable); !contains(missing, line) {
				missing = append(missing, line)
			}
		}
	}
	if len(rows) > 1 {
		table(w, rows...)
	}
	if len(missing) > 0 {
		fmt.Fprintln(w, "\nnot measured:")
		table(w, missing...)
	}
	v.remarks(w)
}

func (v *benchView) has(what func(bench.Result) bool) bool {
	for _, r := range v.reports {
		for _, res := range r.Results {
			if res.Figures != nil && what(res) {
				return true
			}
		}
	}
	return false
}

// clockWords say what the times are.
func clockWords(c bench.Clock) string {
	if c == bench.ClockInstructions {
		return "clock: instructions (an operation's, and all times; caches and real devices count for nothing)"
	}
	return fmt.Sprintf("clock: %s, times in nanoseconds", c)
}

func benchRow(r *bench.Report, res bench.Result, busy, spread bool) string {
	cells := []string{r.Name(), res.Engine, res.Variant, string(res.RW), formatSize(int64(res.BlockSize)), fmt.Sprint(res.Depth),
		fmt.Sprintf("%.0f", res.IOPS), formatSize(int64(res.BytesPerSecond)), fmt.Sprintf("%.0f", res.NSPerOp)}
	if busy {
		cells = append(cells, optional(res.BusyNSPerOp, "%.0f"))
	}
	if spread {
		cells = append(cells, fmt.Sprintf("%.1f %%", 100*res.Spread))
	}
	cached := "-"
	if res.CacheBytesLeft != nil {
		cached = formatSize(*res.CacheBytesLeft)
	}
	l := res.Latency
	cells = append(cells, fmt.Sprint(l.P50), fmt.Sprint(l.P99), fmt.Sprint(l.Max), fmt.Sprintf("%.0f", res.CPUNSPerOp), optional(res.SyscallsPerOp, "%.3f"),
		fmt.Sprintf("%.3f", res.MinorFaultsPerOp+res.MajorFaultsPerOp), fmt.Sprintf("%.3f", res.ContextSwitchesPerOp), cached)
	return strings.Join(cells, "\t")
}

func optional(v *float64, format string) string {
	if v == nil {
		return "?"
	}
	return fmt.Sprintf(format, *v)
}

// remarks are the notes and where direct wins.
func (v *benchView) remarks(w io.Writer) {
	var notes []string
	for _, r := range v.reports {
		for _, res := range r.Results {
			for _, n := range res.Notes {
				if line := fmt.Sprintf("note: %s by %s: %s", r.Name(), res.Engine, n); !contains(notes, line) {
					notes = append(notes, line)
				}
			}
		}
		if !v.crossover {
			continue
		}
		for _, x := range bench.Crossovers(r.Results) {
			line := fmt.Sprintf("%s, %s by %s: O_DIRECT wins from %s on", r.Name(), x.RW, x.Engine, formatSize(int64(x.From)))
			if x.From == 0 {
				line = fmt.Sprintf("%s, %s by %s: copying wins at every size that was tried", r.Name(), x.RW, x.Engine)
			}
			notes = append(notes, line)
		}
	}
	if len(notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range notes {
		fmt.Fprintln(w, n)
	}
}

// benchMatrix is saved reports side by side.
type benchMatrix struct {
	Schema  string         `json:"schema"`
	Reports []bench.Report `json:"reports"`
	Goals   []bench.Goal   `json:"goals,omitempty"`
}

// matrixKey is a table: what all its cells have in common.
type matrixKey struct {
	clock bench.Clock
	rw    bench.RW
	block int
}

// matrix is one table of costs: targets down, engines across.
type matrix struct {
	key           matrixKey
	rows, columns []string
	cells         map[[2]string]string
}

func (v *benchMatrix) tables() []*matrix {
	var all []*matrix
	at := map[matrixKey]*matrix{}
	for i := range v.Reports {
		r := &v.Reports[i]
		for _, res := range r.Results {
			key := matrixKey{r.Clock, res.RW, res.BlockSize}
			m := at[key]
			if m == nil {
				m = &matrix{key: key, cells: map[[2]string]string{}}
				at[key], all = m, append(all, m)
			}
			column := fmt.Sprintf("%s@%d", res.Engine, res.Depth)
			if res.Variant == "buffered" {
				column = fmt.Sprintf("%s+%s@%d", res.Engine, res.Variant, res.Depth)
			}
			if res.Figures == nil {
				if !contains(m.columns, column) {
					continue // an engine that nobody could use here
				}
				m.cells[[2]string{r.Name(), column}] = "-"
			} else {
				m.cells[[2]string{r.Name(), column}] = fmt.Sprintf("%.0f", res.Cost())
			}
			if !contains(m.rows, r.Name()) {
				m.rows = append(m.rows, r.Name())
			}
			if !contains(m.columns, column) {
				m.columns = append(m.columns, column)
			}
		}
	}
	return all
}

func (v *benchMatrix) text(w io.Writer) {
	for _, m := range v.tables() {
		if len(m.rows) == 0 {
			continue
		}
		unit := "nanoseconds, " + string(m.key.clock)
		if m.key.clock == bench.ClockInstructions {
			unit = "instructions"
		}
		fmt.Fprintf(w, "%s of %s, per operation; clock: %s\n", m.key.rw, formatSize(int64(m.key.block)), unit)
		rows := []string{"\t" + strings.Join(m.columns, "\t")}
		for _, name := range m.rows {
			row := name
			for _, column := range m.columns {
				cell := m.cells[[2]string{name, column}]
				if cell == "" {
					cell = "-"
				}
				row += "\t" + cell
			}
			rows = append(rows, row)
		}
		table(w, rows...)
		fmt.Fprintln(w)
	}
	if len(v.Goals) == 0 {
		return
	}
	rows := []string{"GOAL\tMEASURED\tWANTED\t"}
	for _, g := range v.Goals {
		rows = append(rows, goalRow(g))
	}
	table(w, rows...)
}

func goalRow(g bench.Goal) string {
	wanted, measured := fmt.Sprintf("%.0f", g.Limit), fmt.Sprintf("%.0f", g.Measured)
	if g.Against != "" {
		wanted, measured = fmt.Sprintf("%.2f of %s", g.Limit, g.Against), fmt.Sprintf("%.3f", g.Measured)
	}
	verdict := "met"
	switch {
	case g.Missing != "":
		measured, verdict = "-", "NOT MEASURED: "+g.Missing
	case !g.Met:
		verdict = "ABOVE"
	}
	return strings.Join([]string{g.Key, measured, wanted, verdict}, "\t")
}
