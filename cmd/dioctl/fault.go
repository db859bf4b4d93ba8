// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"dio/ioctlapi"
	"dio/trace/audit"
)

func faultCommand() *cli.Command {
	return &cli.Command{
		Name:  "fault",
		Usage: "make the driver commit a bug on purpose, for the auditor to find",
		Description: "Each fault is a bug of real drivers, committed so that the kernel survives: what is\n" +
			"leaked is put aside, and given back by clear or drain. A fault is named after the\n" +
			"audit rule that must catch it.",
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "every fault, the rule that must catch it, and how it is armed", Flags: []cli.Flag{deviceFlag(), formatFlag()}, Action: faultList},
			{
				Name: "arm", Usage: "arm a fault (root)", ArgsUsage: "NAME",
				Flags: []cli.Flag{
					&cli.UintFlag{Name: "every", Value: 1, Usage: "commit it at every `N`th occasion"},
					&cli.Uint64Flag{Name: "count", Usage: "commit it `N` times at most; 0: without end"},
					&cli.DurationFlag{Name: "hold", Usage: "lost-complete, longterm-missing: give back after `TIME` (0: 5s; 10m at most)"},
					deviceFlag(), formatFlag(),
				},
				Action: faultArm,
			},
			faultProvokeCommand(),
			{Name: "clear", Usage: "disarm a fault, or all, and give back what was put aside (root)", ArgsUsage: "[NAME]", Flags: []cli.Flag{deviceFlag(), formatFlag()}, Action: faultClear},
			{Name: "drain", Usage: "give back what faults put aside: pinned pages, lost requests (root)", Flags: []cli.Flag{deviceFlag(), formatFlag()}, Action: faultDrain},
		},
	}
}

// faultView is one fault.
type faultView struct {
	Name  string          `json:"name"`
	Rule  string          `json:"rule"` // the audit rule that must catch it
	When  string          `json:"occasion"`
	What  string          `json:"effect"`
	State *faultStateView `json:"state,omitempty"` // absent without a device
	// Audited says whether the auditor has that rule; where it hasn't, SeenBy
	// says what shows the bug.
	Audited bool   `json:"audited"`
	SeenBy  string `json:"seen_by,omitempty"`
}

// newFaultView tells what is known of a fault without a device.
func newFaultView(id ioctlapi.FaultID) faultView {
	w := faultWords[id]
	return faultView{Name: id.String(), Rule: id.String(), When: w.when, What: w.what, SeenBy: w.seenBy,
		Audited: slices.Contains(audit.Rules(), id.String())}
}

type faultStateView struct {
	Armed     bool   `json:"armed"`   // it will be committed again
	UsedUp    bool   `json:"used_up"` // it was, as often as was asked for, and not cleared since
	Every     uint32 `json:"every"`
	Remaining uint64 `json:"remaining"` // 0 while armed: without end
	HoldMS    uint32 `json:"hold_ms"`
	Occasions uint64 `json:"occasions"`
	Committed uint64 `json:"committed"`
}

// faultsView is the result of fault list.
type faultsView struct {
	Schema   string      `json:"schema"`
	Device   string      `json:"device,omitempty"`
	NoDevice string      `json:"no_device,omitempty"` // why the states are unknown
	Faults   []faultView `json:"faults"`
	Others   []bugView   `json:"not_faults"` // bugs of the catalogue that can't be armed
}

func faultList(c *cli.Context) error {
	if err := noOperands(c); err != nil {
		return err
	}
	v := faultsView{Schema: "dio.faults/1", Others: otherBugs}
	for _, id := range ioctlapi.Faults() {
		v.Faults = append(v.Faults, newFaultView(id))
	}
	// The list is of use without a device; only the state isn't known then.
	err := withDevice(c.String("device"), func(d *ioctlapi.Device) error {
		v.Device = d.Path()
		for i, id := range ioctlapi.Faults() {
			f, err := d.Fault(id)
			if err != nil {
				return err
			}
			v.Faults[i].State = faultState(f)
		}
		return nil
	})
	if err != nil {
		v.NoDevice = err.Error()
	}
	return emit(c, v, v.text)
}

func (v *faultsView) text(w io.Writer) {
	rows := []string{"FAULT = RULE\tARMED\tCOMMITTED\tAUDITED\tWHEN\tWHAT GOES WRONG"}
	for _, f := range v.Faults {
		armed, committed := "?", "?"
		if s := f.State; s != nil {
			armed, committed = s.armedText(), fmt.Sprint(s.Committed)
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", f.Name, armed, committed, yesNo(f.Audited), f.When, f.What))
	}
	table(w, rows...)
	fmt.Fprintf(w, "\nWhere the auditor has no rule yet, the bug is seen by:\n")
	rows = nil
	for _, f := range v.Faults {
		if !f.Audited {
			rows = append(rows, fmt.Sprintf("  %s\t%s", f.Name, f.SeenBy))
		}
	}
	table(w, rows...)
	fmt.Fprintf(w, "\nBugs that are no fault to arm:\n")
	rows = nil
	for _, b := range v.Others {
		rows = append(rows, fmt.Sprintf("  %s\t%s", b.Name, b.Why))
	}
	table(w, rows...)
	if v.NoDevice != "" {
		fmt.Fprintf(w, "\nno state: %s\n", v.NoDevice)
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// faultState tells what the driver says of a fault. It forgets how one was armed
// once that is cleared, not when it's used up.
func faultState(f ioctlapi.Fault) *faultStateView {
	armed := f.Armed != 0
	return &faultStateView{armed, !armed && f.Every > 0, f.Every, f.Count, f.HoldMS, f.Occasions, f.Committed}
}

func (s *faultStateView) armedText() string {
	switch {
	case s.UsedUp:
		return "used up"
	case !s.Armed:
		return "no"
	}
	text := "yes"
	if s.Every > 1 {
		text = fmt.Sprintf("1 in %d", s.Every)
	}
	if s.Remaining > 0 {
		text += fmt.Sprintf(", %d left", s.Remaining)
	}
	return text
}

func faultArm(c *cli.Context) error {
	if c.NArg() != 1 {
		return usageErrorf("fault arm: want one fault's name after the flags (see: dioctl fault list)")
	}
	id, err := ioctlapi.ParseFault(c.Args().First())
	if err != nil {
		return withStatus(exitUsage, err)
	}
	every, hold := c.Uint("every"), c.Duration("hold")
	switch {
	case every < 1 || uint64(every) > 1<<32-1:
		return usageErrorf("fault arm: --every %d is out of range: 1 or more", every)
	case hold < 0 || hold > ioctlapi.HoldMaxMS*time.Millisecond:
		return usageErrorf("fault arm: --hold %v is out of range: 0 to %v", hold, ioctlapi.HoldMaxMS*time.Millisecond)
	case hold > 0 && hold < time.Millisecond:
		return usageErrorf("fault arm: --hold %v is too short: 1ms at least", hold)
	case hold > 0 && !id.Holds():
		return usageErrorf("fault arm: --hold goes with lost-complete and longterm-missing only")
	}
	return withDevice(c.String("device"), func(d *ioctlapi.Device) error {
		if err := d.ArmFault(ioctlapi.Fault{Fault: id, Every: uint32(every), Count: c.Uint64("count"), HoldMS: uint32(hold / time.Millisecond)}); err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) {
				return withHint(err, "this kernel wouldn't survive it, or refuses it: see docs/driver.md, Bugs on purpose")
			}
			return err
		}
		f, err := d.Fault(id)
		if err != nil {
			return err
		}
		v := newFaultView(id)
		v.State = faultState(f)
		return emit(c, v, func(w io.Writer) {
			fmt.Fprintf(w, "%s is armed (%s): at a %s, %s\n", v.Name, v.State.armedText(), v.When, v.What)
		})
	})
}

// drainView is what was given back.
type drainView struct {
	Device   string `json:"device"`
	Cleared  string `json:"cleared,omitempty"` // a fault's name, or "all"
	Pages    uint64 `json:"pages"`
	Requests uint64 `json:"requests"`
}

func faultClear(c *cli.Context) error {
	id, what := ioctlapi.FaultNone, "all"
	switch {
	case c.NArg() > 1:
		return usageErrorf("fault clear: want one fault's name at most")
	case c.NArg() == 1 && c.Args().First() != "all":
		var err error
		if id, err = ioctlapi.ParseFault(c.Args().First()); err != nil {
			return withStatus(exitUsage, err)
		}
		what = id.String()
	}
	return withDevice(c.String("device"), func(d *ioctlapi.Device) error {
		// Draining first makes the count known; clearing drains again what
		// came between.
		r, err := d.Drain()
		if err := errors.Join(err, d.ClearFault(id)); err != nil {
			return err
		}
		v := drainView{d.Path(), what, r.Pages, r.Requests}
		return emit(c, v, func(w io.Writer) {
			fmt.Fprintf(w, "cleared: %s; given back: %d pages, %d requests\n", v.Cleared, v.Pages, v.Requests)
		})
	})
}

func faultDrain(c *cli.Context) error {
	if err := noOperands(c); err != nil {
		return err
	}
	return withDevice(c.String("device"), func(d *ioctlapi.Device) error {
		r, err := d.Drain()
		if err != nil {
			return err
		}
		v := drainView{Device: d.Path(), Pages: r.Pages, Requests: r.Requests}
		return emit(c, v, func(w io.Writer) { fmt.Fprintf(w, "given back: %d pages, %d requests\n", v.Pages, v.Requests) })
	})
}
