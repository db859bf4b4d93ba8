// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"dio/vm/kernel"
)

func vmBuildCommand() *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "build an out-of-tree kernel module, with BTF where the kernel has it",
		ArgsUsage: "DIR",
		Description: "DIR holds a Kbuild or Makefile. The .ko files are left beside their sources and\n" +
			"named on standard output. The compiler's output is shown when it fails or warns,\n" +
			"all of it with --verbose.",
		Flags: append(kernelFlags(),
			&cli.StringFlag{Name: "cc", Value: "gcc", Usage: "gcc or clang"},
			&cli.StringSliceFlag{Name: "make-arg", Usage: "`ARG` for make, such as W=1, C=1 or clean (repeatable)"},
			&cli.BoolFlag{Name: "strict", Usage: "exit 1 when the compiler, objtool or modpost warned"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "show make's whole output"},
		),
		Action: vmBuild,
	}
}

func vmBuild(c *cli.Context) error {
	if c.NArg() != 1 {
		return withStatus(exitUsage, errors.New("vm build: want one folder: dioctl vm build [--kernel NAME] DIR"))
	}
	opts := kernel.BuildOptions{Make: c.StringSlice("make-arg")}
	switch c.String("cc") {
	case "gcc":
	case "clang":
		opts.Clang = true
	default:
		return withStatus(exitUsage, fmt.Errorf("--cc %s: want gcc or clang", c.String("cc")))
	}
	img, err := chosenKernel(c.Context, c)
	if err != nil {
		return err
	}
	p := progressTo(os.Stderr)
	var log bytes.Buffer
	opts.Out = io.MultiWriter(&log, p)
	verbose := c.Bool("verbose")
	if verbose {
		opts.Out = io.MultiWriter(&log, os.Stderr)
	}
	modules, err := kernel.Build(c.Context, img, c.Args().First(), opts, p)
	p.Clear()
	warnings := buildWarnings(log.String())
	if !verbose && (err != nil || warnings > 0) {
		os.Stderr.Write(log.Bytes())
	}
	if err != nil {
		return withStatus(exitEnvironment, err)
	}
	for _, m := range modules {
		fmt.Fprintln(c.App.Writer, m)
	}
	if warnings > 0 && c.Bool("strict") {
		return withStatus(exitFinding, fmt.Errorf("vm build: %d warnings in the build of %s for %s: see above", warnings, c.Args().First(), img.Release))
	}
	return nil
}

// buildWarnings counts the warnings in make's output: the compiler's, objtool's and
// modpost's. That the kernel was built by another compiler isn't about the module.
func buildWarnings(log string) (n int) {
	for line := range strings.Lines(log) {
		if (strings.Contains(line, "warning:") || strings.Contains(line, "WARNING:")) && !strings.Contains(line, "the compiler differs from") {
			n++
		}
	}
	return n
}
