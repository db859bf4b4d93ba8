// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"dio/ioctlapi"
)

func injectCommand() *cli.Command {
	return &cli.Command{
		Name:  "inject",
		Usage: "make the modelled device fail, in ways that programs must bear",
		Description: "Unlike a fault, which is a bug of the driver, an injection is trouble of a good\n" +
			"device: eio (the request fails), short (half of it is moved), delay (it takes\n" +
			"longer), reorder (it ends after one that came later). Each has one rule.",
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "the rules, and how often each was met", Flags: []cli.Flag{deviceFlag(), formatFlag()}, Action: injectList},
			{
				Name: "set", Usage: "set the rule of an action (root)", ArgsUsage: "eio|short|delay|reorder",
				Flags: []cli.Flag{
					&cli.UintFlag{Name: "every", Value: 1, Usage: "at every `N`th request; with --seed, at random with odds of 1 in N"},
					&cli.Uint64Flag{Name: "seed", Usage: "draw from the sequence that `N` gives; 0: exactly every Nth"},
					&cli.GenericFlag{Name: "offset", Value: &sizeValue{}, Usage: "only requests that touch bytes from `SIZE` on"},
					&cli.GenericFlag{Name: "length", Value: &sizeValue{}, Usage: "and only `SIZE` bytes of them; 0: to the end"},
					&cli.Uint64Flag{Name: "count", Usage: "`N` times at most; 0: without end"},
					&cli.DurationFlag{Name: "delay", Usage: "delay: `TIME` longer; reorder: held so long at most (0: 100ms); 60s at most"},
					&cli.BoolFlag{Name: "reads", Usage: "only reads"},
					&cli.BoolFlag{Name: "writes", Usage: "only writes"},
					deviceFlag(), formatFlag(),
				},
				Action: injectSet,
			},
			{Name: "clear", Usage: "remove the rule of an action, or all (root)", ArgsUsage: "[ACTION]", Flags: []cli.Flag{deviceFlag(), formatFlag()}, Action: injectClear},
		},
	}
}

// injectView is the result of inject.
type injectView struct {
	Schema string            `json:"schema"`
	Device string            `json:"device"`
	Rules  []ioctlapi.Inject `json:"rules"`
}

func (v *injectView) text(w io.Writer) {
	rows := []string{"ACTION\tSET\tEVERY\tSEED\tOF\tBYTES\tDELAY\tREMAINING\tOCCASIONS\tINJECTED"}
	for _, r := range v.Rules {
		if r.Armed == 0 {
			set := "no"
			if r.Every > 0 { // the driver forgets what is cleared
				set = "used up"
			}
			rows = append(rows, fmt.Sprintf("%s\t%s\t\t\t\t\t\t\t%d\t%d", r.Action, set, r.Occasions, r.Injected))
			continue
		}
		of, span, left := "reads, writes", fmt.Sprintf("%d on", r.Offset), "no limit"
		switch r.Flags {
		case ioctlapi.InjectReads:
			of = "reads"
		case ioctlapi.InjectWrites:
			of = "writes"
		}
		if r.Length != 0 {
			span = fmt.Sprintf("%d to %d", r.Offset, r.Offset+r.Length-1)
		}
		if r.Count != 0 {
			left = fmt.Sprint(r.Count)
		}
		rows = append(rows, fmt.Sprintf("%s\tyes\t%d\t%d\t%s\t%s\t%v\t%s\t%d\t%d", r.Action, r.Every, r.Seed, of, span,
			time.Duration(r.DelayNS), left, r.Occasions, r.Injected))
	}
	table(w, rows...)
}

func showInjections(c *cli.Context, d *ioctlapi.Device) error {
	v := injectView{Schema: "dio.inject/1", Device: d.Path()}
	for _, a := range ioctlapi.InjectActions() {
		r, err := d.Injection(a)
		if err != nil {
			return err
		}
		v.Rules = append(v.Rules, r)
	}
	return emit(c, v, v.text)
}

func injectList(c *cli.Context) error {
	if err := noOperands(c); err != nil {
		return err
	}
	return withDevice(c.String("device"), func(d *ioctlapi.Device) error { return showInjections(c, d) })
}

func injectSet(c *cli.Context) error {
	if c.NArg() != 1 {
		return usageErrorf("inject set: one action, see dioctl inject set --help")
	}
	action, err := ioctlapi.ParseInjectAction(c.Args().First())
	if err != nil {
		return withStatus(exitUsage, err)
	}
	every, delay := c.Uint("every"), c.Duration("delay")
	if every < 1 || uint64(every) > 1<<32-1 {
		return usageErrorf("inject set: --every %d is out of range: 1 to %d", every, uint32(1<<32-1))
	}
	if delay < 0 || delay > ioctlapi.LatencyMaxNS {
		return usageErrorf("inject set: --delay %v is out of range: 0 to %v", delay, time.Duration(ioctlapi.LatencyMaxNS))
	}
	if (action == ioctlapi.InjectDelay) != (delay != 0) && action != ioctlapi.InjectReorder {
		return usageErrorf("inject set: --delay goes with delay, which needs it, and with reorder")
	}
	rule := ioctlapi.Inject{
		Action: action, Every: uint32(every), Seed: c.Uint64("seed"), Count: c.Uint64("count"), DelayNS: uint64(delay),
		Offset: uint64(c.Generic("offset").(*sizeValue).n), Length: uint64(c.Generic("length").(*sizeValue).n),
	}
	if c.Bool("reads") {
		rule.Flags |= ioctlapi.InjectReads
	}
	if c.Bool("writes") {
		rule.Flags |= ioctlapi.InjectWrites
	}
	return withDevice(c.String("device"), func(d *ioctlapi.Device) error {
		if err := d.Inject(rule); err != nil {
			return err
		}
		return showInjections(c, d)
	})
}

func injectClear(c *cli.Context) error {
	action := ioctlapi.InjectNone
	if c.NArg() > 1 {
		return usageErrorf("inject clear: one action at most")
	}
	if c.NArg() == 1 {
		var err error
		if action, err = ioctlapi.ParseInjectAction(c.Args().First()); err != nil {
			return withStatus(exitUsage, err)
		}
	}
	return withDevice(c.String("device"), func(d *ioctlapi.Device) error {
		if err := d.ClearInject(action); err != nil {
			return err
		}
		return showInjections(c, d)
	})
}
