// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"
)

// Clock names what a nanosecond of the figures is.
type Clock string

// ClockInstructions is the clock of an emulator that advances it by one
// nanosecond an instruction (QEMU's -icount shift=0): a figure in nanoseconds
// is a count of instructions, and nothing else can sway it. It knows nothing
// of caches, pipelines or real devices.
const ClockInstructions Clock = "instructions"

// RealClock is real time, with the kernel's clock source: "real (tsc)".
func RealClock() Clock {
	b, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return "real"
	}
	return Clock("real (" + strings.TrimSpace(string(b)) + ")")
}

// Unit is what an operation costs, as the head of a column.
func (c Clock) Unit() string {
	if c == ClockInstructions {
		return "instr"
	}
	return "ns"
}

// DetectClock finds out by timing a loop whose instructions are known: where
// each takes one nanosecond to within 2 in 1,000, the clock counts them. A
// processor that did so by chance would run one instruction a nanosecond.
func DetectClock() Clock {
	if spinInstructions > 0 && countsInstructions(timeSpin) {
		return ClockInstructions
	}
	return RealClock()
}

const spinTurns = 500_000

// timeSpin is how many nanoseconds spinTurns take.
func timeSpin() float64 {
	start := time.Now()
	spin(spinTurns)
	return float64(time.Since(start).Nanoseconds())
}

// countsInstructions looks at the best of a few tries: an interrupt during
// one is no part of the loop.
func countsInstructions(try func() float64) bool {
	best := math.Inf(1)
	for range 6 {
		best = min(best, try())
	}
	return math.Abs(best/(spinTurns*max(spinInstructions, 1))-1) < 0.002
}

// ParseClock reads --clock: auto, real or instructions.
func ParseClock(s string) (Clock, error) {
	switch s {
	case "auto", "":
		return DetectClock(), nil
	case "real":
		return RealClock(), nil
	case string(ClockInstructions):
		return ClockInstructions, nil
	}
	return "", fmt.Errorf("clock %q: want auto, real or instructions", s)
}
