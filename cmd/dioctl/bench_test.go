// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dio/bench"
)

func TestBenchUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"", "want a device or file"},
		{"--engine teleport FILE", "unknown engine"},
		{"--rw sideways FILE", "read, write, randread or randwrite"},
		{"--block-size 4x FILE", "such as 4k,64k,1M"},
		{"--block-size 4k,0 FILE", "such as 4k,64k,1M"},
		{"--depth 1,0 FILE", "such as 1,32"},
		{"--batch some FILE", "--batch"},
		{"--submit 0 FILE", "--submit"},
		{"--direct maybe FILE", "on, off or auto"},
		{"--ops 0 FILE", "out of range"},
		{"--ops 5 --duration 1s FILE", "don't go together"},
		{"--duration 0s FILE", "out of range"},
		{"--repeat 0 FILE", "out of range"},
		{"--clock sun FILE", "auto, real or instructions"},
		{"--crossover --direct on FILE", "leave it out"},
		{"--rw write FILE", "--overwrite"},
		{"--rw read,randwrite FILE", "--overwrite"},
		{"--goals x FILE", "--load"},
		{"--load", "wants files"},
		{"--format xml FILE", "text or json"},
	} {
		args := append([]string{"bench"}, strings.Fields(strings.ReplaceAll(c.args, "FILE", file))...)
		status, _, msg := dioctl(t, args...)
		if status != exitUsage || !strings.Contains(msg, c.says) {
			t.Errorf("dioctl bench %s: status %d, %q; want %d and %q", c.args, status, msg, exitUsage, c.says)
		}
	}
}

func TestBenchMakesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	status, _, msg := dioctl(t, "bench", path)
	if status != exitEnvironment || !strings.Contains(msg, "--size") {
		t.Errorf("status %d, %q", status, msg)
	}
	status, out, msg := dioctl(t, "bench", "--rw", "write", "--engine", "psync,ioctl", "--size", "64k", "--depth", "1", "--ops", "20", "--format", "json", "mine="+path)
	var r benchReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != exitGood {
		t.Fatal(status, err, msg)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file that it made is still there:", err)
	}
	if r.Schema != bench.Schema || r.Label != "mine" || r.Target != path || r.Kernel == "" || r.Clock == "" || len(r.Results) != 2 {
		t.Fatalf("%+v", r)
	}
	if f := r.Results[0].Figures; f == nil || f.Ops != 20 || *f.SyscallsPerOp != 1 {
		t.Errorf("%+v", r.Results[0])
	}
	if r.Results[1].Figures != nil || !strings.Contains(r.Results[1].Unavailable, "not a dio device") {
		t.Errorf("%+v", r.Results[1])
	}
	// Nothing at all is an error, with the reasons on the output.
	status, out, msg = dioctl(t, "bench", "--engine", "ioctl", "--size", "4k", path)
	if status != exitEnvironment || !strings.Contains(out, "not a dio device") || !strings.Contains(msg, "nothing could be measured") {
		t.Errorf("status %d, %q, %q", status, out, msg)
	}
}

func TestParseBenchTarget(t *testing.T) {
	for s, want := range map[string]benchTarget{
		"/dev/ram0":        {"", "/dev/ram0"},
		"brd=/dev/ram0":    {"brd", "/dev/ram0"},
		"/tmp/a=b":         {"", "/tmp/a=b"},
		"=x":               {"", "=x"},
		"x=":               {"", "x="},
		"new disk=./a=b/c": {"new disk", "./a=b/c"},
	} {
		if got := parseBenchTarget(s); got != want {
			t.Errorf("%q: %+v, want %+v", s, got, want)
		}
	}
}

// sampleReports have everything that a table can show.
func sampleReports() []bench.Report {
	calls, none, left := 1.0, 0.0625, int64(4<<20)
	busy := 1234.5
	cell := func(engine, variant string, depth int) bench.Cell {
		return bench.Cell{Engine: engine, Variant: variant, RW: bench.Read, BlockSize: 4096, Depth: depth}
	}
	return []bench.Report{
		{Schema: bench.Schema, Target: "/dev/dio0", Label: "null", Kernel: "6.12", Clock: bench.ClockInstructions, Results: []bench.Result{
			{Cell: cell("psync", "direct", 1), Figures: &bench.Figures{Ops: 20000, ElapsedNS: 40e6, NSPerOp: 2000, IOPS: 5e5, BytesPerSecond: 2.048e9,
				Latency: bench.Latency{P50: 2001, P90: 2010, P99: 2100, P999: 3000, Max: 9000}, CPUNSPerOp: 1999.6, SyscallsPerOp: &calls, ContextSwitchesPerOp: 0.0012}},
			{Cell: cell("aio", "direct", 32), Figures: &bench.Figures{Ops: 20000, NSPerOp: 5000, IOPS: 2e5, SyscallsPerOp: &none, BusyNSPerOp: &busy, Spread: 0.034, Repeats: 3}},
			{Cell: cell("ioctl", "", 1), Unavailable: "it can't"},
			{Cell: cell("ioctl", "", 32), Unavailable: "it can't"},
		}},
		{Schema: bench.Schema, Target: "/tmp/file", Kernel: "6.12", Clock: bench.ClockInstructions, Results: []bench.Result{
			{Cell: cell("psync", "buffered", 1), Figures: &bench.Figures{Ops: 10, NSPerOp: 500, CacheBytesLeft: &left, MinorFaultsPerOp: 0.5, MajorFaultsPerOp: 0.25},
				Notes: []string{"a remark"}},
			{Cell: cell("psync", "direct", 1), Figures: &bench.Figures{Ops: 10, NSPerOp: 400}},
		}},
	}
}

const wantText = `kernel 6.12; clock: instructions (an operation's, and all times; caches and real devices count for nothing)

TARGET     ENGINE  MODE      RW    BLOCK  DEPTH  OPS/S   BYTES/S  INSTR/OP  INSTR/OP, ALL  SPREAD  P50   P99   MAX   CPU/OP  CALLS/OP  FAULTS/OP  SWITCHES/OP  CACHED
null       psync   direct    read  4 KiB  1      500000  1.9 GiB  2000      ?              0.0 %   2001  2100  9000  2000    1.000     0.000      0.001        -
null       aio     direct    read  4 KiB  32     200000  0 B      5000      1234           3.4 %   0     0     0     0       0.062     0.000      0.000        -
/tmp/file  psync   buffered  read  4 KiB  1      0       0 B      500       ?              0.0 %   0     0     0     0       ?         0.750      0.000        4 MiB
/tmp/file  psync   direct    read  4 KiB  1      0       0 B      400       ?              0.0 %   0     0     0     0       ?         0.000      0.000        -

not measured:
null  ioctl  it can't

note: /tmp/file by psync: a remark
/tmp/file, read by psync: O_DIRECT wins from 4 KiB on
`

func TestBenchText(t *testing.T) {
	var out bytes.Buffer
	(&benchView{reports: sampleReports(), crossover: true}).text(&out)
	if out.String() != wantText {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), wantText)
	}
}

const wantMatrix = `read of 4 KiB, per operation; clock: instructions
           psync@1  aio@32  psync+buffered@1
null       2000     1234    -
/tmp/file  400      -       500

GOAL                       MEASURED  WANTED                        
null/psync/read/4k/1       2000      1900                          ABOVE
/tmp/file/psync/read/4k/1  0.200     0.50 of null/psync/read/4k/1  met
null/ioctl/read/4k/32      -         1                             NOT MEASURED: wasn't measured
`

func TestBenchLoad(t *testing.T) {
	dir := t.TempDir()
	reports, goals := filepath.Join(dir, "reports"), filepath.Join(dir, "goals")
	var saved bytes.Buffer
	if err := (&benchView{reports: sampleReports()}).json(&saved); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(reports, saved.String())
	write(goals, "null/psync/read/4k/1 <= 1900\n/tmp/file/psync/read/4k/1 <= 0.5 * null/psync/read/4k/1\nnull/ioctl/read/4k/32 <= 1\n")
	status, out, msg := dioctl(t, "bench", "--load", "--goals", goals, reports)
	if status != exitFinding || out != strings.ReplaceAll(wantMatrix, "wasn't measured", "it can't") {
		t.Errorf("status %d, %s\ngot:\n%s", status, msg, out)
	}
	write(goals, "null/psync/read/4k/1 <= 2000\n")
	if status, out, msg = dioctl(t, "bench", "--load", "--goals", goals, reports); status != exitGood || !strings.Contains(out, "met") {
		t.Errorf("status %d, %s\n%s", status, msg, out)
	}
	write(goals, "nonsense\n")
	if status, _, msg = dioctl(t, "bench", "--load", "--goals", goals, reports); status != exitEnvironment || !strings.Contains(msg, "line 1") {
		t.Errorf("status %d, %s", status, msg)
	}
	write(reports, `{"schema":"dio.copy/1"}`)
	if status, _, msg = dioctl(t, "bench", "--load", reports); status != exitEnvironment || !strings.Contains(msg, "dio.bench/1") {
		t.Errorf("status %d, %s", status, msg)
	}
}
