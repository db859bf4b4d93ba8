// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/engine/pump"
)

// copyRequest is what is to be copied; the shared flags stay in the context.
type copyRequest struct {
	src, dst                string // "-": standard input, output
	readEngine, writeEngine string // "": --engine
	from, to                int64
	keepAround              bool // a regular target isn't emptied
	discard                 bool // no target
	verify, sync            bool
}

const (
	defaultBlock      = 256 << 10
	defaultAsyncDepth = 32
)

// copyJob is a copy with its files open.
type copyJob struct {
	src, dst       pump.End // dst.File is nil when discarding
	opt            pump.Options
	direct         directValue
	notes          []string
	toClose        []*engine.File
	srcAny, dstAny bool // the engine was --engine's, so preadv may stand in
}

func runCopy(c *cli.Context, r copyRequest) (err error) {
	j := &copyJob{direct: *c.Generic("direct").(*directValue)}
	defer func() {
		for _, f := range j.toClose {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := j.open(c, r); err != nil {
		return err
	}
	if err := j.plan(c, r); err != nil {
		return err
	}
	if r.verify && j.dst.File.Kind == engine.Stream {
		return usageErrorf("--verify: %s is a stream, it can't be read back", j.dst.File.Path)
	}
	// Nothing was changed so far, nor is it while an engine may still be refused.
	if !r.discard && j.dst.File.Kind == engine.Regular && !r.keepAround && j.dst.File.Size > 0 {
		j.opt.Ready = func() error {
			if err := unix.Ftruncate(j.dst.File.FD, 0); err != nil {
				return &os.PathError{Op: "truncate", Path: j.dst.File.Path, Err: err}
			}
			return nil
		}
	}
	hash := sha256.New()
	if c.Bool("sha256") || r.verify {
		j.opt.Hash = hash
	}
	progress := newCopyProgress(os.Stderr, j.opt.Length)
	j.opt.Progress, j.opt.Sync = progress.at, r.sync
	dst := &j.dst
	if r.discard {
		dst = nil
	}
	res, err := pump.Run(c.Context, j.src, dst, j.opt)
	progress.clear()
	if r.dst == "-" && errors.Is(err, unix.EPIPE) {
		return withStatus(exitBrokenPipe, errors.New("")) // who read it has enough
	}
	if err != nil {
		return copyError(err, res)
	}
	v := j.view(r, res)
	if j.opt.Hash != nil {
		v.SHA256 = hex.EncodeToString(hash.Sum(nil))
	}
	if r.verify {
		same, err := j.readsBack(c, res.Bytes, hash.Sum(nil))
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		v.Verified = &same
	}
	out := c.App.Writer
	if r.dst == "-" && !r.discard {
		out = c.App.ErrWriter // standard output has the bytes
		if !wantJSON(c) && !c.Bool("sha256") && len(v.Notes) == 0 {
			return nil
		}
	}
	if err := emitTo(out, wantJSON(c), v, v.text); err != nil {
		return err
	}
	if v.Verified != nil && !*v.Verified {
		return withStatus(exitFinding, fmt.Errorf("%s doesn't hold what was written to it", j.dst.File.Path))
	}
	return nil
}

// readsBack reads the target again the way it was written.
func (j *copyJob) readsBack(c *cli.Context, n int64, want []byte) (bool, error) {
	if !j.dst.File.Read {
		return false, fmt.Errorf("%s isn't readable", j.dst.File.Path)
	}
	h := sha256.New()
	o := j.opt
	o.Length, o.Hash, o.Progress, o.Sync, o.Ready = n, h, nil, false, nil
	if _, err := pump.Run(c.Context, j.dst, nil, o); err != nil {
		return false, err
	}
	return bytes.Equal(h.Sum(nil), want), nil
}

// copyError adds how far the copy came, and what to do.
func copyError(err error, res pump.Result) error {
	err = fmt.Errorf("after %d bytes: %w", res.Bytes, err)
	var op *pump.OpError
	if !errors.As(err, &op) {
		return err
	}
	switch {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, engine.ErrBusFault):
		return withHint(err, "no room is left: for a dio device see capacity and store-limit in dioctl config get")
	case errors.Is(err, unix.EINVAL):
		return withHint(err, "EINVAL from I/O: unaligned for O_DIRECT (--direct=auto helps), or a block over the device's max-request (--block-size)")
	case errors.Is(err, unix.EOPNOTSUPP):
		return withHint(err, "this file or its driver doesn't support the operation: try another --engine")
	case errors.Is(err, unix.EAGAIN):
		return withHint(err, "the device's limits of requests in flight are used up: see max-in-flight in dioctl config get")
	}
	return err
}

func (j *copyJob) view(r copyRequest, res pump.Result) copyView {
	side := func(e pump.End, n pump.Counts) sideView {
		name := e.Engine
		depth := j.opt.Depth
		if e.File.Kind == engine.Stream {
			name, depth = "read", 1
			if e.File.Write {
				name = "write"
			}
		}
		return sideView{e.File.Path, e.File.Kind.String(), name, isDirect(e), depth, e.Offset, n.Ops, n.Resumed, n.Retried, n.Plain}
	}
	v := copyView{Schema: "dio.copy/1", Bytes: res.Bytes, DurationNS: int64(res.Duration), Source: side(j.src, res.Read), Notes: j.notes}
	if s := res.Duration.Seconds(); s > 0 {
		v.BytesPerSecond = float64(res.Bytes) / s
	}
	if r.discard {
		v.Target = sideView{Path: "none"}
	} else {
		v.Target = side(j.dst, res.Write)
	}
	return v
}

// isDirect tells whether an end's operations bypass the page cache or a copy.
func isDirect(e pump.End) bool {
	switch en, err := engine.Lookup(e.Engine); {
	case err != nil, e.File.Kind == engine.Stream, en.Access == engine.NeverDirect:
		return false
	case en.Access == engine.AlwaysDirect:
		return true
	}
	return e.File.Direct
}

// copyProgress shows how far a copy is, on a terminal only.
type copyProgress struct {
	w     io.Writer
	total int64 // bytes; -1: unknown
	next  time.Time
	shown bool
}

func newCopyProgress(f *os.File, total int64) *copyProgress {
	p := &copyProgress{total: total, next: time.Now().Add(time.Second)}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
		p.w = f
	}
	return p
}

func (p *copyProgress) at(n int64) {
	if p.w == nil || time.Now().Before(p.next) {
		return
	}
	p.next, p.shown = time.Now().Add(200*time.Millisecond), true
	if p.total > 0 {
		fmt.Fprintf(p.w, "\r\033[K%s of %s (%d %%)", formatSize(n), formatSize(p.total), n*100/p.total)
	} else {
		fmt.Fprintf(p.w, "\r\033[K%s", formatSize(n))
	}
}

func (p *copyProgress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\033[K")
	}
}
