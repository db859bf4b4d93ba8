// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"dio/vm/kernel"
)

// kernelState is one line of `vm kernels`.
type kernelState struct {
	Name    string   `json:"name"`
	Default bool     `json:"default"`
	From    []string `json:"from"`              // the suites, empty when it is built here
	Release string   `json:"release,omitempty"` // what is fetched
	Vmlinuz string   `json:"vmlinuz,omitempty"`
	Headers string   `json:"headers,omitempty"`
	Module  string   `json:"module,omitempty"` // dio.ko, when it is built
	Note    string   `json:"note,omitempty"`
}

func vmKernelsCommand() *cli.Command {
	return &cli.Command{
		Name:  "kernels",
		Usage: "list the kernels, with what is fetched and built",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "text", Usage: "text or json"},
			&cli.BoolFlag{Name: "default", Usage: "print only the default kernel's name"},
		},
		Action: vmKernels,
	}
}

func vmKernels(c *cli.Context) error {
	h, err := kernel.ThisHost()
	if err != nil {
		return err
	}
	if c.Bool("default") {
		fmt.Fprintln(c.App.Writer, kernel.Default(h))
		return nil
	}
	states, err := kernelStates(h)
	if err != nil {
		return err
	}
	switch c.String("format") {
	case "json":
		e := json.NewEncoder(c.App.Writer)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Schema  string        `json:"schema"`
			Kernels []kernelState `json:"kernels"`
		}{"dio.kernels/1", states})
	case "text":
		w := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tFROM\tFETCHED\tDIO.KO\tNOTE")
		for _, s := range states {
			name, from, release, module := s.Name, strings.Join(s.From, ", "), s.Release, "-"
			if s.Default {
				name += " (default)"
			}
			if from == "" {
				from = "built here"
			}
			if release == "" {
				release = "-"
			}
			if s.Module != "" {
				module = s.Module
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, from, release, module, s.Note)
		}
		return w.Flush()
	}
	return withStatus(exitUsage, fmt.Errorf("--format %s: want text or json", c.String("format")))
}

func kernelStates(h kernel.Host) ([]kernelState, error) {
	var out []kernelState
	for _, r := range kernel.Table(h) {
		s := kernelState{Name: r.Name, Default: r.Name == kernel.Default(h), From: r.Suites}
		if s.From == nil {
			s.From = []string{}
		}
		img, err := kernel.Fetched(r.Name)
		switch {
		case err == nil:
			s.Release, s.Vmlinuz, s.Headers = img.Release, img.Vmlinuz, img.Headers
		case !errors.Is(err, fs.ErrNotExist):
			s.Note = err.Error()
		case r.Name == kernel.Debug:
			s.Note = "every checker; not built: `make debug` builds it: " + kernel.DebugCost
		}
		if p, err := ownModule(r.Name); err == nil {
			if _, err := os.Stat(p); err == nil {
				s.Module = p
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func vmFetchCommand() *cli.Command {
	return &cli.Command{
		Name:      "fetch",
		Usage:     "fetch a kernel and its headers, without installing them, and print its name and release",
		ArgsUsage: "[NAME]",
		Description: "The kernel debug is in no archive: it is configured with every checker and built from\n" +
			"Debian's source of 6.12 (" + kernel.DebugCost + ", once).",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "update", Usage: "look for a newer one even if it is here"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return withStatus(exitUsage, errors.New("vm fetch: want at most one name"))
			}
			p := progressTo(os.Stderr)
			defer p.Clear()
			get := kernel.Get
			if c.Bool("update") {
				get = kernel.Update
			}
			img, err := get(c.Context, c.Args().First(), "", p)
			if errors.Is(err, kernel.ErrUnknown) {
				return withStatus(exitUsage, err)
			}
			if err != nil {
				return withStatus(exitEnvironment, err)
			}
			p.Clear()
			fmt.Fprintln(c.App.Writer, img.Name, img.Release)
			return nil
		},
	}
}
