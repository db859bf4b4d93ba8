// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"github.com/urfave/cli/v2"

	"dio/ioctlapi"
)

// deviceFlag is --device of the commands whose operands are something else.
func deviceFlag() cli.Flag {
	return &cli.StringFlag{Name: "device", Aliases: []string{"d"}, Value: ioctlapi.DefaultPath, EnvVars: []string{"DIO_DEVICE"},
		Usage: "the dio `DEVICE`"}
}

// deviceOperand is the only operand, a device, or the first device.
func deviceOperand(c *cli.Context) (string, error) {
	switch c.NArg() {
	case 0:
		return ioctlapi.DefaultPath, nil
	case 1:
		return c.Args().First(), nil
	}
	return "", usageErrorf("%s: want one device at most, got %d operands (flags go before them)", c.Command.Name, c.NArg())
}

// noOperands refuses operands.
func noOperands(c *cli.Context) error {
	if c.NArg() > 0 {
		return usageErrorf("%s: unexpected operand %q", c.Command.Name, c.Args().First())
	}
	return nil
}

// withDevice opens a device for the length of a call.
func withDevice(path string, f func(*ioctlapi.Device) error) error {
	d, err := ioctlapi.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(d)
}
