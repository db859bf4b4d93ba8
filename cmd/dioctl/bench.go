// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dio/bench"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:      "bench",
		Usage:     "what each I/O API costs on files and devices, side by side",
		ArgsUsage: "TARGET...",
		Description: `TARGET is a device or a file, LABEL=TARGET names it for the tables. A TARGET that
isn't there is made, --size bytes long, and removed at the end. Writing to a
file or block device that was there needs --overwrite.

Every engine is measured at every --block-size and --depth: a warm-up that is
dropped, a timed pass for rate and cost, one more for percentiles, which are
told to within 1 in 128. Synchronous engines keep --depth operations in flight
by as many threads. psync is pread(2) and pwrite(2).

Under an instruction-counting clock (dioctl vm run --icount) a nanosecond is an
instruction: that is found out, and said in the heads of the columns.

--load shows saved reports (--format json) side by side instead of measuring,
and holds them against --goals: exit status 1 when one isn't met.`,
		Flags:  benchFlags(),
		Action: runBench,
	}
}

func benchFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "engine", Aliases: []string{"e"}, Usage: "`NAMES`, separated by commas: " + strings.Join(bench.Names(), ", ") + " (default: all)"},
		&cli.StringFlag{Name: "rw", Value: string(bench.Read), Usage: "`KINDS`, separated by commas: read, write, randread, randwrite"},
		&cli.StringFlag{Name: "block-size", Aliases: []string{"b"}, Usage: "`SIZES` of an operation, separated by commas (default: 4k; with --crossover 512 to 1M)"},
		&cli.StringFlag{Name: "depth", Usage: "operations in flight: `NUMBERS`, separated by commas (default: 1,32; with --crossover 1)"},
		&cli.StringFlag{Name: "batch", Value: "1", Usage: "completions that an asynchronous engine waits for at a time: `N`, or all that are in flight"},
		&cli.StringFlag{Name: "submit", Value: "all", Usage: "operations that an asynchronous engine hands over in one system call: `N`, or all that are free"},
		&cli.StringFlag{Name: "direct", Value: string(bench.DirectAuto), Usage: "O_DIRECT: on, off, or auto for where it can be had"},
		&cli.GenericFlag{Name: "size", Value: &sizeValue{}, Usage: "use the first `SIZE` of the target (default: all; 64M where it has no end)"},
		&cli.Int64Flag{Name: "ops", Usage: "`N` operations in the timed pass, rather than --duration"},
		&cli.DurationFlag{Name: "duration", Value: 500 * time.Millisecond, Usage: "`D` of the timed pass"},
		&cli.BoolFlag{Name: "warmup", Value: true, Usage: "make one pass first, and drop it"},
		&cli.DurationFlag{Name: "settle", Usage: "stay idle for `D` first (default: 3s under an instruction clock, else nothing)"},
		&cli.IntFlag{Name: "repeat", Value: 1, Usage: "measure all of it `N` times in turn; the cheapest is told, with how far the median lies above it"},
		&cli.BoolFlag{Name: "huge-pages", Usage: "buffers in transparent huge pages"},
		&cli.BoolFlag{Name: "busy", Usage: "count what workers, timers and interrupts do, too (instruction clock, one CPU)"},
		&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "`SEED` of random offsets"},
		&cli.StringFlag{Name: "clock", Value: "auto", Usage: "what the guest's clock counts, if it is known better: real or instructions"},
		&cli.BoolFlag{Name: "overwrite", Usage: "writing may destroy what files and block devices hold"},
		&cli.BoolFlag{Name: "crossover", Usage: "copying against O_DIRECT, by block size: where does direct win?"},
		&cli.BoolFlag{Name: "load", Usage: "operands are saved reports: show them, measure nothing"},
		&cli.StringFlag{Name: "goals", Usage: "with --load: `FILE` of lines KEY <= NUMBER or KEY <= NUMBER * KEY; KEY is LABEL/ENGINE/RW/BLOCK/DEPTH"},
		formatFlag(),
	}
}

// benchPlan is what the flags ask for.
type benchPlan struct {
	targets   []benchTarget
	specs     []bench.Spec // without target
	clock     bench.Clock
	settle    time.Duration
	repeat    int
	overwrite bool
	crossover bool
	size      int64
}

// benchTarget is an operand.
type benchTarget struct{ label, path string }

// crossoverSizes are 512 to 1M.
const crossoverSizes = "512,1k,2k,4k,8k,16k,32k,64k,128k,256k,512k,1M"

func planBench(c *cli.Context) (benchPlan, error) {
	p := benchPlan{repeat: c.Int("repeat"), overwrite: c.Bool("overwrite"), crossover: c.Bool("crossover"), size: sizeFlagOf(c, "size")}
	if c.NArg() == 0 {
		return p, usageErrorf("bench: want a device or file to measure")
	}
	for _, a := range c.Args().Slice() {
		p.targets = append(p.targets, parseBenchTarget(a))
	}
	blocks, depths := "4k", "1,32"
	if p.crossover {
		blocks, depths = crossoverSizes, "1"
		if c.IsSet("direct") {
			return p, usageErrorf("bench: --crossover compares --direct on with off: leave it out")
		}
	}
	if c.IsSet("block-size") {
		blocks = c.String("block-size")
	}
	if c.IsSet("depth") {
		depths = c.String("depth")
	}
	switch {
	case p.repeat < 1 || p.repeat > 1000:
		return p, usageErrorf("bench: --repeat %d is out of range: 1 to 1000", p.repeat)
	case c.IsSet("ops") && c.IsSet("duration"):
		return p, usageErrorf("bench: --ops and --duration don't go together")
	case c.IsSet("ops") && c.Int64("ops") < 1:
		return p, usageErrorf("bench: --ops %d is out of range: 1 or more", c.Int64("ops"))
	case c.Duration("duration") <= 0:
		return p, usageErrorf("bench: --duration %v is out of range: more than nothing", c.Duration("duration"))
	case c.Duration("settle") < 0:
		return p, usageErrorf("bench: --settle %v is out of range: nothing or more", c.Duration("settle"))
	case c.IsSet("goals"):
		return p, usageErrorf("bench: --goals judges saved reports: it goes with --load")
	}
	var err error
	if p.clock, err = bench.ParseClock(c.String("clock")); err != nil {
		return p, usageErrorf("bench: --clock: %w", err)
	}
	if p.settle = c.Duration("settle"); !c.IsSet("settle") && p.clock == bench.ClockInstructions {
		p.settle = 3 * time.Second
	}
	p.specs, err = benchSpecs(c, blocks, depths, p)
	return p, err
}

// parseBenchTarget reads [LABEL=]PATH; a label has no slash.
func parseBenchTarget(s string) benchTarget {
	if label, path, ok := strings.Cut(s, "="); ok && label != "" && path != "" && !strings.Contains(label, "/") {
		return benchTarget{label, path}
	}
	return benchTarget{"", s}
}

// benchSpecs are all combinations, the engines side by side.
func benchSpecs(c *cli.Context, blocks, depths string, p benchPlan) ([]bench.Spec, error) {
	engines := bench.Names()
	if p.crossover {
		engines = []string{bench.Psync}
	}
	if c.IsSet("engine") {
		engines = strings.Split(c.String("engine"), ",")
	}
	for _, e := range engines {
		if !contains(bench.Names(), e) {
			return nil, usageErrorf("bench: unknown engine %q: one of %s", e, strings.Join(bench.Names(), ", "))
		}
	}
	direct, err := bench.ParseDirect(c.String("direct"))
	if err != nil {
		return nil, usageErrorf("bench: --direct %w", err)
	}
	directs := []bench.Direct{direct}
	if p.crossover {
		directs = []bench.Direct{bench.DirectOff, bench.DirectOn}
	}
	var specs []bench.Spec
	for _, kind := range strings.Split(c.String("rw"), ",") {
		rw, err := bench.ParseRW(kind)
		if err != nil {
			return nil, usageErrorf("bench: --rw %w", err)
		}
		for _, b := range strings.Split(blocks, ",") {
			size, err := parseSize(b)
			if err != nil || size < 1 || size > 1<<30 {
				return nil, usageErrorf("bench: --block-size %q: want sizes of 1 to 1G, such as 4k,64k,1M", b)
			}
			for _, d := range strings.Split(depths, ",") {
				depth, err := strconv.Atoi(d)
				if err != nil || depth < 1 || depth > maxBenchDepth {
					return nil, usageErrorf("bench: --depth %q: want numbers of 1 to %d, such as 1,32", d, maxBenchDepth)
				}
				batch, err := benchBatch(c, "batch", depth)
				if err != nil {
					return nil, err
				}
				submit, err := benchBatch(c, "submit", depth)
				if err != nil {
					return nil, err
				}
				for _, e := range engines {
					for _, direct := range directs {
						specs = append(specs, bench.Spec{Engine: e, RW: rw, BlockSize: int(size), Depth: depth, Batch: batch, Submit: submit, Direct: direct, Size: p.size,
							Ops: c.Int64("ops"), Duration: c.Duration("duration"), NoWarmUp: !c.Bool("warmup"), HugePages: c.Bool("huge-pages"),
							Busy: c.Bool("busy"), Clock: p.clock, Seed: c.Uint64("seed")})
					}
				}
			}
		}
	}
	return specs, nil
}

// maxBenchDepth is far past what any device takes.
const maxBenchDepth = 1 << 20

// benchBatch is --batch or --submit at a depth.
func benchBatch(c *cli.Context, flag string, depth int) (int, error) {
	s := c.String(flag)
	if s == "all" {
		return depth, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, usageErrorf("bench: --%s %q: want a number of 1 or more, or all", flag, s)
	}
	return min(n, depth), nil
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func (t benchTarget) String() string {
	if t.label != "" {
		return fmt.Sprintf("%s (%s)", t.label, t.path)
	}
	return t.path
}
