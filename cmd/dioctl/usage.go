// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// usageErrorf is a command line that makes no sense.
func usageErrorf(format string, args ...any) error {
	return withStatus(exitUsage, fmt.Errorf(format, args...))
}

// refuseBadUsage makes every command below cmds answer a flag or subcommand
// that it doesn't know with exitUsage and a pointer to its help.
func refuseBadUsage(cmds []*cli.Command, path string) {
	for _, cmd := range cmds {
		name := path + " " + cmd.Name
		if cmd.OnUsageError == nil {
			cmd.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return badUsage(name, err) }
		}
		if len(cmd.Subcommands) > 0 && cmd.Action == nil {
			cmd.Action = groupAction(name, cmd.Subcommands)
		}
		refuseBadUsage(cmd.Subcommands, name)
	}
}

func badUsage(name string, err error) error {
	var s *statusError
	if errors.As(err, &s) {
		return err
	}
	return usageErrorf("%s: %w (see: %s --help)", strings.TrimPrefix(name, "dioctl "), err, name)
}

// groupAction is what a command of subcommands does without one: help; with an
// unknown one: say so.
func groupAction(name string, subs []*cli.Command) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.NArg() == 0 {
			return cli.ShowSubcommandHelp(c)
		}
		var known []string
		for _, s := range subs {
			if !s.Hidden {
				known = append(known, s.Name)
			}
		}
		return usageErrorf("%s has no command %q: one of %s", name, c.Args().First(), strings.Join(known, ", "))
	}
}
