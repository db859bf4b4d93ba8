// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"path/filepath"
	"testing"

	"dio/bench"
)

const nullBlk = "/dev/nullb0"

// measured runs dioctl bench with few operations on one target.
func measured(t *testing.T, target string, args ...string) bench.Report {
	t.Helper()
	args = append(append([]string{"dioctl", "bench", "--format", "json", "--ops", "256", "--size", "1M"}, args...), target)
	return decode[bench.Report](t, mustRun(t, args...))
}

// Every engine measures the device, or says why it can't; system calls are
// what the API is said to take.
func TestBenchEveryEngine(t *testing.T) {
	t.Cleanup(func() { mustRun(t, "dioctl", "config", "set", "--model", "ram") })
	for _, model := range []string{"ram", "null"} {
		configure(t, "--model", model)
		for _, rw := range []string{"read", "randwrite"} {
			t.Run(model+"/"+rw, func(t *testing.T) {
				r := measured(t, device, "--rw", rw)
				if want := 2 * len(bench.Names()); len(r.Results) != want || r.Clock == "" || r.Kernel == "" {
					t.Fatalf("%d results, want %d: %+v", len(r.Results), want, r)
				}
				for _, res := range r.Results {
					checkMeasured(t, res)
				}
			})
		}
	}
}

// mustMeasure are the engines that every kernel has on every dio device.
var mustMeasure = map[string]bool{bench.Psync: true, "preadv": true, "preadv2": true, "aio": true, "io_uring": true,
	"io_uring-fixed": true, "ioctl": true, "ioctl-buffer": true, "splice": true, "mmap": true}

func checkMeasured(t *testing.T, r bench.Result) {
	t.Helper()
	what := fmt.Sprintf("%s, depth %d", r.Engine, r.Depth)
	if r.Figures == nil {
		if mustMeasure[r.Engine] || r.Unavailable == "" {
			t.Errorf("%s: not measured: %q", what, r.Unavailable)
		} else {
			t.Logf("%s: %s", what, r.Unavailable)
		}
		return
	}
	if r.Ops != 256 || r.IOPS <= 0 || r.BytesPerSecond <= 0 || r.Latency.P50 > r.Latency.P99 || r.Latency.P99 > r.Latency.Max || r.Latency.Max <= 0 {
		t.Errorf("%s: %+v", what, *r.Figures)
	}
	if r.SyscallsPerOp == nil {
		t.Errorf("%s: nobody counted its system calls", what)
		return
	}
	least, most := 1.0, 1.0
	switch r.Engine {
	case "mmap":
		least, most = 0, 0
	case "splice":
		least, most = 2, 2
	case "aio":
		least, most = 2/float64(r.Depth), 2/float64(r.Depth)
	case "io_uring", "io_uring-fixed", "uring_cmd", "uring_cmd-fixed":
		least, most = 1/float64(r.Depth), 1/float64(r.Depth) // it ends at once: a call brings back all
	case "io_uring-iopoll", "uring_cmd-iopoll":
		most = 1e6 // polls until it is done
		least = 1 / float64(r.Depth)
	}
	if *r.SyscallsPerOp < least || *r.SyscallsPerOp > most {
		t.Errorf("%s: %v system calls an operation, want %v to %v", what, *r.SyscallsPerOp, least, most)
	}
	if direct := r.Engine != "mmap"; direct != (r.Variant == "direct") {
		t.Errorf("%s: %s", what, r.Variant)
	}
}

// What a buffered read leaves behind, and a direct one doesn't.
func TestBenchCache(t *testing.T) {
	mustRun(t, "modprobe", "null_blk")
	for direct, want := range map[string]int64{"on": 0, "off": 1 << 20} {
		r := measured(t, nullBlk, "--engine", "psync", "--depth", "1", "--direct", direct)
		f := r.Results[0].Figures
		if f == nil {
			t.Fatal(direct, r.Results[0].Unavailable)
		}
		// Readahead may go past the range, which isn't counted.
		if f.CacheBytesLeft == nil || *f.CacheBytesLeft != want {
			t.Errorf("direct %s: %v bytes left in the cache, want %d", direct, f.CacheBytesLeft, want)
		}
	}
}

// What the loops count is what the kernel's tracepoint counts.
func TestBenchCallsAreTheKernels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := bench.CreateFile(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{bench.Psync, "preadv", "aio", "io_uring", "splice"} {
		s := bench.Spec{Target: path, Engine: name, RW: bench.Read, BlockSize: 4096, Depth: 1, Direct: bench.DirectOff, Ops: 4000}
		counted, byKernel, err := bench.CountCalls(s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// Go's own runtime makes a few on this thread, far fewer than one in 50.
		if byKernel < counted || byKernel > counted+counted/50 {
			t.Errorf("%s: %d system calls by its own count, %d by the kernel's", name, counted, byKernel)
		}
	}
}
