// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// oneCPU keeps the test's thread on one CPU: what it submits is then served by
// that CPU's timers and worker.
func oneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
}

// Requests of the same latency end in the order in which they came, whoever
// finishes them; so do those of a disk that works on one at a time and a tape.
func TestDriverOrder(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	oneCPU(t)
	const n = 48
	for name, config := range map[string]func(*ioctlapi.Config){
		"ram, worker":          func(c *ioctlapi.Config) { c.Completion = ioctlapi.CompletionWorker },
		"ram, latency, worker": func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = 50e6, ioctlapi.CompletionWorker },
		"ram, latency, timer":  func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = 50e6, ioctlapi.CompletionTimer },
		"null, latency, timer": func(c *ioctlapi.Config) {
			c.Model, c.LatencyNS, c.Completion = ioctlapi.ModelNull, 50e6, ioctlapi.CompletionTimer
		},
		"disk, one at a time":    func(c *ioctlapi.Config) { c.Model, c.LatencyNS, c.QueueDepth = ioctlapi.ModelDisk, 1e6, 1 },
		"disk, by its bandwidth": func(c *ioctlapi.Config) { c.Model, c.Bandwidth, c.QueueDepth = ioctlapi.ModelDisk, 4<<20, 8 },
		"tape": func(c *ioctlapi.Config) {
			c.Model, c.Bandwidth, c.RepositionNS = ioctlapi.ModelTape, 8<<20, 1e6
		},
	} {
		model(t, d, func(c *ioctlapi.Config) {
			c.Model = ioctlapi.ModelRAM
			config(c)
		})
		_, order := burst(t, openRaw(t, unix.O_DIRECT), anonymous(t, 1), n)
		if !slices.IsSorted(order) {
			t.Errorf("%s: %v", name, order)
		}
	}
}

// Each way to complete, with what it may be combined: the bytes, and whether the
// request waited.
func TestDriverCompletions(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	fd, aio := openRaw(t, unix.O_DIRECT), newAIO(t, 4)
	out, in := fill(anonymous(t, 256), 123), anonymous(t, 256)
	for _, c := range []struct {
		completion ioctlapi.Completion
		latency    time.Duration
		queued     bool
	}{
		{ioctlapi.CompletionAuto, 0, false}, {ioctlapi.CompletionAuto, 5 * time.Millisecond, true},
		{ioctlapi.CompletionInline, 0, false},
		{ioctlapi.CompletionWorker, 0, true}, {ioctlapi.CompletionWorker, 5 * time.Millisecond, true},
		{ioctlapi.CompletionTimer, 0, true}, {ioctlapi.CompletionTimer, 5 * time.Millisecond, true},
	} {
		for _, family := range []ioctlapi.Family{ioctlapi.FamilyPin, ioctlapi.FamilyGet} {
			setConfig(t, d, func(f *ioctlapi.Config) {
				f.Completion, f.LatencyNS, f.Family = c.completion, uint64(c.latency), family
			})
			for _, size := range []int{512, 64 << 10, 64<<10 + 512, 1 << 20} { // a timer itself moves 64 KiB at most
				what := fmt.Sprintf("%v, %v, %v, %d bytes", c.completion, c.latency, family, size)
				before, err := d.Stats()
				if err != nil {
					t.Fatal(err)
				}
				clear(in)
				out[0]++
				for _, op := range []*aioControl{control(aioWrite, fd, out[:size], scratch+12<<20), control(aioRead, fd, in[:size], scratch+12<<20)} {
					begin := time.Now()
					if err := aio.submit(op); err != nil {
						t.Fatal(what, err)
					}
					if !c.queued {
						if e, ok := aio.next(0); !ok || e.res != int64(size) {
							t.Errorf("%s: not done when io_submit returned: %+v", what, e)
						}
						continue
					}
					if e := aio.wait(10 * time.Second); e.res != int64(size) || time.Since(begin) < c.latency {
						t.Errorf("%s: %d after %v", what, e.res, time.Since(begin))
					}
				}
				if !bytes.Equal(in[:size], out[:size]) {
					t.Errorf("%s: what was read isn't what was written", what)
				}
				after, err := d.Stats()
				want := map[bool]uint64{true: 2}[c.queued]
				if err != nil || after.Queued-before.Queued != want || after.Completed-before.Completed != 2 || after.InFlight != 0 {
					t.Errorf("%s: %d queued, %d completed, %d in flight, %v", what, after.Queued-before.Queued, after.Completed-before.Completed, after.InFlight, err)
				}
			}
		}
	}
	aio.none()
	if err := d.SetConfig(config); err != nil {
		t.Fatal(err)
	}
}
