// SPDX-License-Identifier: GPL-2.0-only

// Package engine puts the kernel's I/O APIs behind one small interface: a
// Queue takes operations on an open file, keeps up to its depth of them in
// flight, and hands them back when they are done. Synchronous APIs are queues
// too; with a depth above one they use as many threads.
//
// # Ownership
//
// An Op and its buffer belong to the queue, and to the kernel, from Submit
// until Reap returns that Op. Buffers must be memory outside Go's heap (Pool):
// the kernel may write into them long after Submit returned, and knows nothing
// of Go's garbage collector. Close cancels what it can, waits for the rest,
// and only then returns: after it, buffers may go.
//
// # Goroutines
//
// A Queue belongs to the goroutine that opened it, for io_uring ties a ring to
// the thread that made it: Open may lock the goroutine to its thread, and
// Close, in the same goroutine, undoes that.
package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what an operation does.
type Kind uint8

const (
	Read  Kind = iota // file to buffer
	Write             // buffer to file
	Sync              // wait until what was written is durable (fsync); Buf and Offset are ignored
)

// String is "read", "write" or "sync".
func (k Kind) String() string {
	return [...]string{"read", "write", "sync"}[k]
}

// Flags ask for variants of an operation; their values are the kernel's RWF_*.
type Flags uint32

const (
	HiPri     Flags = unix.RWF_HIPRI     // poll for the completion
	DSync     Flags = unix.RWF_DSYNC     // as O_DSYNC, for this write
	SyncWrite Flags = unix.RWF_SYNC      // as O_SYNC, for this write
	NoWait    Flags = unix.RWF_NOWAIT    // EAGAIN rather than wait
	Append    Flags = unix.RWF_APPEND    // as O_APPEND, for this write
	DontCache Flags = unix.RWF_DONTCACHE // leave nothing in the page cache (kernel 6.14)
	Atomic    Flags = unix.RWF_ATOMIC    // all or nothing (kernel 6.11)
)

// Op is one operation. See the package's words on ownership.
type Op struct {
	Kind   Kind
	Buf    []byte // outside Go's heap
	Offset int64  // bytes, position in the file
	Flags  Flags

	// Results, valid once Reap returned the Op. Both may be set: a write can
	// move some bytes and fail after. Err is a unix.Errno as the kernel gave
	// it, or says why the engine couldn't try.
	N   int // bytes moved; may be fewer than len(Buf)
	Err error

	// Set when Options.Timestamps asks for it: on one monotonic clock, just
	// before the hand-over and just after the completion was seen.
	Submitted, Completed time.Duration

	User any // the caller's

	slot   uint32
	cancel bool // asked for since the hand-over
}

// Queue is an API opened on a file.
type Queue interface {
	// Submit hands over ops, in order, and returns how many were taken. Fewer
	// than all, without an error, when depth is reached or the kernel is out
	// of room: Reap, then submit the rest. An Op that the kernel refused was
	// taken; its Err comes through Reap. An error is the queue's own, of io_uring
	// only: io_uring_enter(2) failed, or found no room for long; it wraps the
	// errno. What was taken counts as in flight all the same.
	Submit(ops []*Op) (int, error)

	// Reap waits until min operations are done (or all in flight, if those
	// are fewer) and appends every finished one to done, in the order in
	// which the kernel tells them (io_uring of kernel 6.1 tells what ended
	// since the last look newest first). When ctx ends first it returns ctx's
	// error with what it has.
	Reap(ctx context.Context, min int, done []*Op) ([]*Op, error)

	// InFlight is how many operations were taken and not yet reaped.
	InFlight() int

	// Depth is the largest InFlight.
	Depth() int

	// Cancel asks that an operation in flight be cancelled. It still comes
	// through Reap. ErrNotCancelable: it will run its course.
	Cancel(op *Op) error

	// Strays is how many completions the kernel told for operations that
	// weren't in flight: each is a bug in a driver or the kernel.
	Strays() int

	// Close cancels and waits for all in flight, and frees the queue. It
	// doesn't close the file.
	Close() error
}

// ErrNotCancelable is Cancel's answer where the API or the operation's state
// doesn't allow it.
var ErrNotCancelable = errors.New("the operation can't be cancelled")

// Options shape a queue.
type Options struct {
	Depth      int   // operations in flight, 1 to MaxDepth; 0 stands for 1
	Pool       *Pool // memory that all buffers come from; the -fixed engines and ioctl-buffer register it
	Timestamps bool  // fill Op.Submitted and Op.Completed

	// LazySubmit lets io_uring keep submissions until Reap, to hand over and
	// wait in one system call. Other engines ignore it.
	LazySubmit bool
}

// MaxDepth is the deepest queue: io_uring's limit of entries.
const MaxDepth = 32768

// Access is what an engine makes of O_DIRECT.
type Access uint8

const (
	FollowsFlag  Access = iota // direct if the file was opened with O_DIRECT
	NeedsDirect                // works only with O_DIRECT
	NeverDirect                // goes through memory whatever the flag
	AlwaysDirect               // pins the buffer whatever the flag
)

// Engine describes one API.
type Engine struct {
	Name    string
	Summary string
	Async   bool // one thread keeps many operations in flight
	Access  Access

	open func(*File, Options) (Queue, error)
}

// Engines lists every API, the plainest first.
func Engines() []Engine {
	return []Engine{
		{"preadv", "preadv(2), pwritev(2): one call, one wait", false, FollowsFlag, openPreadv},
		{"preadv2", "preadv2(2), pwritev2(2): the same with per-call flags", false, FollowsFlag, openPreadv2},
		{"mmap", "the file mapped into memory and copied", false, NeverDirect, openMmap},
		{"aio", "native AIO: io_submit(2), io_getevents(2)", true, FollowsFlag, openAIO},
		{"io_uring", "io_uring: submission and completion rings", true, FollowsFlag, openUring},
		{"io_uring-fixed", "io_uring with registered buffers and file", true, FollowsFlag, openUringFixed},
		{"io_uring-iopoll", "io_uring polling for completions (IOPOLL)", true, NeedsDirect, openUringPoll},
		{"uring_cmd", "io_uring commands of the dio driver, without a kiocb", true, NeedsDirect, openUringCmd},
		{"uring_cmd-fixed", "the same with registered buffers and file", true, NeedsDirect, openUringCmdFixed},
		{"uring_cmd-iopoll", "the same, polling for completions (IOPOLL)", true, NeedsDirect, openUringCmdPoll},
		{"ioctl", "the dio driver's own transfer ioctl", false, AlwaysDirect, openIoctl},
		{"ioctl-buffer", "the same, with a buffer that is registered once", false, AlwaysDirect, openIoctlBuffer},
		{"splice", "splice(2) through a pipe", false, FollowsFlag, openSplice},
	}
}

// Names lists the engines' names.
func Names() []string {
	var names []string
	for _, e := range Engines() {
		names = append(names, e.Name)
	}
	return names
}

// Lookup finds an engine by name.
func Lookup(name string) (Engine, error) {
	for _, e := range Engines() {
		if e.Name == name {
			return e, nil
		}
	}
	return Engine{}, fmt.Errorf("unknown engine %q: one of %s", name, strings.Join(Names(), ", "))
}

// Unavailable says why an engine can't be used on a file: the kernel, a
// sysctl, the file system. Err is the errno behind it, or nil.
type Unavailable struct {
	Engine, Path, Reason string
	Err                  error
}

func (u *Unavailable) Error() string {
	return fmt.Sprintf("engine %s can't be used on %s: %s", u.Engine, u.Path, u.Reason)
}

func (u *Unavailable) Unwrap() error { return u.Err }

// Open opens the queue of an engine on f. An *Unavailable says that this
// kernel or this file doesn't have it; other errors that the engine is unknown,
// that o.Depth isn't 0 to MaxDepth, or what failed. f stays the caller's, and
// open until the queue is closed.
func Open(name string, f *File, o Options) (Queue, error) {
	e, err := Lookup(name)
	if err != nil {
		return nil, err
	}
	if o.Depth == 0 {
		o.Depth = 1
	}
	if o.Depth < 1 || o.Depth > MaxDepth {
		return nil, fmt.Errorf("engine %s: depth %d is out of range: 1 to %d", name, o.Depth, MaxDepth)
	}
	if f.Kind == Stream {
		return nil, &Unavailable{Engine: name, Path: f.Path, Reason: "it is a stream: it has no offsets"}
	}
	if e.Access == NeedsDirect && !f.Direct {
		return nil, &Unavailable{Engine: name, Path: f.Path, Reason: "it needs O_DIRECT: open the file with it (--direct)"}
	}
	return e.open(f, o)
}

// Probe tells whether an engine works on f, by opening a queue and closing
// it; nothing is read or written. nil: it works.
func Probe(name string, f *File) error {
	var o Options
	if strings.HasSuffix(name, "-fixed") || name == "ioctl-buffer" {
		pool, err := NewPool(PoolOptions{Count: 1, Size: unix.Getpagesize()})
		if err != nil {
			return err
		}
		defer pool.Close()
		o.Pool = pool
	}
	q, err := Open(name, f, o)
	if err != nil {
		return err
	}
	return q.Close()
}

// clockStart is the zero of Op.Submitted and Op.Completed.
var clockStart = time.Now()

// Now is the clock of Op.Submitted and Op.Completed.
func Now() time.Duration { return time.Since(clockStart) }
