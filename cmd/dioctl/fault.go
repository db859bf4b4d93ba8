// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"dio/ioctlapi"
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
					&cli.DurationFlag{Name: "hold", Usage: "lost-complete: give the request back after `TIME` (0: 5s; 10m at most)"},
					deviceFlag(), formatFlag(),
				},
				Action: faultArm,
			},
			{Name: "clear", Usage: "disarm a fault, or all, and give back what was put aside (root)", ArgsUsage: "[NAME]", Flags: []cli.Flag{deviceFlag(), formatFlag()}, Action: faultClear},
			{Name: "drain", Usage: "give back what faults put aside: pinned pages, lost requests (root)", Flags: []cli.Flag{deviceFlag(), formatFlag()}, Action: faultDrain},
		},
	}
}

// faultWords say of each fault when it is committed and what goes wrong.
var faultWords = map[ioctlapi.FaultID][2]string{
	ioctlapi.FaultPinLeak:        {"direct request", "one page isn't released"},
	ioctlapi.FaultOverUnpin:      {"direct request, pin family", "one page is unpinned twice"},
	ioctlapi.FaultDirtyMissing:   {"direct read", "pages are released clean: data is lost at reclaim"},
	ioctlapi.FaultDirtyNeedless:  {"direct write", "pages that were only read are dirtied"},
	ioctlapi.FaultEarlyComplete:  {"queued direct request", "told complete before pages are moved and released"},
	ioctlapi.FaultDoubleComplete: {"polled request (io_uring-iopoll)", "completed twice"},
	ioctlapi.FaultLostComplete:   {"queued async request", "not completed until --hold is over"},
	ioctlapi.FaultSyncAsAsync:    {"splice read", "a synchronous kiocb gets -EIOCBQUEUED"},
}

// faultView is one fault.
type faultView struct {
	Name  string          `json:"name"`
	Rule  string          `json:"rule"` // the audit rule that must catch it
	When  string          `json:"occasion"`
	What  string          `json:"effect"`
	State *faultStateView `json:"state,omitempty"` // absent without a device
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
}

func faultList(c *cli.Context) error {
	if err := noOperands(c); err != nil {
		return err
	}
	v := faultsView{Schema: "dio.faults/1"}
	for _, id := range ioctlapi.Faults() {
		w := faultWords[id]
		v.Faults = append(v.Faults, faultView{Name: id.String(), Rule: id.String(), When: w[0], What: w[1]})
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
	rows := []string{"FAULT = RULE\tARMED\tCOMMITTED\tWHEN\tWHAT GOES WRONG"}
	for _, f := range v.Faults {
		armed, committed := "?", "?"
		if s := f.State; s != nil {
			armed, committed = s.armedText(), fmt.Sprint(s.Committed)
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", f.Name, armed, committed, f.When, f.What))
	}
	table(w, rows...)
	if v.NoDevice != "" {
		fmt.Fprintf(w, "\nno state: %s\n", v.NoDevice)
	}
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
	case hold > 0 && id != ioctlapi.FaultLostComplete:
		return usageErrorf("fault arm: --hold goes with lost-complete only")
	}
	return withDevice(c.String("device"), func(d *ioctlapi.Device) error {
		if err := d.ArmFault(ioctlapi.Fault{Fault: id, Every: uint32(every), Count: c.Uint64("count"), HoldMS: uint32(hold / time.Millisecond)}); err != nil {
			return err
		}
		f, err := d.Fault(id)
		if err != nil {
			return err
		}
		words := faultWords[id]
		v := faultView{id.String(), id.String(), words[0], words[1], faultState(f)}
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
