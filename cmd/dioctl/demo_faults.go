// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"dio/ioctlapi"
	"dio/trace"
	"dio/trace/audit"
)

const (
	faultLength    = 64 << 10
	faultBlock     = 16 << 10
	faultLatency   = 2 * time.Millisecond
	faultLostAfter = 3 * time.Second // what dioctl audit takes, too
)

// faultWorkload is a command of dioctl that makes the driver commit a fault.
type faultWorkload struct {
	engine  string
	write   bool
	copying bool          // without O_DIRECT
	latency time.Duration // the requests are queued
	family  ioctlapi.Family
	provoke bool          // dioctl fault provoke does it
	hold    time.Duration // of the fault
	linger  time.Duration // the audit goes on for so long after the command
}

// faultWorkloads has one for each fault that the auditor has a rule for.
var faultWorkloads = map[ioctlapi.FaultID]faultWorkload{
	ioctlapi.FaultPinLeak:        {engine: "preadv", write: true},
	ioctlapi.FaultOverUnpin:      {engine: "preadv", write: true},
	ioctlapi.FaultDirtyMissing:   {engine: "preadv"},
	ioctlapi.FaultDirtyNeedless:  {engine: "preadv", write: true},
	ioctlapi.FaultEarlyComplete:  {engine: "aio", latency: faultLatency},
	ioctlapi.FaultDoubleComplete: {engine: "io_uring-iopoll"},
	ioctlapi.FaultLostComplete:   {engine: "io_uring", latency: faultLatency},
	// With O_DIRECT the kernel reads past the driver's splice_read.
	ioctlapi.FaultSyncAsAsync: {engine: "splice", copying: true},

	ioctlapi.FaultZeroPagePin:    {provoke: true, family: ioctlapi.FamilyGet},
	ioctlapi.FaultDirtyUnlocked:  {provoke: true},
	ioctlapi.FaultDirtyLate:      {engine: "preadv"},
	ioctlapi.FaultResultRange:    {engine: "aio", latency: faultLatency},
	ioctlapi.FaultLengthOverflow: {engine: "preadv", write: true},
	ioctlapi.FaultCancelFnMisuse: {engine: "io_uring", latency: faultLatency},
	// Longer than any request is waited for.
	ioctlapi.FaultLongtermMissing: {engine: "preadv", write: true, hold: faultLostAfter + time.Second/2, linger: faultLostAfter + 2*time.Second},
}

// auditedFaults are those that the auditor must find.
func auditedFaults() []ioctlapi.FaultID {
	return slices.DeleteFunc(ioctlapi.Faults(), func(id ioctlapi.FaultID) bool { return !newFaultView(id).Audited })
}

// args are the command's, on a stretch of a device.
func (w faultWorkload) args(id ioctlapi.FaultID, device string, offset int64) []string {
	if w.provoke {
		return []string{"fault", "provoke", "--device", device, "--offset", formatExact(offset), id.String()}
	}
	args := []string{"read", "--discard"}
	if w.write {
		args = []string{"write", "-i", "/dev/zero"}
	}
	args = append(args, "-e", w.engine)
	if !w.copying {
		args = append(args, "--direct")
	}
	return append(args, "-b", formatExact(faultBlock), "--length", formatExact(faultLength),
		"--offset", formatExact(offset), device)
}

// formatExact writes a size as a person types it, exactly.
func formatExact(n int64) string {
	for _, u := range []struct {
		unit string
		size int64
	}{{"G", 1 << 30}, {"M", 1 << 20}, {"k", 1 << 10}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.unit)
		}
	}
	return fmt.Sprint(n)
}

// faultProof is what became of a fault.
type faultProof struct {
	Fault     string `json:"fault"`
	Rule      string `json:"rule"` // the rule that must catch it
	Command   string `json:"command"`
	Committed uint64 `json:"committed"` // by the driver's own count
	Caught    bool   `json:"caught"`    // by that rule, and no other
	Where     string `json:"where,omitempty"`
	Explain   string `json:"explain,omitempty"`
	Clean     bool   `json:"clean_after"` // once all were cleared
}

// demoFaults commits every fault under audit.
func demoFaults(d *demo) (err error) {
	d.tour.Name, d.tour.Title = "faults", "every bug on purpose, and the rule that catches it"
	if !d.info.Features.Has(ioctlapi.FeatureFaults) {
		return errors.New("this driver has no faults: it was built without them")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find dioctl itself: %w", err)
	}
	defer func() { err = errors.Join(err, d.dev.ClearFault(ioctlapi.FaultNone)) }()
	if err := d.dev.ClearFault(ioctlapi.FaultNone); err != nil {
		return err
	}
	faults := auditedFaults()
	for i, id := range faults {
		if term.IsTerminal(int(os.Stderr.Fd())) {
			fmt.Fprintf(os.Stderr, "fault %d of %d: %v\n", i+1, len(faults), id)
		}
		if err := d.faultStep(self, id); err != nil {
			return fmt.Errorf("%v: %w", id, err)
		}
	}
	return d.cleanStep(self)
}

// faultStep commits one fault, and shows that its rule catches it.
func (d *demo) faultStep(self string, id ioctlapi.FaultID) error {
	words := faultWords[id]
	s := d.step(fmt.Sprintf("%v: at a %s, %s", id, words.when, words.what))
	load, ok := faultWorkloads[id]
	if !ok {
		d.tour.Faults = append(d.tour.Faults, faultProof{Fault: id.String(), Rule: id.String()})
		s.check(false, "the tour knows a command that makes the driver commit it")
		return nil
	}
	if err := d.set(load.family, load.latency); err != nil {
		return err
	}
	args := load.args(id, d.dev.Path(), d.base)
	p := faultProof{Fault: id.String(), Rule: id.String(), Command: "dioctl " + shellWords(args)}
	arm := fmt.Sprintf("dioctl fault arm --count 1 %v", id)
	if load.hold > 0 {
		arm = fmt.Sprintf("dioctl fault arm --count 1 --hold %v %v", load.hold, id)
	}
	s.line("%s", arm)
	if load.linger > 0 {
		s.line("dioctl audit -- sh -c '%s; sleep %v'", p.Command, load.linger.Seconds())
	} else {
		s.line("dioctl audit -- %s", p.Command)
	}
	before, err := d.dev.Fault(id)
	if err != nil {
		return err
	}
	if err := d.dev.ArmFault(ioctlapi.Fault{Fault: id, Every: 1, Count: 1, HoldMS: uint32(load.hold / time.Millisecond)}); err != nil {
		return err
	}
	run, command := self, args
	if load.linger > 0 {
		run, command = "sh", []string{"-c", `"$0" ` + shellWords(args) + fmt.Sprintf("; sleep %v", load.linger.Seconds()), self}
	}
	armed, err := d.audited(run, command)
	if err != nil {
		return err
	}
	after, err := d.dev.Fault(id)
	if err != nil {
		return err
	}
	p.Committed = after.Committed - before.Committed
	rules := p.judge(armed.report)
	s.line("verdict: %s; rules broken: %s", armed.report.Verdict, orNone(rules))
	if p.Where != "" {
		s.line("%s in %s", p.Rule, p.Where)
		s.wrapped(p.Explain)
	}
	s.check(p.Committed == 1, "the driver committed it once")
	s.check(p.Caught, "the auditor caught it: by rule %s, and no other", p.Rule)

	d.tour.Faults = append(d.tour.Faults, p)
	if err := d.dev.ClearFault(id); err != nil {
		return err
	}
	_, err = d.trace.Drain() // its buffer is bounded
	return err
}

// cleanStep runs the commands of all faults again, with none armed. One audit
// does for all: its programs take longer to attach than the commands to run.
func (d *demo) cleanStep(self string) error {
	s := d.step("Without the faults: the same commands again, under one audit")
	if err := d.set(ioctlapi.FamilyPin, faultLatency); err != nil {
		return err
	}
	s.line("dioctl fault clear")
	var script []string
	for _, id := range auditedFaults() {
		load, ok := faultWorkloads[id]
		command := shellWords(load.args(id, d.dev.Path(), d.base))
		if ok && !slices.Contains(script, command) {
			script = append(script, command)
			s.line("dioctl %s", command)
		}
	}
	// $0 is this program, wherever it lies.
	clean, err := d.audited("sh", []string{"-c", `"$0" ` + strings.Join(script, ` && "$0" `), self})
	if err != nil {
		return err
	}
	var broken []string
	for _, f := range clean.report.Findings {
		broken = append(broken, f.Rule)
	}
	s.line("verdict: %s; rules broken: %s", clean.report.Verdict, orNone(broken))
	s.line("%d operations, %d pages pinned, %d released", clean.report.Operations, clean.report.Pins.Taken, clean.report.Pins.Released)
	if clean.failed != nil {
		s.line("a command failed: %v", clean.failed)
	}
	held := clean.report.Verdict == audit.VerdictClean && clean.failed == nil
	s.check(held, "without the faults the auditor finds nothing")
	s.check(clean.report.Pins.Taken >= uint64(faultLength/d.info.PageSize), "and it did see the pages being pinned")
	for i := range d.tour.Faults {
		d.tour.Faults[i].Clean = held
	}
	return nil
}

// shellWords quotes words for a shell, where they need it.
func shellWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if quoted[i] = w; w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") != "" {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// judge notes whether the rule caught the fault, alone and in the driver. It
// returns the rules that were broken.
func (p *faultProof) judge(r audit.Report) (rules []string) {
	for _, f := range r.Findings {
		rules = append(rules, f.Rule)
		if f.Rule == p.Rule && f.Module == "dio" {
			p.Where, p.Explain = fmt.Sprintf("%s [%s]", f.Function, f.Module), f.Explain
			if f.File != "" {
				p.Where += fmt.Sprintf(" %s:%d", f.File, f.Line)
			}
		}
	}
	slices.Sort(rules)
	rules = slices.Compact(rules)
	p.Caught = r.Verdict == audit.VerdictViolations && p.Where != "" && len(rules) == 1
	return rules
}

func orNone(rules []string) string {
	if len(rules) == 0 {
		return "none"
	}
	return strings.Join(rules, ", ")
}

// auditedRun is what became of a command under audit.
type auditedRun struct {
	report audit.Report
	failed error // the command's own failure, with what it said
}

// audited runs a command of dioctl under audit. err is the auditor's.
func (d *demo) audited(self string, args []string) (r auditedRun, err error) {
	var said bytes.Buffer
	run := trace.Run{Command: exec.CommandContext(d.ctx, self, args...), LostAfter: faultLostAfter}
	run.Command.Stdout, run.Command.Stderr = io.Discard, &said
	err = run.Do(d.ctx, func(e audit.Evidence) error {
		r.report = audit.Judge(e)
		return nil
	})
	if p := run.Command.ProcessState; err == nil && p != nil && !p.Success() {
		r.failed = fmt.Errorf("%v: %s", p, strings.TrimSpace(said.String()))
	}
	return r, err
}

// wrapped adds a long text as lines.
func (s *stepView) wrapped(text string) {
	const width = 90
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			s.line("  %s", line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		s.line("  %s", line)
	}
}

// proofTable sums the faults up.
func proofTable(w io.Writer, proofs []faultProof) {
	if len(proofs) == 0 {
		return
	}
	word := map[bool]string{true: "yes", false: "NO"}
	rows := []string{"FAULT\tRULE\tCAUGHT\tCLEAN WITHOUT IT"}
	for _, p := range proofs {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s", p.Fault, p.Rule, word[p.Caught], word[p.Clean]))
	}
	fmt.Fprintln(w)
	table(w, rows...)
}
