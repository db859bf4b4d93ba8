// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every engine measures a real file, or says why not.
func TestMeasureFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	const size = 1 << 20
	if err := CreateFile(path, size); err != nil {
		t.Fatal(err)
	}
	if err := CreateFile(path, size); err == nil {
		t.Error("a file that was there was made again")
	}
	for _, name := range Names() {
		for _, depth := range []int{1, 8} {
			for _, rw := range []RW{RandRead, Write} {
				s := Spec{Target: path, Engine: name, RW: rw, BlockSize: 4096, Depth: depth, Direct: DirectAuto, Ops: 500, Clock: RealClock()}
				r, err := Measure(context.Background(), s)
				if err != nil {
					t.Fatal(err)
				}
				if r.Figures == nil {
					if r.Unavailable == "" || name == Psync || name == "preadv" {
						t.Errorf("%+v: %+v", s, r)
					}
					t.Logf("%s: %s", name, r.Unavailable)
					continue
				}
				checkFigures(t, r)
			}
		}
	}
	if st, err := os.Stat(path); err != nil || st.Size() != size {
		t.Errorf("the file has another size: %v, %v", st, err)
	}
}

// callsPerOp are the system calls that an API takes: the least and the most.
func callsPerOp(c Cell) (least, most float64) {
	d := float64(c.Depth)
	switch c.Engine {
	case "mmap":
		return 0, 0
	case "splice":
		return 2, 2
	case "aio":
		return 2 / d, 2
	case "io_uring", "io_uring-fixed":
		return 1 / d, 1
	case "io_uring-iopoll":
		return 1 / d, 1e6
	}
	return 1, 1
}

func checkFigures(t *testing.T, r Result) {
	t.Helper()
	least, most := callsPerOp(r.Cell)
	if r.SyscallsPerOp == nil || *r.SyscallsPerOp < least || *r.SyscallsPerOp > most {
		t.Errorf("%+v: %v system calls an operation, want %v to %v", r.Cell, r.SyscallsPerOp, least, most)
	}
	l := r.Latency
	if r.Ops != 500 || r.IOPS <= 0 || r.NSPerOp <= 0 || r.BytesPerSecond <= 0 || l.P50 <= 0 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max {
		t.Errorf("%+v: %+v", r.Cell, *r.Figures)
	}
	if bytes := r.IOPS * 4096; r.BytesPerSecond < bytes*0.999 || r.BytesPerSecond > bytes*1.001 {
		t.Errorf("%+v: %v bytes a second of %v operations", r.Cell, r.BytesPerSecond, r.IOPS)
	}
	if r.CacheBytesLeft == nil || *r.CacheBytesLeft < 0 || *r.CacheBytesLeft > 1<<20 {
		t.Errorf("%+v: cache left %v", r.Cell, r.CacheBytesLeft)
	} else if r.Variant == "buffered" && *r.CacheBytesLeft == 0 {
		t.Errorf("%+v: buffered, and nothing is cached", r.Cell)
	}
}

func TestMeasureForAWhile(t *testing.T) {
	s := Spec{Target: "/dev/zero", Engine: Psync, RW: Read, BlockSize: 512, Depth: 1, Direct: DirectAuto, Duration: 20 * time.Millisecond}
	r, err := Measure(context.Background(), s)
	if err != nil || r.Figures == nil || r.Variant != "buffered" {
		t.Fatalf("%+v, %v", r, err)
	}
	if r.ElapsedNS < 20e6 || r.ElapsedNS > 2e9 || r.Ops < 10 || r.CacheBytesLeft != nil {
		t.Errorf("%+v", *r.Figures)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Measure(ctx, s); err != context.Canceled {
		t.Errorf("a measurement that was stopped: %v", err)
	}
}

func TestUnavailable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := CreateFile(path, 8192); err != nil {
		t.Fatal(err)
	}
	base := Spec{Target: path, Engine: Psync, RW: Read, BlockSize: 4096, Depth: 1, Direct: DirectOff, Ops: 10}
	for says, change := range map[string]func(*Spec){
		"no such file":        func(s *Spec) { s.Target += "x" },
		"fewer than":          func(s *Spec) { s.Size = 1 << 30 },
		"less than a block":   func(s *Spec) { s.BlockSize = 16384 },
		"goes through memory": func(s *Spec) { s.Engine, s.Direct = "mmap", DirectOn },
		"pins the buffer":     func(s *Spec) { s.Engine = "ioctl" },
		"not a dio device":    func(s *Spec) { s.Engine, s.Direct = "ioctl", DirectAuto },
		"threads":             func(s *Spec) { s.Depth = 1000 },
		"holds":               func(s *Spec) { s.Engine, s.Depth, s.BlockSize = "io_uring", 1<<17, 1 },
		"needs O_DIRECT":      func(s *Spec) { s.Engine = "io_uring-iopoll" },
		"unknown engine":      func(s *Spec) { s.Engine = "teleport" },
		"moved nothing":       func(s *Spec) { s.Target = "/dev/null" },
		"refuses O_DIRECT":    func(s *Spec) { s.Target, s.Direct = "/dev/zero", DirectOn },
		"stream":              func(s *Spec) { s.Target = "/dev/ptmx" },
		"instruction clock":   func(s *Spec) { s.Busy = true },
	} {
		s := base
		change(&s)
		r, err := Measure(context.Background(), s)
		if err != nil || r.Figures != nil || !strings.Contains(r.Unavailable, says) {
			t.Errorf("%+v: %q, %v; want %q", s, r.Unavailable, err, says)
		}
	}
}

// An engine without a loop of its own goes through its Queue.
func TestQueueLoop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := CreateFile(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"preadv", "aio", "io_uring", "io_uring-fixed"} {
		for _, depth := range []int{1, 4} {
			s := Spec{Target: path, Engine: name, RW: RandRead, BlockSize: 4096, Depth: depth, Batch: 1, Direct: DirectOff, Ops: 500}
			tgt, err := openTarget(s)
			if err != nil {
				t.Fatal(err)
			}
			l, err := openQueue(name, &job{file: tgt.file, block: 4096, depth: depth, batch: 1, offset: newOffsets(RandRead, 4096, tgt.size, 1)})
			if err != nil {
				t.Logf("%s: %v", name, err)
				continue
			}
			h := new(Histogram)
			before := l.tally()
			for range 3 {
				if err := l.run(500, h); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			after := l.tally()
			if got := after.bytes - before.bytes; got != 1500*4096 || h.Count() != 1500 {
				t.Errorf("%s: %d bytes, %d latencies", name, got, h.Count())
			}
			if after.calls >= 0 && after.calls < 1500/int64(depth) {
				t.Errorf("%s: %d system calls", name, after.calls)
			}
			if err := l.close(); err != nil {
				t.Error(err)
			}
			tgt.file.Close()
		}
	}
}
