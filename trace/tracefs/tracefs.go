// SPDX-License-Identifier: GPL-2.0-only

// Package tracefs reads a kernel's tracepoints through a private tracing
// instance: its buffer, filters and switches are nobody else's, and all of it
// is gone after Close. No BPF is needed.
package tracefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options shape an instance.
type Options struct {
	Name     string // the instance's; must be unique: put the process id in
	BufferKB int    // buffer per CPU, KiB; 0: 1024
}

// Instance is a private tracing instance. It belongs to one goroutine.
type Instance struct {
	dir  string
	pipe int
	rest []byte // the start of a line that wasn't read to its end
	buf  []byte
	lost uint64
}

// Root is the folder where tracefs is mounted. An error says how to mount it.
func Root() (string, error) {
	return rootIn("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
}

func rootIn(mounts ...string) (string, error) {
	for _, dir := range mounts {
		if _, err := os.Stat(filepath.Join(dir, "instances")); err == nil {
			return dir, nil
		} else if errors.Is(err, os.ErrPermission) {
			return "", fmt.Errorf("tracefs at %s: %w (run as root)", dir, err)
		}
	}
	return "", fmt.Errorf("tracefs isn't mounted: mount -t tracefs nodev %s (as root): %w", mounts[0], os.ErrNotExist)
}

// Open makes an instance. Needs root.
func Open(o Options) (*Instance, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	i := &Instance{dir: filepath.Join(root, "instances", o.Name), pipe: -1, buf: make([]byte, 64<<10)}
	if err := os.Mkdir(i.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a tracing instance: %w", err)
	}
	if o.BufferKB == 0 {
		o.BufferKB = 1024
	}
	err = errors.Join(i.write("trace_clock", "mono"), i.write("buffer_size_kb", strconv.Itoa(o.BufferKB)))
	if err == nil {
		i.pipe, err = unix.Open(filepath.Join(i.dir, "trace_pipe"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set the tracing instance up: %w", err), i.Close())
	}
	return i, nil
}

func (i *Instance) write(file, text string) error {
	return os.WriteFile(filepath.Join(i.dir, file), []byte(text), 0)
}

// Enable switches on the events of a group ("dio"), or one of them
// ("dio/dio_pin").
func (i *Instance) Enable(event string) error {
	err := i.write(filepath.Join("events", event, "enable"), "1")
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("this kernel has no event %s now; is its module loaded? %w", event, err)
	}
	if err != nil {
		return fmt.Errorf("enable event %s: %w", event, err)
	}
	return nil
}

// Filter has an event ("dio/dio_pin") told only when the expression is true of its
// fields, in the kernel's own language ("bytes > 512").
func (i *Instance) Filter(event, expression string) error {
	if err := i.write(filepath.Join("events", event, "filter"), expression); err != nil {
		return fmt.Errorf("filter event %s by %q: %w", event, expression, err)
	}
	return nil
}

// Drain returns the events that are in the buffer now, oldest first.
func (i *Instance) Drain() ([]Event, error) {
	var events []Event
	for {
		n, err := unix.Read(i.pipe, i.buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN, err == nil && n == 0:
			return events, nil
		case err != nil:
			return events, fmt.Errorf("read the trace: %w", err)
		}
		events = i.split(i.buf[:n], events)
	}
}

// split parses whole lines, and keeps what is left for the next read.
func (i *Instance) split(b []byte, events []Event) []Event {
	text := string(i.rest) + string(b)
	for {
		line, rest, whole := strings.Cut(text, "\n")
		if !whole {
			i.rest = []byte(line)
			return events
		}
		text = rest
		if n, ok := parseLost(line); ok {
			i.lost += n
			continue
		}
		if e, ok := ParseEvent(line); ok {
			events = append(events, e)
		}
	}
}

// Stream calls f for each event as it comes, until ctx ends (nil) or f or the
// reading fails.
func (i *Instance) Stream(ctx context.Context, f func(Event) error) error {
	for {
		events, err := i.Drain()
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := f(e); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		fds := []unix.PollFd{{Fd: int32(i.pipe), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 100); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for the trace: %w", err)
		}
	}
}

// Lost is how many events the buffer had no room for, so far.
func (i *Instance) Lost() uint64 { return i.lost }

// Close removes the instance.
func (i *Instance) Close() error {
	var errs []error
	if i.pipe >= 0 {
		errs = append(errs, unix.Close(i.pipe))
		i.pipe = -1
	}
	// A reader that was just closed may keep it busy for a moment.
	for try := 0; ; try++ {
		err := unix.Rmdir(i.dir)
		if err == nil || err == unix.ENOENT {
			break
		}
		if err != unix.EBUSY || try == 20 {
			errs = append(errs, &os.PathError{Op: "remove", Path: i.dir, Err: err})
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.Join(errs...)
}
