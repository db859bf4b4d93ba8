// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
)

func someFigures(ns float64) *Figures { return &Figures{Ops: 1, NSPerOp: ns} }

func someResult(engine, variant string, block int, ns float64) Result {
	return Result{Cell: Cell{engine, variant, Read, block, 1}, Figures: someFigures(ns)}
}

func TestGoals(t *testing.T) {
	goals, err := ParseGoals(strings.NewReader(`
# what is wanted
null/psync/read/4k/1 <= 1900
ram/psync/read/4k/1 <= 1.0 * brd/psync/read/4k/1   # no slower
ram/psync+buffered/read/512/1 <= 10
ram/aio/read/1M/32 <= 10
`))
	if err != nil || len(goals) != 4 || goals[1].Against != "brd/psync/read/4k/1" || goals[1].Limit != 1 {
		t.Fatal(goals, err)
	}
	busy := 1901.0
	dear := someResult("psync", "direct", 4096, 100)
	dear.BusyNSPerOp = &busy
	reports := []Report{
		{Target: "/dev/dio0", Label: "null", Results: []Result{dear}},
		{Target: "/dev/dio0", Label: "ram", Results: []Result{someResult("psync", "direct", 4096, 500), someResult("psync", "buffered", 512, 10),
			{Cell: Cell{"aio", "", Read, 1 << 20, 32}, Unavailable: "no"}}},
		{Target: "brd", Results: []Result{someResult("psync", "direct", 4096, 1000)}},
	}
	if Judge(goals, reports) {
		t.Error("all goals are met")
	}
	want := []Goal{
		{Key: goals[0].Key, Limit: 1900, Measured: 1901},
		{Key: goals[1].Key, Limit: 1, Against: goals[1].Against, Measured: 0.5, Met: true},
		{Key: goals[2].Key, Limit: 10, Measured: 10, Met: true},
		{Key: goals[3].Key, Limit: 10, Missing: "no"},
	}
	if !reflect.DeepEqual(goals, want) {
		t.Errorf("%+v\nwant %+v", goals, want)
	}
	if goals = goals[:1]; Judge(goals, nil) || goals[0].Missing == "" {
		t.Errorf("nothing was measured: %+v", goals)
	}
	for _, bad := range []string{"a <= b", "a < 1", "a <= 1 * ", "a <= 1 / b", "a <= 0", "a"} {
		if g, err := ParseGoals(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, g)
		}
	}
}

func TestMerge(t *testing.T) {
	m := Merge([]Result{someResult("psync", "direct", 1, 30), someResult("psync", "direct", 1, 10), someResult("psync", "direct", 1, 20)})
	if m.NSPerOp != 10 || m.Repeats != 3 || m.Spread != 1 {
		t.Errorf("%+v", *m.Figures)
	}
	if m := Merge([]Result{someResult("psync", "direct", 1, 30)}); m.NSPerOp != 30 || m.Repeats != 0 {
		t.Errorf("%+v", *m.Figures)
	}
	if m := Merge([]Result{someResult("psync", "direct", 1, 30), {Unavailable: "gone"}}); m.Unavailable != "gone" || !math.IsNaN(m.Cost()) {
		t.Errorf("%+v", m)
	}
}

func TestCrossovers(t *testing.T) {
	var results []Result
	for _, c := range []struct {
		size             int
		direct, buffered float64
	}{{512, 10, 5}, {4096, 10, 12}, {8192, 20, 15}, {16384, 30, 30}, {65536, 40, 90}} {
		results = append(results, someResult("psync", "direct", c.size, c.direct), someResult("psync", "buffered", c.size, c.buffered))
	}
	results = append(results, someResult("aio", "direct", 512, 2), someResult("aio", "buffered", 512, 1), someResult("mmap", "mapped", 512, 1))
	want := []Crossover{{"psync", Read, 16384, 5}, {"aio", Read, 0, 1}}
	if got := Crossovers(results); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The names of the JSON are a contract.
func TestReportJSON(t *testing.T) {
	calls, left := 1.0, int64(4096)
	r := Report{Schema: Schema, Target: "/dev/x", Kernel: "6", Clock: ClockInstructions, Results: []Result{
		{Cell: Cell{"psync", "direct", Read, 4096, 1}, Figures: &Figures{Ops: 7, SyscallsPerOp: &calls, CacheBytesLeft: &left}},
		{Cell: Cell{"aio", "", Write, 512, 2}, Unavailable: "why"},
		{Cell: Cell{"mmap", "mapped", Write, 512, 2}, Figures: &Figures{Ops: 1}},
	}}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var raw struct {
		Results []map[string]any `json:"results"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"engine", "variant", "rw", "block_size", "depth", "ops", "iops", "bytes_per_second", "latency_ns", "cpu_ns_per_op",
		"syscalls_per_op", "minor_faults_per_op", "major_faults_per_op", "context_switches_per_op", "cache_bytes_left", "ns_per_op", "elapsed_ns"} {
		if _, ok := raw.Results[0][name]; !ok {
			t.Errorf("no %q in %s", name, b)
		}
	}
	for _, name := range []string{"p50", "p90", "p99", "p999", "max"} {
		if _, ok := raw.Results[0]["latency_ns"].(map[string]any)[name]; !ok {
			t.Errorf("no latency_ns.%s in %s", name, b)
		}
	}
	if raw.Results[1]["unavailable"] != "why" || raw.Results[1]["ops"] != nil {
		t.Errorf("an unavailable result: %v", raw.Results[1])
	}
	if v, ok := raw.Results[2]["syscalls_per_op"]; v != nil || !ok {
		t.Errorf("calls that nobody counted: %v", v)
	}
	back, err := ReadReports(strings.NewReader(string(b) + "\n" + string(b)))
	if err != nil || len(back) != 2 || !reflect.DeepEqual(back[1], r) {
		t.Errorf("read back: %+v, %v", back, err)
	}
	if _, err := ReadReports(strings.NewReader(`{"schema":"dio.bench/9"}`)); err == nil {
		t.Error("a report of the future was taken")
	}
}
