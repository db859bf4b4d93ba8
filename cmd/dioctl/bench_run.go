// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"dio/bench"
)

func runBench(c *cli.Context) error {
	if c.Bool("load") {
		return loadBench(c)
	}
	p, err := planBench(c)
	if err != nil {
		return err
	}
	made, err := p.makeFiles()
	defer func() {
		for _, path := range made {
			os.Remove(path)
		}
	}()
	if err != nil {
		return err
	}
	if err := p.allowed(made); err != nil {
		return err
	}
	reports, err := p.measure(c.Context, progressTo(os.Stderr))
	if err != nil {
		return err
	}
	v := &benchView{reports: reports, crossover: p.crossover}
	if wantJSON(c) {
		err = v.json(c.App.Writer)
	} else {
		v.text(c.App.Writer)
	}
	if err == nil && !v.anything() {
		err = errors.New("bench: nothing could be measured: the result says why")
	}
	return err
}

// makeFiles makes the targets that aren't there; those it made are returned
// even with an error.
func (p *benchPlan) makeFiles() (made []string, err error) {
	for _, t := range p.targets {
		if _, err := os.Lstat(t.path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if p.size == 0 {
			return made, withHint(&os.PathError{Op: "measure", Path: t.path, Err: fs.ErrNotExist}, "with --size a file of that size is made, and removed at the end")
		}
		if err := bench.CreateFile(t.path, p.size); err != nil {
			return made, fmt.Errorf("make a file to measure: %w", err)
		}
		made = append(made, t.path)
	}
	return made, nil
}

// allowed refuses to destroy what wasn't made here and may be dear to
// somebody. A char device has no contents that last.
func (p *benchPlan) allowed(made []string) error {
	writes := false
	for _, s := range p.specs {
		writes = writes || s.RW.Writes()
	}
	if !writes || p.overwrite {
		return nil
	}
	for _, t := range p.targets {
		st, err := os.Stat(t.path)
		if err != nil || contains(made, t.path) {
			continue
		}
		if st.Mode().IsRegular() || st.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice {
			return usageErrorf("bench: writing would destroy what %s holds: --overwrite if that is fine, or name a new file and give --size", t.path)
		}
	}
	return nil
}

// measure makes all measurements: targets and engines in turn at each setting,
// and that as often as wanted, so that what changes with time hits all alike.
func (p *benchPlan) measure(ctx context.Context, progress *progress) ([]bench.Report, error) {
	reports := make([]bench.Report, len(p.targets))
	results := make([][][]bench.Result, len(p.targets)) // by target, spec, repeat
	for i, t := range p.targets {
		reports[i] = bench.NewReport(t.path, t.label, p.clock)
		results[i] = make([][]bench.Result, len(p.specs))
	}
	defer progress.Clear()
	stage := func(format string, args ...any) {
		if progress.terminal { // a pipe is spared it
			progress.Stage(format, args...)
		}
	}
	if p.settle > 0 {
		stage("settling for %v", p.settle)
		select {
		case <-time.After(p.settle):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for n := range p.repeat {
		for i, s := range p.specs {
			for k, t := range p.targets {
				stage("%d of %d: %s, %s %s by %s, depth %d", n*len(p.specs)+i+1, p.repeat*len(p.specs), t, s.RW, formatSize(int64(s.BlockSize)), s.Engine, s.Depth)
				s.Target = t.path
				r, err := bench.Measure(ctx, s)
				if err != nil {
					return nil, fmt.Errorf("bench of %s: %w", t, err)
				}
				results[k][i] = append(results[k][i], r)
			}
		}
	}
	for k := range reports {
		for _, repeats := range results[k] {
			reports[k].Results = append(reports[k].Results, bench.Merge(repeats))
		}
	}
	return reports, nil
}

// loadBench shows saved reports and judges them.
func loadBench(c *cli.Context) error {
	if c.NArg() == 0 {
		return usageErrorf("bench: --load wants files of reports (dioctl bench --format json)")
	}
	v := &benchMatrix{Schema: "dio.bench.compare/1"}
	for _, path := range c.Args().Slice() {
		err := withFile(path, func(r io.Reader) error {
			reports, err := bench.ReadReports(r)
			v.Reports = append(v.Reports, reports...)
			return err
		})
		if err != nil {
			return err
		}
	}
	if path := c.String("goals"); path != "" {
		err := withFile(path, func(r io.Reader) (err error) {
			v.Goals, err = bench.ParseGoals(r)
			return err
		})
		if err != nil {
			return err
		}
	}
	met := bench.Judge(v.Goals, v.Reports)
	if err := emit(c, v, v.text); err != nil {
		return err
	}
	if !met {
		return withStatus(exitFinding, nil)
	}
	return nil
}

func withFile(path string, use func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := use(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
