// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// exitBrokenPipe is what a shell makes of a death by SIGPIPE.
const exitBrokenPipe = 128 + int(unix.SIGPIPE)

// endOnSignals gives a context that the first of the usual signals ends: what
// was changed must be put back. A second one has its usual effect, but for
// SIGHUP: a closed terminal sends several.
func endOnSignals() (context.Context, context.CancelFunc) {
	ends, survived := []os.Signal{os.Interrupt, unix.SIGTERM}, []os.Signal{unix.SIGPIPE}
	if !signal.Ignored(unix.SIGHUP) { // as under nohup
		ends, survived = append(ends, unix.SIGHUP), append(survived, unix.SIGHUP)
	}
	// Not signal.Ignore, which the programs started here would inherit.
	signal.Notify(make(chan os.Signal, 1), survived...)
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// brokenPipe is standard output. Once nobody reads it any more there is nothing
// left to do but to end in order.
type brokenPipe struct {
	w      io.Writer
	broken func()
	is     atomic.Bool
}

func (b *brokenPipe) Write(p []byte) (int, error) {
	n, err := b.w.Write(p)
	if errors.Is(err, unix.EPIPE) {
		b.is.Store(true)
		b.broken()
	}
	return n, err
}

func (b *brokenPipe) seen() bool { return b.is.Load() }

// silenced tells whether a broken pipe was all that was wrong: err has nothing
// to add.
func silenced(err error) bool {
	return err == nil || errors.Is(err, unix.EPIPE) || errors.Is(err, context.Canceled)
}
