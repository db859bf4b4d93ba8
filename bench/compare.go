// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ReadReports reads reports, one JSON object after the other.
func ReadReports(r io.Reader) ([]Report, error) {
	var reports []Report
	for dec := json.NewDecoder(r); ; {
		var one Report
		err := dec.Decode(&one)
		if errors.Is(err, io.EOF) {
			return reports, nil
		}
		if err == nil && one.Schema != Schema {
			err = fmt.Errorf("schema %q, want %q", one.Schema, Schema)
		}
		if err != nil {
			return nil, fmt.Errorf("report %d: %w", len(reports)+1, err)
		}
		reports = append(reports, one)
	}
}

// Key names a cell of a report: NAME/ENGINE/RW/BLOCK/DEPTH, with the engine's
// variant behind it where that isn't direct: ENGINE+buffered.
func Key(r *Report, c Cell) string {
	name := c.Engine
	if c.Variant != "direct" && c.Variant != "" {
		name += "+" + c.Variant
	}
	return fmt.Sprintf("%s/%s/%s/%s/%d", r.Name(), name, c.RW, shortSize(c.BlockSize), c.Depth)
}

// shortSize is 4k, 1M, 512.
func shortSize(n int) string {
	switch {
	case n > 0 && n%(1<<20) == 0:
		return fmt.Sprintf("%dM", n>>20)
	case n > 0 && n%(1<<10) == 0:
		return fmt.Sprintf("%dk", n>>10)
	}
	return strconv.Itoa(n)
}

// Cost is what an operation of a result costs: of the whole machine where that
// was counted, else by the clock.
func (r *Result) Cost() float64 {
	switch {
	case r.Figures == nil:
		return math.NaN()
	case r.BusyNSPerOp != nil:
		return *r.BusyNSPerOp
	}
	return r.NSPerOp
}

// Goal bounds the cost of a cell, absolutely or by another cell's.
type Goal struct {
	Key     string  `json:"key"`
	Limit   float64 `json:"limit"`             // nanoseconds, or times Against's
	Against string  `json:"against,omitempty"` // a key

	Measured float64 `json:"measured"` // the cost, or its ratio to Against's; 0 when Missing
	Met      bool    `json:"met"`
	Missing  string  `json:"missing,omitempty"` // why there is nothing to compare
}

// ParseGoals reads goals, one a line: `KEY <= NUMBER` or `KEY <= NUMBER * KEY`.
// What follows a # is a remark.
func ParseGoals(r io.Reader) ([]Goal, error) {
	var goals []Goal
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		g := Goal{Key: w[0]}
		ok := len(w) == 3 && w[1] == "<=" || len(w) == 5 && w[1] == "<=" && w[3] == "*"
		if ok {
			var err error
			g.Limit, err = strconv.ParseFloat(w[2], 64)
			ok = err == nil && g.Limit > 0
		}
		if !ok {
			return nil, fmt.Errorf("line %d: %q: want KEY <= NUMBER, or KEY <= NUMBER * KEY", n, strings.TrimSpace(line))
		}
		if len(w) == 5 {
			g.Against = w[4]
		}
		goals = append(goals, g)
	}
	return goals, sc.Err()
}

// Judge holds the goals against what was measured; true when all are met. A
// goal whose cells weren't measured isn't met.
func Judge(goals []Goal, reports []Report) bool {
	all := true
	for i := range goals {
		g := &goals[i]
		cost, why := find(reports, g.Key)
		limit := g.Limit
		if g.Against != "" && why == "" {
			var base float64
			base, why = find(reports, g.Against)
			cost /= base
		}
		g.Missing = why
		if why == "" {
			g.Measured, g.Met = cost, cost <= limit
		}
		all = all && g.Met
	}
	return all
}

// find is the cost of the last cell of that key, or why there is none.
func find(reports []Report, key string) (float64, string) {
	cost, why := math.NaN(), "wasn't measured"
	for i := range reports {
		for _, res := range reports[i].Results {
			if Key(&reports[i], res.Cell) != key {
				continue
			}
			if res.Figures == nil {
				cost, why = math.NaN(), res.Unavailable
			} else {
				cost, why = res.Cost(), ""
			}
		}
	}
	return cost, why
}

// Merge makes one result of repeats of it: the cheapest, for what else goes on
// in a machine only ever adds; with how far they lie apart. An unavailable one
// speaks for all.
func Merge(repeats []Result) Result {
	for _, r := range repeats {
		if r.Figures == nil {
			return r
		}
	}
	if len(repeats) == 1 {
		return repeats[0]
	}
	best := slices.MinFunc(repeats, func(a, b Result) int { return cmp.Compare(a.Cost(), b.Cost()) })
	costs := make([]float64, len(repeats))
	for i := range repeats {
		costs[i] = repeats[i].Cost()
	}
	slices.Sort(costs)
	f := *best.Figures
	f.Repeats = len(repeats)
	f.Spread = (costs[len(costs)/2] - costs[0]) / costs[0]
	best.Figures = &f
	return best
}

// Crossover is the block size from which O_DIRECT costs no more than copying,
// for an engine and direction: the least size of which that holds, and of all
// larger ones. 0: it never does.
type Crossover struct {
	Engine string `json:"engine"`
	RW     RW     `json:"rw"`
	From   int    `json:"direct_wins_from"` // bytes
	Sizes  int    `json:"sizes"`            // how many sizes were compared
}

// Crossovers finds them among results that have both variants.
func Crossovers(results []Result) []Crossover {
	type side struct{ direct, buffered float64 }
	type pair struct {
		engine string
		rw     RW
	}
	sides := map[pair]map[int]side{}
	var order []pair
	for _, r := range results {
		if r.Figures == nil {
			continue
		}
		p := pair{r.Engine, r.RW}
		if sides[p] == nil {
			sides[p] = map[int]side{}
			order = append(order, p)
		}
		s := sides[p][r.BlockSize]
		switch r.Variant {
		case "direct":
			s.direct = r.Cost()
		case "buffered":
			s.buffered = r.Cost()
		}
		sides[p][r.BlockSize] = s
	}
	var found []Crossover
	for _, p := range order {
		var sizes []int
		for size, s := range sides[p] {
			if s.direct > 0 && s.buffered > 0 {
				sizes = append(sizes, size)
			}
		}
		slices.Sort(sizes)
		c := Crossover{Engine: p.engine, RW: p.rw, Sizes: len(sizes)}
		for _, size := range slices.Backward(sizes) {
			if s := sides[p][size]; s.direct > s.buffered {
				break
			}
			c.From = size
		}
		if len(sizes) > 0 {
			found = append(found, c)
		}
	}
	return found
}
