// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

func copyCommand() *cli.Command {
	return &cli.Command{
		Name:      "copy",
		Usage:     "copy between files, devices and streams through any I/O API",
		ArgsUsage: "SRC DST",
		Description: `SRC and DST are files, devices, or - for standard input and output.

--engine applies to both sides; where only one of them can be driven by it (the
ioctl engine and a plain file, say) the other uses preadv, and the report says
so. --read-engine and --write-engine are taken at their word.

--direct opens both sides with O_DIRECT; one that refuses it at all (a stream,
an old tmpfs) goes without, and the report says so. Offsets and lengths must
then be multiples of what the side asks for (dioctl info shows it for a
device): what can't be carried, such as an odd tail, is refused before anything
is written. --direct=auto uses O_DIRECT for all that it can carry, and a second,
plain descriptor for the rest, when the direct part is done. Reading a few bytes
past an odd end to fill a unit is always fine.

A regular DST is created, and emptied first, unless --to-offset is given: then
the bytes around the copied ones stay. Nothing is emptied before both engines
proved to work. With --length a source that ends early is an error. A file that
the kernel makes up (/proc, /sys) is read to its end, whatever size it tells.
A named pipe as DST waits for its reader.`,
		Flags: append(copyFlags(),
			&cli.StringFlag{Name: "read-engine", Usage: "engine for SRC alone"},
			&cli.StringFlag{Name: "write-engine", Usage: "engine for DST alone"},
			&cli.GenericFlag{Name: "from-offset", Value: &sizeValue{}, Usage: "`OFFSET` in SRC"},
			&cli.GenericFlag{Name: "to-offset", Value: &sizeValue{}, Usage: "`OFFSET` in DST"},
			&cli.BoolFlag{Name: "verify", Usage: "read DST back the same way and compare SHA-256; a difference is exit status 1"},
			&cli.BoolFlag{Name: "sync", Usage: "make DST durable at the end (fsync)"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usageErrorf("copy: want SRC and DST, got %d operands (flags go before them)", c.NArg())
			}
			return runCopy(c, copyRequest{
				src: c.Args().Get(0), dst: c.Args().Get(1),
				readEngine: c.String("read-engine"), writeEngine: c.String("write-engine"),
				from: sizeFlagOf(c, "from-offset"), to: sizeFlagOf(c, "to-offset"), keepAround: c.IsSet("to-offset"),
				verify: c.Bool("verify"), sync: c.Bool("sync"),
			})
		},
	}
}

func readCommand() *cli.Command {
	return &cli.Command{
		Name:      "read",
		Usage:     "read a device or file to standard output, a file, or nowhere",
		ArgsUsage: "SRC",
		Flags: append(copyFlags(),
			&cli.GenericFlag{Name: "offset", Value: &sizeValue{}, Usage: "`OFFSET` in SRC"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "-", Usage: "`FILE` to write to"},
			&cli.BoolFlag{Name: "discard", Usage: "write nowhere: for --sha256, or to make the device work"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageErrorf("read: want one device or file, got %d operands (flags go before them)", c.NArg())
			}
			r := copyRequest{src: c.Args().First(), dst: c.String("output"), from: sizeFlagOf(c, "offset"), discard: c.Bool("discard"),
				writeEngine: "preadv"}
			return runCopy(c, r)
		},
	}
}

func writeCommand() *cli.Command {
	return &cli.Command{
		Name:      "write",
		Usage:     "write standard input or a file to a device or file",
		ArgsUsage: "DST",
		Flags: append(copyFlags(),
			&cli.GenericFlag{Name: "offset", Value: &sizeValue{}, Usage: "`OFFSET` in DST; what is around the written bytes stays"},
			&cli.StringFlag{Name: "input", Aliases: []string{"i"}, Value: "-", Usage: "`FILE` to read from"},
			&cli.BoolFlag{Name: "verify", Usage: "read DST back the same way and compare SHA-256; a difference is exit status 1"},
			&cli.BoolFlag{Name: "sync", Usage: "make DST durable at the end (fsync)"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageErrorf("write: want one device or file, got %d operands (flags go before them)", c.NArg())
			}
			return runCopy(c, copyRequest{src: c.String("input"), dst: c.Args().First(), to: sizeFlagOf(c, "offset"), keepAround: true,
				readEngine: "preadv", verify: c.Bool("verify"), sync: c.Bool("sync")})
		},
	}
}

// copyFlags are those that copy, read and write share.
func copyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "engine", Aliases: []string{"e"}, Value: "preadv",
			Usage: "I/O API `NAME`: preadv, preadv2, mmap, aio, io_uring, io_uring-fixed, io_uring-iopoll, uring_cmd, uring_cmd-fixed, uring_cmd-iopoll, ioctl, ioctl-buffer, splice"},
		&cli.GenericFlag{Name: "direct", Value: new(directValue), Usage: "O_DIRECT: on (also by --direct alone), off, or auto for what it can carry"},
		&cli.UintFlag{Name: "depth", Usage: "operations in flight on each side; default 32 where the engine is asynchronous, else 1 (more: threads)"},
		&cli.GenericFlag{Name: "block-size", Aliases: []string{"b"}, Value: &sizeValue{}, Usage: "`SIZE` of an operation; default 256k, or the device's largest request"},
		&cli.GenericFlag{Name: "length", Value: &sizeValue{}, Usage: "`SIZE` to copy; default: to the end"},
		&cli.BoolFlag{Name: "sha256", Usage: "report the SHA-256 of the bytes"},
		formatFlag(),
	}
}

func sizeFlagOf(c *cli.Context, name string) int64 { return c.Generic(name).(*sizeValue).n }

// directValue is --direct.
type directValue string

const (
	directOff  directValue = ""
	directOn   directValue = "on"
	directAuto directValue = "auto"
)

func (d *directValue) Set(s string) error {
	switch s {
	case "true", "on", "yes":
		*d = directOn
	case "auto":
		*d = directAuto
	case "false", "off", "no":
		*d = directOff
	default:
		return fmt.Errorf("want on, off or auto, not %q", s)
	}
	return nil
}

func (d *directValue) String() string {
	if d == nil {
		return ""
	}
	return string(*d)
}

// IsBoolFlag lets --direct stand alone.
func (d *directValue) IsBoolFlag() bool { return true }

// copyView is the result of copy, read and write.
type copyView struct {
	Schema         string   `json:"schema"`
	Bytes          int64    `json:"bytes"`
	DurationNS     int64    `json:"duration_ns"`
	BytesPerSecond float64  `json:"bytes_per_second"`
	Source         sideView `json:"source"`
	Target         sideView `json:"target"`
	SHA256         string   `json:"sha256,omitempty"`
	Verified       *bool    `json:"verified,omitempty"`
	Notes          []string `json:"notes,omitempty"` // what wasn't done as asked, and why
}

// sideView is one side of a copy.
type sideView struct {
	Path       string `json:"path"`
	Kind       string `json:"kind"`
	Engine     string `json:"engine"`
	Direct     bool   `json:"direct"`
	Depth      int    `json:"depth"`
	Offset     int64  `json:"offset"`
	Ops        int64  `json:"ops"`
	Resumed    int64  `json:"resumed"`     // operations that moved less than asked and were continued
	Retried    int64  `json:"retried"`     // operations that were told EAGAIN and repeated
	PlainBytes int64  `json:"plain_bytes"` // bytes that O_DIRECT couldn't carry
}

func (v *copyView) text(w io.Writer) {
	seconds := float64(v.DurationNS) / 1e9
	rows := []string{
		fmt.Sprintf("copied\t%s (%d bytes) in %.3f s, %s/s", formatSize(v.Bytes), v.Bytes, seconds, formatSize(int64(v.BytesPerSecond))),
		"source\t" + v.Source.text("reads"),
		"target\t" + v.Target.text("writes"),
	}
	if v.SHA256 != "" {
		rows = append(rows, "sha256\t"+v.SHA256)
	}
	if v.Verified != nil {
		verdict := "the target reads back the same"
		if !*v.Verified {
			verdict = "NO: the target reads back DIFFERENT bytes"
		}
		rows = append(rows, "verified\t"+verdict)
	}
	for _, n := range v.Notes {
		rows = append(rows, "note\t"+n)
	}
	table(w, rows...)
}

func (s *sideView) text(ops string) string {
	if s.Kind == "" {
		return s.Path
	}
	text := fmt.Sprintf("%s by %s, depth %d, %d %s", s.Path, s.Engine, s.Depth, s.Ops, ops)
	if s.Direct {
		text += ", O_DIRECT"
	}
	if s.Offset > 0 {
		text += fmt.Sprintf(", from offset %d", s.Offset)
	}
	if s.PlainBytes > 0 {
		text += fmt.Sprintf(" (but for %d bytes)", s.PlainBytes)
	}
	if s.Resumed > 0 {
		text += fmt.Sprintf(", %d resumed", s.Resumed)
	}
	if s.Retried > 0 {
		text += fmt.Sprintf(", %d repeated after EAGAIN", s.Retried)
	}
	return text
}
