// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// A clean driver under every engine gives a clean verdict with nothing lost,
// and the auditor has really seen the pins.
func TestAuditClean(t *testing.T) {
	source := sourceFile(t, 1<<20)
	for _, c := range []struct {
		engine  string
		direct  bool
		depth   int
		latency string
		pins    bool // the engine pins the caller's pages
		queued  bool // requests are completed later
	}{
		{"preadv", false, 1, "0", false, false},
		{"preadv", true, 1, "0", true, false},
		{"preadv", true, 1, "2ms", true, false},
		{"mmap", false, 1, "0", false, false},
		{"aio", false, 8, "0", false, false},
		{"aio", true, 8, "0", true, false},
		{"aio", true, 8, "2ms", true, true},
		{"io_uring", false, 8, "0", false, false},
		{"io_uring", true, 8, "0", true, false},
		{"io_uring", true, 8, "2ms", true, true},
		{"io_uring-fixed", true, 8, "0", true, false},
		{"io_uring-fixed", true, 8, "2ms", true, true},
		{"io_uring-iopoll", true, 8, "0", true, false},
		{"uring_cmd", true, 8, "0", true, false},
		{"uring_cmd", true, 8, "2ms", true, true},
		{"uring_cmd-fixed", true, 8, "2ms", true, true},
		{"uring_cmd-iopoll", true, 8, "0", true, false},
		{"ioctl", false, 1, "2ms", true, false},
		{"ioctl-buffer", false, 8, "0", true, false},
		{"ioctl-buffer", false, 8, "2ms", true, false},
		{"splice", false, 1, "0", false, false},
	} {
		t.Run(fmt.Sprintf("%s/direct=%v/latency=%s", c.engine, c.direct, c.latency), func(t *testing.T) {
			if strings.HasPrefix(c.engine, "uring_cmd") && !hasCommands(t, openDevice(t)) {
				run(t, "dioctl", "read", "--engine", c.engine, "--direct", "--length", "4k", device).want(t, 3)
				return
			}
			configure(t, "--latency", c.latency)
			back := filepath.Join(t.TempDir(), "back")
			copying := fmt.Sprintf("dioctl copy --engine %s --depth %d --block-size 64k", c.engine, c.depth)
			if c.direct {
				copying += " --direct"
			}
			o, v := audit(t, "sh", "-c", fmt.Sprintf("%s %s /dev/dio0 && %s --length 1M /dev/dio0 %s", copying, source, copying, back))
			if v.Verdict != "clean" || o.status != 0 {
				t.Fatalf("verdict %s, exit %d: %s%s", v.Verdict, o.status, o.stdout, o.stderr)
			}
			if v.Lost.Events != 0 || v.Lost.UntrackedPages != 0 {
				t.Errorf("lost %+v", v.Lost)
			}
			if v.Pins.Taken != v.Pins.Released || v.Pins.Outstanding != 0 {
				t.Errorf("pins %+v", v.Pins)
			}
			if c.pins && v.Pins.Taken < 512 {
				t.Errorf("%d pins seen, 2 times 1 MiB takes 512", v.Pins.Taken)
			}
			if c.queued && (v.Completions.Queued < 32 || v.Completions.Queued != v.Completions.Completed) {
				t.Errorf("completions %+v, want 32 queued or more, all completed", v.Completions)
			}
		})
	}
}

// Each fault of the driver is named by the rule that must catch it, in the
// driver's module; with the fault cleared the same command is clean.
func TestAuditFaults(t *testing.T) {
	source := sourceFile(t, 64<<10)
	sink := filepath.Join(t.TempDir(), "sink")
	write := func(engine string) []string {
		return []string{"dioctl", "copy", "--engine", engine, "--direct", "--block-size", "16k", source, "/dev/dio0"}
	}
	read := func(engine string) []string {
		return []string{"dioctl", "copy", "--engine", engine, "--direct", "--block-size", "16k", "--length", "64k", "/dev/dio0", sink}
	}
	provoke := func(name string) []string { return []string{"dioctl", "fault", "provoke", "--offset", "1M", name} }
	type scenario struct{ config, arm, cmd []string }
	var clean []scenario
	scenarios := map[string]scenario{
		"pin-leak":        {cmd: write("preadv")},
		"over-unpin":      {cmd: write("preadv")},
		"dirty-missing":   {cmd: read("preadv")},
		"dirty-needless":  {cmd: write("preadv")},
		"early-complete":  {config: []string{"--latency", "2ms"}, cmd: read("aio")},
		"double-complete": {cmd: read("io_uring-iopoll")},
		"lost-complete":   {config: []string{"--latency", "2ms"}, cmd: read("io_uring")},
		// Without O_DIRECT: with it the kernel reads past the driver's splice_read.
		"sync-as-async": {cmd: []string{"dioctl", "copy", "--engine", "splice", "--length", "64k", "/dev/dio0", sink}},

		"zero-page-pin":    {config: []string{"--family", "get"}, cmd: provoke("zero-page-pin")},
		"dirty-unlocked":   {cmd: provoke("dirty-unlocked")},
		"dirty-late":       {cmd: read("preadv")},
		"result-range":     {config: []string{"--latency", "2ms"}, cmd: read("aio")},
		"length-overflow":  {cmd: write("preadv")},
		"cancel-fn-misuse": {config: []string{"--latency", "2ms"}, cmd: read("io_uring")},
		// Longer than a request is waited for, and the audit is still there when it ends.
		"longterm-missing": {arm: []string{"--hold", "3500ms"}, cmd: []string{"sh", "-c", "'" + strings.Join(write("preadv"), " ") + "; sleep 5'"}},
	}

	listed := decode[struct {
		Faults []struct {
			Name    string `json:"name"`
			Rule    string `json:"rule"`
			Audited bool   `json:"audited"`
			SeenBy  string `json:"seen_by"`
		} `json:"faults"`
	}](t, mustRun(t, "dioctl", "fault", "list", "--format", "json"))
	if len(listed.Faults) == 0 {
		t.Fatal("fault list is empty")
	}
	for _, f := range listed.Faults {
		if !f.Audited {
			if f.SeenBy == "" {
				t.Errorf("%s has no rule, and nothing says what shows it", f.Name)
			}
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			s, ok := scenarios[f.Name]
			if !ok {
				t.Fatalf("no scenario proves rule %s: write one", f.Rule)
			}
			configure(t, append([]string{"--family", "pin"}, s.config...)...)
			mustRun(t, slices.Concat([]string{"dioctl", "fault", "arm", "--count", "1"}, s.arm, []string{f.Name})...)
			o, v := audit(t, "sh", "-c", strings.Join(s.cmd, " "))
			mustRun(t, "dioctl", "fault", "clear", f.Name)
			if o.status != 1 || v.Verdict != "violations" {
				t.Errorf("exit %d, verdict %q, want 1, violations\n%s%s", o.status, v.Verdict, o.stdout, o.stderr)
			}
			if rules := v.rules(); !slices.Equal(rules, []string{f.Rule}) {
				t.Errorf("rules %v, want just %s\n%s", rules, f.Rule, o.stdout)
			}
			for _, finding := range v.Findings {
				if finding.Module != "dio" || len(finding.Stack) == 0 || finding.Explain == "" ||
					finding.File == "" || finding.Line == 0 {
					t.Errorf("finding doesn't lead to a line of the driver: %+v", finding)
				}
			}
		})
		clean = append(clean, scenarios[f.Name])
	}

	// Pages that the faults put aside were given back by now. One audit does for
	// all: on old kernels its programs take long to attach.
	var script []string
	for _, s := range clean {
		set := append([]string{"dioctl", "config", "set", "--family", "pin", "--latency", "0"}, s.config...)
		script = append(script, strings.Join(set, " ")+" >/dev/null", "("+strings.Join(s.cmd, " ")+")")
	}
	configure(t)
	if o, v := auditFor(t, 2*commandLimit, "sh", "-c", strings.Join(script, " && ")); o.status != 0 || v.Verdict != "clean" || v.Pins.Taken < 16*8 {
		t.Errorf("all cleared: exit %d, verdict %q, %d pins taken\n%s%s", o.status, v.Verdict, v.Pins.Taken, o.stdout, o.stderr)
	}
}

// A command of io_uring has no kiocb; its faults are named all the same.
func TestAuditCommandFaults(t *testing.T) {
	if !hasCommands(t, openDevice(t)) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	read := []string{"dioctl", "read", "--discard", "--direct", "--engine", "uring_cmd", "--block-size", "16k", "--length", "64k", device}
	configure(t, "--latency", "2ms")
	for _, fault := range []string{"lost-complete", "pin-leak", "dirty-missing"} {
		mustRun(t, "dioctl", "fault", "arm", "--count", "1", fault)
		o, v := audit(t, read...)
		mustRun(t, "dioctl", "fault", "clear", fault)
		if o.status != 1 || v.Verdict != "violations" || !slices.Equal(v.rules(), []string{fault}) {
			t.Errorf("%s: exit %d, verdict %q, rules %v\n%s%s", fault, o.status, v.Verdict, v.rules(), o.stdout, o.stderr)
		}
		for _, f := range v.Findings {
			if f.Module != "dio" || f.Count != 1 || f.Explain == "" || f.File == "" || f.Line == 0 {
				t.Errorf("%s: the finding doesn't lead to a line of the driver: %+v", fault, f)
			}
		}
	}
	if o, v := audit(t, read...); o.status != 0 || v.Verdict != "clean" || v.Completions.Queued < 4 || v.Completions.Queued != v.Completions.Completed {
		t.Errorf("cleared: exit %d, %+v\n%s%s", o.status, v, o.stdout, o.stderr)
	}
}

// The releases of the classic family can't be seen; that pages are freed in
// the end can, also those of huge pages, and one that isn't was leaked.
func TestAuditGetFamily(t *testing.T) {
	source := sourceFile(t, 8<<20)
	configure(t, "--family", "get")
	huge := "/sys/kernel/mm/transparent_hugepage/enabled"
	write := func(engine, size string) []string {
		return []string{"dioctl", "copy", "--engine", engine, "--direct", "--block-size", size, source, "/dev/dio0"}
	}
	for _, c := range []struct{ engine, size string }{{"preadv", "4M"}, {"aio", "64k"}} {
		mustRun(t, "sh", "-c", "echo always > "+huge)
		o, v := audit(t, write(c.engine, c.size)...)
		if o.status != 0 || v.Verdict != "clean" {
			t.Errorf("%s: exit %d, verdict %q\n%s%s", c.engine, o.status, v.Verdict, o.stdout, o.stderr)
		}
	}
	mustRun(t, "dioctl", "fault", "arm", "--count", "1", "pin-leak")
	o, v := audit(t, write("preadv", "64k")...)
	mustRun(t, "dioctl", "fault", "clear", "pin-leak")
	if o.status != 1 || !slices.Equal(v.rules(), []string{"pin-leak"}) {
		t.Fatalf("exit %d, rules %v, want 1, pin-leak\n%s%s", o.status, v.rules(), o.stdout, o.stderr)
	}
	if f := v.Findings[0]; f.Module != "dio" || f.Line == 0 {
		t.Errorf("finding doesn't lead to a line of the driver: %+v", f)
	}
}

// A process that runs already, and the whole machine for a time.
func TestAuditWatch(t *testing.T) {
	source := sourceFile(t, 64<<10)
	// Each goes to work only after the auditor, which takes its time, is there.
	leaking := "dioctl copy --engine preadv --direct --block-size 16k " + source + " /dev/dio0 >/dev/null 2>&1"
	for name, script := range map[string]string{
		"pid":      "(while [ ! -e GO ]; do sleep 1; done; " + leaking + ") & dioctl audit --format json --ready GO --pid $!",
		"duration": "(while [ ! -e GO ]; do sleep 1; done; " + leaking + ") & dioctl audit --format json --ready GO --duration 10s",
	} {
		t.Run(name, func(t *testing.T) {
			configure(t, "--family", "pin")
			mustRun(t, "dioctl", "fault", "arm", "--count", "1", "pin-leak")
			o := run(t, "sh", "-c", strings.ReplaceAll(script, "GO", filepath.Join(t.TempDir(), "go")))
			mustRun(t, "dioctl", "fault", "clear", "pin-leak")
			v := verdictOf(t, o)
			if o.status != 1 || !slices.Equal(v.rules(), []string{"pin-leak"}) {
				t.Errorf("exit %d, rules %v, want 1, pin-leak\n%s%s", o.status, v.rules(), o.stdout, o.stderr)
			}
		})
	}
}

// Requests that share a page, and end in another order than they came: of one
// sector each in one page, the first of which take longest; reads, and reads and
// writes in turn. Each is told in time, and each read's page marked dirty, though
// a release in a worker doesn't say to the auditor whose pin it was: of a large
// folio the pages are told apart, the sectors aren't.
func TestDriverSharedPage(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	fd, aio := openRaw(t, unix.O_DIRECT), newAIO(t, 16)
	for _, buffer := range []func(*testing.T) []byte{func(t *testing.T) []byte { return anonymous(t, 1) }, hugeKinds["thp"]} {
		// The last are more than the auditor lists for a page.
		for _, kinds := range []string{"rw", "wr", "rwrw", "wwrr", "rrrrrrww", "rrrrrr", "rrrrrrrrww"} {
			page := buffer(t) // nobody has marked it dirty yet
			for i, kind := range kinds {
				setConfig(t, d, func(c *ioctlapi.Config) {
					c.LatencyNS, c.Completion = uint64(300-25*i)*1e6, ioctlapi.CompletionAuto
				})
				op := uint16(aioRead)
				if kind == 'w' {
					op = aioWrite
				}
				if err := aio.submit(control(op, fd, page[i%8*512:][:512], scratch)); err != nil {
					t.Fatal(err)
				}
			}
			for range kinds {
				if e := aio.wait(10 * time.Second); e.res != 512 {
					t.Errorf("%s: a request ended with %d", kinds, e.res)
				}
			}
		}
	}
}

// The audited command's failure is the audit's: here one that found a difference,
// without a rule being broken.
func TestAuditPassesFailureOn(t *testing.T) {
	source := sourceFile(t, 64<<10)
	difference := []string{"dioctl", "copy", "--direct", "--block-size", "64k", "--verify", "--format", "json", "--to-offset", "1M", source, device}
	for _, c := range []struct {
		name, fault string
		status      int
		command     []string
	}{
		{"good", "", 0, difference},
		{"difference", "wrong-offset", 1, difference},
		{"status", "", 7, []string{"sh", "-c", "exit 7"}},
		{"killed", "", 137, []string{"sh", "-c", "kill -KILL $$"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			discarded(t, 0, 2<<20)
			if c.fault != "" {
				mustRun(t, "dioctl", "fault", "arm", "--count", "1", c.fault)
				t.Cleanup(func() { mustRun(t, "dioctl", "fault", "clear") })
			}
			o, v := audit(t, c.command...)
			if o.status != c.status || v.Verdict != "clean" {
				t.Errorf("status %d, verdict %s, want %d and clean: %s", o.status, v.Verdict, c.status, o.stderr)
			}
		})
	}
}

// What --verify is for: bytes that come back from elsewhere are a difference.
func TestCopySeesDifference(t *testing.T) {
	source := sourceFile(t, 64<<10)
	discarded(t, 0, 2<<20)
	mustRun(t, "dioctl", "fault", "arm", "--count", "1", "wrong-offset")
	t.Cleanup(func() { mustRun(t, "dioctl", "fault", "clear") })
	args := []string{"dioctl", "copy", "--direct", "--block-size", "64k", "--verify", "--format", "json", "--to-offset", "1M", source, device}
	for _, want := range []struct {
		status int
		same   bool
	}{{1, false}, {0, true}} { // the fault is used up
		o := run(t, args...)
		if v := decode[copyReport](t, o); o.status != want.status || v.Verified == nil || *v.Verified != want.same {
			t.Errorf("status %d, %+v, want %+v: %s", o.status, v, want, o.stderr)
		}
	}
}
