// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"io"

	"github.com/urfave/cli/v2"
)

// newApp registers the subcommands; each lives in a file of its own name.
func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:  "dioctl",
		Usage: "direct and asynchronous I/O, driven, seen and audited",
		Description: "Exit status: 0 good; 1 a finding: a rule was broken, data differed, a check didn't hold; 2 the\n" +
			"command line makes no sense; 3 this machine or kernel can't do it, or a verdict is incomplete;\n" +
			"125 the VM failed; 141 nobody read the output to its end, and what was changed is put back. vm run\n" +
			"and audit pass the status of their command on.",
		Writer:    stdout,
		ErrWriter: stderr,
		// Errors are rendered once, by main.
		ExitErrHandler: func(*cli.Context, error) {},
		HideVersion:    true,
		// What is repeatable is repeated: a comma belongs to the value, as in
		// --device edu,dma_mask=0xffff.
		DisableSliceFlagSeparator: true,
		UseShortOptionHandling:    true,
		Commands: []*cli.Command{
			infoCommand(),
			configCommand(),
			statsCommand(),
			readCommand(),
			writeCommand(),
			copyCommand(),
			faultCommand(),
			injectCommand(),
			demoCommand(),
			auditCommand(),
			benchCommand(),
			vmCommand(),
			completionCommand(),
			manCommand(),
		},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return badUsage("dioctl", err) },
	}
	app.Action = groupAction("dioctl", app.Commands)
	refuseBadUsage(app.Commands, "dioctl")
	return app
}
