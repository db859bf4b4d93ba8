// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/engine/pump"
)

// open opens both sides and picks their engines. It changes no file, but may
// create the target.
func (j *copyJob) open(c *cli.Context, r copyRequest) error {
	either := c.String("engine")
	j.src.Engine, j.srcAny = orDefault(r.readEngine, either)
	j.dst.Engine, j.dstAny = orDefault(r.writeEngine, either)
	for _, name := range []string{j.src.Engine, j.dst.Engine} {
		e, err := engine.Lookup(name)
		if err != nil {
			return withStatus(exitUsage, err)
		}
		if e.Access == engine.NeverDirect && j.direct == directOn {
			return usageErrorf("engine %s goes through memory whatever O_DIRECT says: leave --direct out", name)
		}
	}
	var err error
	if j.src.File, j.src.Plain, err = j.openSide(c.Context, r.src, false); err != nil {
		return err
	}
	j.src.Offset = r.from
	if !r.discard {
		if j.dst.File, j.dst.Plain, err = j.openSide(c.Context, r.dst, true); err != nil {
			return err
		}
		j.dst.Offset = r.to
		if sameFile(j.src.File, j.dst.File) && j.dst.File.Kind == engine.Regular && !r.keepAround {
			return usageErrorf("%s and %s are the same file: it would be emptied before it is read", r.src, r.dst)
		}
	}
	if j.direct == directOn && !j.src.File.Direct && (r.discard || !j.dst.File.Direct) {
		path := j.src.File.Path
		if !r.discard {
			path += ", " + j.dst.File.Path
		}
		return withHint(&os.PathError{Op: "open with O_DIRECT", Path: path, Err: unix.EINVAL},
			"no side's file system or driver takes O_DIRECT (tmpfs doesn't before kernel 6.6; streams never do)")
	}
	return j.settleEngines(r)
}

func orDefault(name, def string) (string, bool) {
	if name != "" {
		return name, false
	}
	return def, true
}

// openSide opens one side, with a plain descriptor beside a direct one for
// --direct=auto.
func (j *copyJob) openSide(ctx context.Context, path string, write bool) (f, plain *engine.File, err error) {
	if path == "-" {
		fd, name := unix.Stdin, "standard input"
		if write {
			fd, name = unix.Stdout, "standard output"
		}
		return engine.StreamFile(fd, name, write), nil, nil
	}
	stream := isStream(path)
	o := engine.FileOptions{Read: !write || !stream, Write: write, Create: write, Direct: j.direct != directOff && !stream}
	if stream {
		f, err = openPipe(ctx, path, o)
	} else {
		f, err = openReadable(path, o)
	}
	if o.Direct && errors.Is(err, unix.EINVAL) {
		j.notes = append(j.notes, path+" refuses O_DIRECT: opened without")
		o.Direct = false
		f, err = openReadable(path, o)
	}
	if err != nil {
		return nil, nil, err
	}
	j.toClose = append(j.toClose, f)
	if j.direct == directAuto && f.Direct {
		o.Direct = false
		if plain, err = openReadable(path, o); err != nil {
			return nil, nil, err
		}
		j.toClose = append(j.toClose, plain)
	}
	return f, plain, nil
}

// openReadable opens a target for reading, too, when that is allowed: mmap and
// --verify need it.
func openReadable(path string, o engine.FileOptions) (*engine.File, error) {
	f, err := engine.OpenFile(path, o)
	if o.Write && errors.Is(err, unix.EACCES) {
		o.Read = false
		f, err = engine.OpenFile(path, o)
	}
	return f, err
}

// openPipe opens one end of a named pipe, which waits for the other end: a
// writer that were a reader as well would never learn that it has none.
func openPipe(ctx context.Context, path string, o engine.FileOptions) (*engine.File, error) {
	type opened struct {
		f   *engine.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := engine.OpenFile(path, o)
		done <- opened{f, err}
	}()
	select {
	case r := <-done:
		return r.f, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.f != nil {
				_ = r.f.Close()
			}
		}()
		return nil, fmt.Errorf("open %s, which nobody opened at its other end: %w", path, ctx.Err())
	}
}

// isStream tells of a path that O_DIRECT means something else to (pipes) or
// nothing (terminals).
func isStream(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}

func sameFile(a, b *engine.File) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a.FD, &x) == nil && unix.Fstat(b.FD, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// settleEngines probes both sides. Where --engine works on one side only, the
// other gets preadv, and a note.
func (j *copyJob) settleEngines(r copyRequest) error {
	type probe struct {
		end *pump.End
		any bool
		err error
	}
	probes := []*probe{{end: &j.src, any: j.srcAny}}
	if !r.discard {
		probes = append(probes, &probe{end: &j.dst, any: j.dstAny})
	}
	works := 0
	for _, p := range probes {
		if p.end.File.Kind == engine.Stream {
			continue
		}
		if p.err = engine.Probe(p.end.Engine, p.end.File); p.err == nil && p.any {
			works++
		}
	}
	for _, p := range probes {
		if p.err == nil {
			continue
		}
		var no *engine.Unavailable
		if !errors.As(p.err, &no) || !p.any || works == 0 {
			return p.err
		}
		j.notes = append(j.notes, fmt.Sprintf("%s by preadv: %s can't, %s", p.end.File.Path, no.Engine, no.Reason))
		p.end.Engine = "preadv"
	}
	return nil
}

// plan settles lengths, depth and block size, and refuses what can't work
// before anything is written.
func (j *copyJob) plan(c *cli.Context, r copyRequest) error {
	if err := j.planLength(c, r); err != nil {
		return err
	}
	j.opt.Depth = int(c.Uint("depth"))
	if !c.IsSet("depth") {
		j.opt.Depth = 1
		for _, name := range []string{j.src.Engine, j.dst.Engine} {
			if e, err := engine.Lookup(name); err == nil && e.Async {
				j.opt.Depth = defaultAsyncDepth
			}
		}
	}
	if j.opt.Depth < 1 || j.opt.Depth > engine.MaxDepth {
		return usageErrorf("--depth %d is out of range: 1 to %d", j.opt.Depth, engine.MaxDepth)
	}
	block := c.Generic("block-size").(*sizeValue)
	if block.set {
		if block.n < 1 || block.n > 1<<30 {
			return usageErrorf("--block-size %d is out of range: 1 to 1G", block.n)
		}
		j.opt.BlockSize = int(block.n)
	} else {
		j.opt.BlockSize = int(j.largestRequest(defaultBlock))
	}
	return j.planDirect(r)
}

// largestRequest is n, or less where a dio device takes less.
func (j *copyJob) largestRequest(n int64) int64 {
	for _, f := range []*engine.File{j.src.File, j.dst.File} {
		if f == nil || f.Device() == nil {
			continue
		}
		if cfg, err := f.Device().Config(); err == nil && cfg.MaxRequest > 0 {
			n = min(n, int64(cfg.MaxRequest))
		}
	}
	return n
}

func (j *copyJob) planLength(c *cli.Context, r copyRequest) error {
	src, dst := j.src.File, j.dst.File
	j.opt.Length = -1
	toEnd := src.Kind == engine.Stream || unsized(src, r.from)
	if src.Size >= 0 && !toEnd {
		if r.from > src.Size {
			return usageErrorf("offset %d is past the end of %s: it has %d bytes", r.from, src.Path, src.Size)
		}
		j.opt.Length = src.Size - r.from
	}
	room := int64(-1)
	if dst != nil && dst.Size >= 0 && dst.Kind != engine.Regular {
		room = max(0, dst.Size-r.to)
	}
	if l := c.Generic("length").(*sizeValue); l.set {
		if j.opt.Length >= 0 && l.n > j.opt.Length {
			return usageErrorf("--length %d is more than the %d bytes that %s has from offset %d", l.n, j.opt.Length, src.Path, r.from)
		}
		j.opt.Length = l.n
	} else if j.opt.Length < 0 && !toEnd {
		if room < 0 {
			return usageErrorf("%s has no end: give --length", src.Path)
		}
		j.opt.Length = room
	}
	if room >= 0 && j.opt.Length > room {
		err := &os.PathError{Op: "write", Path: dst.Path, Err: unix.ENOSPC}
		return withHint(fmt.Errorf("%d bytes don't fit: %s has room for %d from offset %d: %w", j.opt.Length, dst.Path, room, r.to, err),
			fmt.Sprintf("copy less (--length), or enlarge a dio device: dioctl config set --capacity %d", pageUp(r.to+j.opt.Length)))
	}
	return nil
}

// unsized tells of a regular file whose size isn't what reading it gives: the
// kernel's own say 0, or a page in sysfs. Of any that seems empty it costs
// nothing to try.
func unsized(f *engine.File, from int64) bool {
	if f.Kind != engine.Regular {
		return false
	}
	var st unix.Statfs_t
	return f.Size == 0 && from == 0 || unix.Fstatfs(f.FD, &st) == nil && slices.Contains(madeUp, int64(st.Type))
}

// madeUp are the file systems that hold what the kernel says when it is read.
var madeUp = []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.CGROUP_SUPER_MAGIC,
	unix.CGROUP2_SUPER_MAGIC, unix.SECURITYFS_MAGIC, 0x62656570 /* configfs */}

func pageUp(n int64) int64 {
	page := int64(os.Getpagesize())
	return (n + page - 1) / page * page
}

// planDirect refuses what O_DIRECT can't carry, when nothing else may.
func (j *copyJob) planDirect(r copyRequest) error {
	if j.direct != directOn {
		return nil
	}
	check := func(what string, f *engine.File, n int64) error {
		if f == nil || !f.Direct || n%int64(f.OffsetAlign) == 0 {
			return nil
		}
		return withHint(usageErrorf("O_DIRECT on %s: %s %d isn't a multiple of %d", f.Path, what, n, f.OffsetAlign),
			"--direct=auto moves what O_DIRECT can't carry without it")
	}
	err := errors.Join(
		check("offset", j.src.File, r.from),
		check("offset", j.dst.File, r.to),
		check("block size", j.src.File, int64(j.opt.BlockSize)),
		check("block size", j.dst.File, int64(j.opt.BlockSize)),
	)
	if err == nil && j.opt.Length > 0 && directMatters(j.dst.Engine) {
		err = check("length", j.dst.File, j.opt.Length)
	}
	return err
}

// directMatters tells whether an engine heeds O_DIRECT.
func directMatters(name string) bool {
	e, err := engine.Lookup(name)
	return err == nil && e.Access != engine.AlwaysDirect
}
