// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dio/vm/wire"
)

// conversation is the host's side of the port for one run.
type conversation struct {
	spec  *Spec
	res   *Result
	start time.Time
	r     *wire.Reader
	w     *wire.Writer

	up   func() // called with the guest's first word
	kmsg strings.Builder
	outs []*outSink
	room *window // for input, at the guest
	done chan struct{}

	mu      sync.Mutex
	early   []unix.Signal // asked for before the guest could take them
	greeted bool          // the guest's PID 1 was heard
}

// maxKmsg bounds the kernel log that is kept, in bytes.
const maxKmsg = 16 << 20

func newConversation(port io.ReadWriter, s *Spec, res *Result, start time.Time) *conversation {
	c := &conversation{spec: s, res: res, start: start, r: wire.NewReader(port), w: wire.NewWriter(port),
		room: newWindow(wire.StdinWindow), done: make(chan struct{})}
	for _, o := range s.Outs {
		c.outs = append(c.outs, newOutSink(o))
	}
	return c
}

// heard tells whether the guest's first word came.
func (c *conversation) heard() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.greeted
}

// signal sends sig to the command, now or as soon as the guest is up.
func (c *conversation) signal(sig unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.greeted {
		c.early = append(c.early, sig)
		return
	}
	go func() { _ = c.w.SendUint32(wire.Signal, uint32(sig)) }()
}

// run takes frames until Exit, Fail or the end of the stream. nil means
// that the guest gave a result, now in the Result.
func (c *conversation) run() error {
	defer close(c.done)
	defer func() {
		for _, o := range c.outs {
			o.abandon()
		}
	}()
	for {
		f, err := c.r.Next()
		if err != nil {
			c.res.Kmsg = c.kmsg.String()
			if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, os.ErrClosed) {
				return errNoResult
			}
			return err
		}
		end, err := c.take(f)
		if end || err != nil {
			c.res.Kmsg = c.kmsg.String()
			_ = c.w.Send(wire.Bye, 0, nil)
			return err
		}
	}
}

func (c *conversation) take(f wire.Frame) (end bool, err error) {
	switch f.Type {
	case wire.Hello:
		return false, c.greet(f)
	case wire.Stdout:
		_, err = c.spec.Stdout.Write(f.Payload)
	case wire.Stderr:
		_, err = c.spec.Stderr.Write(f.Payload)
	case wire.Note:
		_, err = fmt.Fprintf(c.spec.Stderr, "vm: %s\n", f.Payload)
	case wire.Kmsg:
		if c.kmsg.Len() < maxKmsg {
			c.kmsg.Write(f.Payload)
		}
	case wire.Credit:
		n, err := f.Uint32()
		if err != nil {
			return false, err
		}
		c.room.give(n)
	case wire.Tar, wire.OutEnd:
		if int(f.Stream) >= len(c.outs) {
			return false, fmt.Errorf("%w: output %d of %d", wire.ErrCorrupt, f.Stream, len(c.outs))
		}
		o := c.outs[f.Stream]
		if f.Type == wire.Tar {
			o.data(f.Payload)
		} else if err := o.finish(string(f.Payload)); err != nil {
			c.res.OutErrors = append(c.res.OutErrors, err)
		}
	case wire.Fail:
		return true, fmt.Errorf("the guest could not run the command: %s", f.Payload)
	case wire.Exit:
		var st wire.Status
		if err := f.JSON(&st); err != nil {
			return false, err
		}
		c.res.Status, c.res.Signal = st.Code, st.Signal
		return true, nil
	default:
		return false, fmt.Errorf("%w: type %d from the guest", wire.ErrCorrupt, f.Type)
	}
	if err != nil {
		return false, fmt.Errorf("pass the command's output on: %w", err)
	}
	return false, nil
}

func (c *conversation) greet(f wire.Frame) error {
	var g wire.Greeting
	if err := f.JSON(&g); err != nil {
		return err
	}
	if c.up != nil {
		c.up()
	}
	c.res.Release, c.res.Booted = g.Release, time.Since(c.start)
	c.spec.Progress(StageRunning)
	c.mu.Lock()
	c.greeted = true
	early := c.early
	c.mu.Unlock()
	for _, s := range early {
		c.signal(s)
	}
	if c.spec.Stdin != nil {
		go c.sendInput()
	}
	if c.spec.Resized != nil {
		go c.sendSizes()
	}
	return nil
}

// sendInput sends Stdin within the guest's credit. It may outlive the run,
// blocked in a Read that nothing can end; it then sends nothing.
func (c *conversation) sendInput() {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.spec.Stdin.Read(buf)
		if !c.room.take(n, c.done) {
			return
		}
		if n > 0 && c.w.Send(wire.Stdin, 0, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = c.w.Send(wire.StdinEnd, 0, nil)
			return
		}
	}
}

// window is how many bytes the guest takes now. Giving never waits: who gives
// also takes the guest's output.
type window struct {
	mu   sync.Mutex
	n    int64
	more chan struct{} // holds a token after each give
}

func newWindow(n int64) *window { return &window{n: n, more: make(chan struct{}, 1)} }

func (w *window) give(n uint32) {
	w.mu.Lock()
	w.n += int64(n)
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// take waits for n bytes of room; false: done came first.
func (w *window) take(n int, done <-chan struct{}) bool {
	for {
		select {
		case <-done:
			return false
		default:
		}
		w.mu.Lock()
		ok := w.n >= int64(n)
		if ok {
			w.n -= int64(n)
		}
		w.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-w.more:
		case <-done:
			return false
		}
	}
}

func (c *conversation) sendSizes() {
	for {
		select {
		case s, ok := <-c.spec.Resized:
			if !ok || c.w.SendJSON(wire.Resize, s) != nil {
				return
			}
		case <-c.done:
			return
		}
	}
}
