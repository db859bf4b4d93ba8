// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func manCommand() *cli.Command {
	return &cli.Command{
		Name:        "man",
		Usage:       "dioctl's manual page, as man reads it",
		Description: "To read it: dioctl man | man -l -\nTo keep it: dioctl man >~/.local/share/man/man1/dioctl.1",
		Action: func(c *cli.Context) error {
			if err := noOperands(c); err != nil {
				return err
			}
			page, err := rootApp(c).ToManWithSection(1)
			if err != nil {
				return fmt.Errorf("write the manual page: %w", err)
			}
			_, err = fmt.Fprint(c.App.Writer, page)
			return err
		},
	}
}
