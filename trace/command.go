// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"dio/trace/audit"
)

// Run is one audit of a command, of a process, or of everything for a time.
type Run struct {
	// Command is started once all is attached, with this process's standard
	// streams unless it has its own; nil: none.
	Command *exec.Cmd
	// PID is an existing process to watch with its descendants, or one of its
	// threads, 0 for none. With neither it nor Command, everything is watched.
	PID int
	// Duration bounds an audit without a command; 0: until ctx is done or PID exits.
	Duration time.Duration
	// LostAfter is how long a queued operation may take to complete.
	LostAfter time.Duration
	// Symbols is where modules with debug information are, beside the usual places.
	Symbols string
	// Ready is called once everything is watched; nil: nothing is.
	Ready func() error
	// Notice gets what a person should know while it runs; nil: nobody.
	Notice func(string)
}

// drainLimit bounds the wait for operations and pins that workers still
// finish after the command has exited.
const drainLimit = 2 * time.Second

// Do runs the audit and gives its evidence to judge. Detaching, which can
// take seconds, comes after it. err is the auditor's own or judge's; what the
// command returned is in its ProcessState.
func (r *Run) Do(ctx context.Context, judge func(audit.Evidence) error) error {
	o := Options{All: r.Command == nil && r.PID == 0, Symbols: r.Symbols}
	if r.PID != 0 {
		pid, err := threadGroup(r.PID)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && Gone(pid):
			return fmt.Errorf("audit: there is no process %d", r.PID)
		case err != nil:
			return fmt.Errorf("audit: tell the process of %d: %w", r.PID, err)
		}
		r.PID = pid
		o.Targets = []int{pid}
	}
	s, err := Start(o)
	if err != nil {
		return err
	}
	defer s.Close()
	if r.Ready != nil {
		if err := r.Ready(); err != nil {
			return fmt.Errorf("audit: tell that all is watched: %w", err)
		}
	}
	if err := r.wait(ctx, s); err != nil {
		return err
	}
	e, err := s.Evidence()
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	e.LostAfter = r.LostAfter
	e.Gone = Gone
	return judge(e)
}

// wait returns when what is watched has come to its end.
func (r *Run) wait(ctx context.Context, s *Session) error {
	ended := make(chan error, 1)
	var deadline, ignored <-chan time.Time
	pid := r.PID
	if r.Command != nil {
		if err := r.Command.Start(); err != nil {
			return fmt.Errorf("audit: start %s: %w", r.Command.Path, err)
		}
		pid = r.Command.Process.Pid
		go func() { ended <- r.Command.Wait() }()
	}
	if r.Duration > 0 {
		deadline = time.After(r.Duration)
	}
	tick := time.NewTicker(max(r.LostAfter/4, 100*time.Millisecond))
	defer tick.Stop()
	told := false
	for {
		select {
		case <-ended:
			return r.drain(s)
		case <-deadline:
			return r.drain(s)
		case <-ctx.Done():
			if r.Command == nil {
				return r.drain(s)
			}
			ctx = context.Background()
			if foreground() {
				ignored = time.After(interruptGrace)
			} else {
				r.Command.Process.Signal(os.Interrupt)
			}
		case <-ignored:
			r.Command.Process.Signal(os.Interrupt)
		case <-tick.C:
			if r.Command == nil && pid != 0 && Gone(pid) {
				return r.drain(s)
			}
			n, err := s.NoteOverdue(r.LostAfter)
			if err != nil {
				if r.Command != nil {
					kill(r.Command.Process, ended)
				}
				return fmt.Errorf("audit: %w", err)
			}
			if n > 0 && !told && r.Notice != nil {
				told = true
				r.Notice(fmt.Sprintf("%d operation(s) are queued for longer than %s without a completion", n, r.LostAfter))
			}
			// A process can't finish its exit while one of its requests is lost, and
			// its parent waits for it.
			if stuck := s.stuckAny(); pid != 0 && stuck != 0 {
				if r.Notice != nil {
					r.Notice(fmt.Sprintf("process %d is stuck in its exit, waiting for them: the audit ends here", stuck))
				}
				return nil
			}
		}
	}
}

// killGrace is what a killed command is given to end: one that waits for a
// request which is lost doesn't.
const killGrace = 3 * time.Second

// kill ends the command, which tells ended, if it can be ended.
func kill(p *os.Process, ended <-chan error) {
	p.Kill()
	select {
	case <-ended:
	case <-time.After(killGrace):
	}
}

// drain waits until nothing is under way: workers may release and complete
// just after the command has gone. A queued operation gets its full time.
func (r *Run) drain(s *Session) error {
	start := time.Now()
	drained := false
	for step := time.Millisecond; ; step = min(2*step, 50*time.Millisecond) {
		out, err := s.Outstanding()
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		waited := time.Since(start)
		if out.Gets > 0 && !drained {
			drained = true
			drainCPUs()
			continue
		}
		switch {
		case out.Pins == 0 && out.InFlight == 0 && out.Gets == 0:
			return nil
		case waited < drainLimit:
		case out.InFlight > 0 && out.OldestWait < r.LostAfter && waited < drainLimit+r.LostAfter:
		default:
			_, err := s.NoteOverdue(r.LostAfter)
			return err
		}
		time.Sleep(step)
	}
}
