// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"time"

	"dio/trace"
	"dio/trace/audit"

	"github.com/urfave/cli/v2"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "prove that a driver releases every page, marks every written page and completes every request once",
		ArgsUsage: "[-- COMMAND [ARGUMENT...]]",
		Description: "Runs COMMAND and watches, from the core kernel, what any driver does with its pages and requests.\n" +
			"Without COMMAND and --pid everything on this machine is watched, until --duration or an interrupt.\n" +
			"An interrupt is COMMAND's, and the verdict follows when it has ended.\n" +
			"Exit status: 0 clean (or COMMAND's own), 1 a rule was broken, 3 incomplete or impossible here.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "module", Usage: "only findings of module `NAME` (repeatable)"},
			&cli.StringFlag{Name: "caller", Usage: "only findings with a function that matches `REGEX` in their stack"},
			&cli.IntFlag{Name: "pid", Usage: "watch the running process `PID` and its children"},
			&cli.DurationFlag{Name: "duration", Usage: "end after `D`, where no command is run"},
			&cli.StringFlag{Name: "ready", Usage: "create `FILE` once everything is watched, for who waits to begin"},
			&cli.DurationFlag{Name: "lost-after", Value: 3 * time.Second, Usage: "call a queued request lost that isn't completed after `D` (and 20 times the slowest other)"},
			&cli.StringFlag{Name: "symbols", EnvVars: []string{"DIO_SYMBOLS"}, Usage: "look for source lines in `PATH` first: a .ko with debug information, or a folder of them"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT` of the verdict: text or json"},
			&cli.StringFlag{Name: "output", Usage: "write the verdict to `FILE` instead of standard output"},
		},
		Action: runAudit,
	}
}

func runAudit(c *cli.Context) error {
	format := c.String("format")
	if format != "text" && format != "json" {
		return withStatus(exitUsage, fmt.Errorf("audit: unknown format %q: text or json", format))
	}
	var caller *regexp.Regexp
	if pattern := c.String("caller"); pattern != "" {
		var err error
		if caller, err = regexp.Compile(pattern); err != nil {
			return withStatus(exitUsage, fmt.Errorf("audit: --caller: %w", err))
		}
	}
	if c.Duration("lost-after") <= 0 {
		return withStatus(exitUsage, errors.New("audit: --lost-after must be more than zero"))
	}
	if path := c.String("symbols"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return withStatus(exitUsage, fmt.Errorf("audit: --symbols: %w", err))
		}
	}
	run := trace.Run{
		PID: c.Int("pid"), Duration: c.Duration("duration"), LostAfter: c.Duration("lost-after"), Symbols: c.String("symbols"),
		Notice: func(s string) { fmt.Fprintf(c.App.ErrWriter, "dioctl: audit: %s\n", s) },
	}
	if name := c.String("ready"); name != "" {
		run.Ready = func() error { return os.WriteFile(name, nil, 0o644) }
	}
	if run.PID < 0 || run.Duration < 0 {
		return withStatus(exitUsage, errors.New("audit: --pid and --duration can't be less than zero"))
	}
	if args := c.Args().Slice(); len(args) > 0 {
		if run.PID != 0 || run.Duration != 0 {
			return withStatus(exitUsage, errors.New("audit: give a command, or --pid or --duration"))
		}
		run.Command = exec.Command(args[0], args[1:]...)
		run.Command.Stdin, run.Command.Stdout, run.Command.Stderr = os.Stdin, os.Stdout, os.Stderr
		// JSON on standard output must stay one object.
		if format == "json" && c.String("output") == "" {
			run.Command.Stdout = os.Stderr
		}
		if run.Command.Err != nil {
			return withStatus(exitUsage, fmt.Errorf("audit: %w", run.Command.Err))
		}
	}
	var report audit.Report
	err := run.Do(c.Context, func(e audit.Evidence) error {
		e.Modules, e.Caller = c.StringSlice("module"), caller
		report = audit.Judge(e)
		if err := writeAudit(c, format, report); err != nil {
			return fmt.Errorf("audit: write the verdict: %w", err)
		}
		return nil
	})
	if err != nil {
		return withStatus(exitEnvironment, err)
	}
	var ended *os.ProcessState
	if run.Command != nil {
		ended = run.Command.ProcessState
	}
	switch status := auditStatus(report.Verdict, ended); {
	case status == exitGood:
		return nil
	case report.Verdict != audit.VerdictClean:
		return withStatus(status, nil) // the report has told it
	default:
		return withStatus(status, fmt.Errorf("audit: %s: %s", run.Command.Args[0], ended))
	}
}

// auditStatus is the exit status: the verdict's, and after a clean one the audited
// command's own, as a shell tells it. ended is nil without a command.
func auditStatus(verdict string, ended *os.ProcessState) int {
	switch {
	case verdict == audit.VerdictViolations:
		return exitFinding
	case verdict != audit.VerdictClean:
		return exitEnvironment
	case ended == nil:
		return exitGood
	}
	if code := ended.ExitCode(); code >= 0 {
		return code
	}
	if ws, ok := ended.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return exitEnvironment
}

func writeAudit(c *cli.Context, format string, report audit.Report) error {
	out := c.App.Writer
	if name := c.String("output"); name != "" {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		if err := renderAudit(f, format, report); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	}
	return renderAudit(out, format, report)
}

func renderAudit(w io.Writer, format string, report audit.Report) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	return report.WriteText(w)
}
