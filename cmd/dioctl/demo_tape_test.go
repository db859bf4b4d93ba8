// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"strings"
	"testing"
	"time"
)

// tapeRuns are runs as a tape gives them: by depth, stalls and milliseconds.
func tapeRuns(runs ...[3]int) []tapeRun {
	var v []tapeRun
	for _, r := range runs {
		elapsed := time.Duration(r[2]) * time.Millisecond
		v = append(v, tapeRun{Engine: "aio", Depth: r[0], Requests: tapeBlocks, Bytes: demoSize, ElapsedNS: int64(elapsed),
			Rate: demoSize / elapsed.Seconds(), Stalls: uint64(r[1]), Seeks: 1})
	}
	return v
}

// failed are the checks that didn't hold.
func failed(checks []checkView) (what []string) {
	for _, c := range checks {
		if !c.Held {
			what = append(what, c.What)
		}
	}
	return what
}

func TestJudgeTapeOne(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*tapeRun)
		says   string
	}{
		"as it is":             {func(*tapeRun) {}, ""},
		"one didn't stall":     {func(r *tapeRun) { r.Stalls-- }, "run dry"},
		"a block went missing": {func(r *tapeRun) { r.Bytes -= tapeBlock }, "were written"},
		"a seek on the way":    {func(r *tapeRun) { r.Seeks = 2 }, "one behind the other"},
		"it streamed":          {func(r *tapeRun) { r.Rate = float64(tapeBandwidth) }, "tape's speed"},
	} {
		r := tapeRuns([3]int{1, tapeBlocks - 1, 760})[0]
		c.change(&r)
		got := strings.Join(failed(judgeTapeOne(r)), "; ")
		if c.says == "" && got != "" || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q failed, want %q", name, got, c.says)
		}
	}
}

func TestJudgeTapeDepths(t *testing.T) {
	one := [3]int{1, tapeBlocks - 1, 760}
	for name, c := range map[string]struct {
		runs []tapeRun
		says string
	}{
		"as it is":                      {tapeRuns(one, [3]int{2, 4, 360}, [3]int{4, 2, 260}, [3]int{8, 0, 190}), ""},
		"4 is enough":                   {tapeRuns(one, [3]int{2, 4, 360}, [3]int{4, 0, 190}, [3]int{8, 0, 191}), ""},
		"hardly ever":                   {tapeRuns(one, [3]int{2, 4, 360}, [3]int{4, 2, 260}, [3]int{8, 2, 262}), ""},
		"more stalls with more":         {tapeRuns(one, [3]int{2, 2, 360}, [3]int{4, 4, 260}, [3]int{8, 0, 190}), "less often"},
		"slower with more":              {tapeRuns(one, [3]int{2, 4, 260}, [3]int{4, 2, 360}, [3]int{8, 0, 190}), "was faster"},
		"2 as slow as 1":                {tapeRuns(one, [3]int{2, 15, 770}, [3]int{4, 2, 360}, [3]int{8, 0, 190}), "was faster"},
		"the deepest stalls":            {tapeRuns(one, [3]int{2, 4, 360}, [3]int{4, 4, 350}, [3]int{8, 4, 340}), "hardly ever"},
		"not worth it":                  {tapeRuns(one, [3]int{2, 4, 700}, [3]int{4, 2, 600}, [3]int{8, 0, 400}), "twice as fast"},
		"the tape ignores what's to do": {tapeRuns(one, one, one, one), "hardly ever"},
	} {
		got := strings.Join(failed(judgeTapeDepths(c.runs)), "; ")
		if c.says == "" && got != "" || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q failed, want %q", name, got, c.says)
		}
	}
	short := tapeRuns(one, [3]int{8, 0, 190})
	short[1].Bytes = 0
	if got := failed(judgeTapeDepths(short)); len(got) != 1 || !strings.Contains(got[0], "all 16 blocks") {
		t.Errorf("a run without bytes: %q", got)
	}
}

// The program keeps up with the tape on average, yet not block by block: else
// depth would be of no use, or of no help.
func TestThinkTime(t *testing.T) {
	var sum, longest time.Duration
	for i := range len(tapeThink) {
		sum += thinkTime(i)
		longest = max(longest, thinkTime(i))
	}
	if mean := sum / time.Duration(len(tapeThink)); mean >= tapeBlockTime || longest < 3*tapeBlockTime || longest > 6*tapeBlockTime {
		t.Errorf("%v on average, %v at most; the tape takes %v for a block", mean, longest, tapeBlockTime)
	}
	if len(tapeThink) > tapeBlocks || tapeElsewhere > tapeBlocks {
		t.Error("the tour has too few blocks")
	}
}
