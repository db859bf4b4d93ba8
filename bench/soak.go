// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// soaker spends all the time that nobody else wants, and counts it: what is
// left of the elapsed time is what everybody else did, the kernel's workers,
// timers and interrupts included. With an instruction clock and one CPU that
// is exact; elsewhere it would be a guess, so it refuses.
type soaker struct {
	rounds, stop atomic.Int64
	done         chan error
	perRound     float64 // nanoseconds
}

const soakTurns = 500

// errSoak is why a soaker can't be had.
var errSoak = errors.New("what the kernel does beside the caller can be counted only by an instruction clock, on one CPU (dioctl vm run --icount)")

// startSoaker needs a free P until stopped: it holds one all the time.
func startSoaker(clock Clock) (*soaker, error) {
	if clock != ClockInstructions || runtime.NumCPU() != 1 {
		return nil, errSoak
	}
	s := &soaker{done: make(chan error, 1), perRound: math.Inf(1)}
	// What a round costs, by itself; the best of a few tries has no interrupt.
	for range 20 {
		const rounds = 200
		start := time.Now()
		for range rounds {
			s.round()
		}
		s.perRound = min(s.perRound, float64(time.Since(start).Nanoseconds())/rounds)
	}
	s.rounds.Store(0)
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never undone: the thread ends with its scheduling class
		err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
		unblock := blockSignals()
		close(started)
		for err == nil && s.stop.Load() == 0 {
			s.round()
		}
		unblock()
		s.done <- err
	}()
	<-started
	return s, nil
}

func (s *soaker) round() {
	spin(soakTurns)
	s.rounds.Add(1)
}

// soaked is how many nanoseconds nobody wanted up to now; without a soaker
// nobody counts them.
func (s *soaker) soaked() float64 {
	if s == nil {
		return 0
	}
	return float64(s.rounds.Load()) * s.perRound
}

func (s *soaker) close() error {
	s.stop.Store(1)
	if err := <-s.done; err != nil {
		return fmt.Errorf("take the idle scheduling class: %w", err)
	}
	return nil
}
