// SPDX-License-Identifier: GPL-2.0-only

// Package bench measures what the kernel's I/O APIs cost on a file or device:
// rate, latency, processor time, system calls, faults, context switches, and
// what is left in the page cache.
//
// A measurement has three passes. The first warms up and is dropped. The
// second is timed as a whole, so that looking at the clock costs nothing: rate
// and everything "per operation" come from it. The third looks at the clock
// around each operation: percentiles come from it.
package bench

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Direct is what a Spec wants of O_DIRECT.
type Direct string

// What Spec.Direct takes.
const (
	DirectAuto Direct = "auto" // where the target takes it and the block is aligned for it
	DirectOn   Direct = "on"
	DirectOff  Direct = "off"
)

// ParseDirect reads one of the three.
func ParseDirect(s string) (Direct, error) {
	switch d := Direct(s); d {
	case DirectAuto, DirectOn, DirectOff:
		return d, nil
	}
	return "", fmt.Errorf("%q: want on, off or auto", s)
}

// Spec is one measurement. Writing changes the target's bytes.
type Spec struct {
	Target    string
	Engine    string // one of Names
	RW        RW
	BlockSize int // bytes, 1 or more
	Depth     int // operations in flight, 1 or more; synchronous APIs use threads
	Batch     int // completions that an asynchronous API waits for at a time, 1 to Depth; 0 stands for 1
	Submit    int // operations that it hands over at a time, 1 to Depth; 0 stands for Depth
	Direct    Direct
	Size      int64 // bytes of the target to use, from its beginning; 0: all, or DefaultSize where it has no end

	Ops      int64         // operations of the timed pass; 0: as many as Duration takes
	Duration time.Duration // of the timed pass
	NoWarmUp bool          // leave the first pass out

	HugePages bool  // buffers in transparent huge pages
	Busy      bool  // count what the kernel does beside the caller, too (instruction clock only)
	Clock     Clock // what a nanosecond is
	Seed      uint64
}

// DefaultSize is how much of a target without an end is used.
const DefaultSize = 64 << 20

// Cell is what was measured.
type Cell struct {
	Engine    string `json:"engine"`
	Variant   string `json:"variant"` // direct, buffered, or mapped; "" when it didn't come to that
	RW        RW     `json:"rw"`
	BlockSize int    `json:"block_size"`
	Depth     int    `json:"depth"`
}

// Figures are what came out. Times are of the report's clock.
type Figures struct {
	Ops                  int64    `json:"ops"`
	ElapsedNS            int64    `json:"elapsed_ns"`
	NSPerOp              float64  `json:"ns_per_op"` // elapsed / ops: instructions, if these are the clock
	IOPS                 float64  `json:"iops"`
	BytesPerSecond       float64  `json:"bytes_per_second"`
	Latency              Latency  `json:"latency_ns"`
	CPUNSPerOp           float64  `json:"cpu_ns_per_op"`            // the process's own
	BusyNSPerOp          *float64 `json:"busy_ns_per_op,omitempty"` // the whole machine's
	SyscallsPerOp        *float64 `json:"syscalls_per_op"`          // null: nobody could count them
	MinorFaultsPerOp     float64  `json:"minor_faults_per_op"`
	MajorFaultsPerOp     float64  `json:"major_faults_per_op"`
	ContextSwitchesPerOp float64  `json:"context_switches_per_op"`
	CacheBytesLeft       *int64   `json:"cache_bytes_left"` // null: the target isn't cached, or mincore may not tell
	HugeBytes            int64    `json:"huge_buffer_bytes,omitempty"`
	Spread               float64  `json:"spread,omitempty"` // how far the repeats' median lies above the best, which is this: 0.1 is 10 %
	Repeats              int      `json:"repeats,omitempty"`
}

// Result is a cell with its figures, or why there are none.
type Result struct {
	Cell
	*Figures
	Notes       []string `json:"notes,omitempty"`
	Unavailable string   `json:"unavailable,omitempty"`
}

// Report is everything about one target: the object that --format json gives.
type Report struct {
	Schema  string   `json:"schema"`
	Target  string   `json:"target"`
	Label   string   `json:"label,omitempty"` // what tables call the target
	Kernel  string   `json:"kernel"`
	Clock   Clock    `json:"clock"`
	Results []Result `json:"results"`
}

// Schema is Report.Schema.
const Schema = "dio.bench/1"

// NewReport is an empty report about a target on this machine.
func NewReport(target, label string, clock Clock) Report {
	var u unix.Utsname
	_ = unix.Uname(&u) // can't fail
	return Report{Schema: Schema, Target: target, Label: label, Kernel: unix.ByteSliceToString(u.Release[:]), Clock: clock, Results: []Result{}}
}

// Name is what tables call the target.
func (r *Report) Name() string {
	if r.Label != "" {
		return r.Label
	}
	return r.Target
}
