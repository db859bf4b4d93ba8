// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
	"dio/trace/tracefs"
)

// timing watches what the driver's requests are given of the device's time.
func timing(t *testing.T) *tracefs.Instance {
	t.Helper()
	trace, err := tracefs.Open(tracefs.Options{Name: fmt.Sprintf("%s-%d", t.Name(), os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trace.Close() })
	if err := errors.Join(trace.Enable("dio/dio_submit"), trace.Enable("dio/dio_queue"), trace.Enable("dio/dio_complete")); err != nil {
		t.Fatal(err)
	}
	return trace
}

// last is the last request, which was given want of the device's time: by the
// device's clock, so that no delay of this machine touches it.
func last(t *testing.T, trace *tracefs.Instance, want time.Duration) {
	t.Helper()
	events, err := trace.Drain()
	if err != nil {
		t.Fatal(err)
	}
	requests := sharedRequests(t, events)
	if len(requests) == 0 {
		t.Fatal("no request was seen")
	}
	// It was timed between the two; the trace's clock may be a little off.
	r := requests[len(requests)-1]
	if r.due-r.submitted < want-time.Millisecond || r.due-r.queued > want+time.Millisecond {
		t.Errorf("came between %v and %v, due at %v: want %v later", r.submitted, r.queued, r.due, want)
	}
}

// A tape that has run dry, and is wanted elsewhere: it goes there once.
func TestDriverTapeStallAndSeek(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const reposition = 100 * time.Millisecond
	model(t, d, func(c *ioctlapi.Config) {
		c.Model, c.Bandwidth, c.RepositionNS = ioctlapi.ModelTape, 1<<20, uint64(reposition)
	})
	trace, fd, mem := timing(t), openRaw(t, unix.O_DIRECT), anonymous(t, 1)
	transfer := time.Duration(len(mem)) * time.Second >> 20
	for i, pos := range []int64{0, 1 << 20} {
		if n, err := unix.Pread(fd, mem, pos); n != len(mem) || err != nil {
			t.Fatal(n, err)
		}
		last(t, trace, transfer+time.Duration(i)*reposition)
	}
	if s, err := d.Stats(); err != nil || s.Stalls != 1 || s.Seeks != 1 {
		t.Errorf("%d stalls, %d seeks, %v; want one each", s.Stalls, s.Seeks, err)
	}
}

// Without a delay of its own, the rule holds a request for 100 ms when none follows.
func TestDriverReorderDelay(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	setConfig(t, d, func(c *ioctlapi.Config) { c.Completion, c.LatencyNS = ioctlapi.CompletionWorker, 0 })
	trace, fd, aio, mem := timing(t), openRaw(t, unix.O_DIRECT), newAIO(t, 1), anonymous(t, 1)
	for _, delay := range []time.Duration{0, 300 * time.Millisecond} {
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectReorder, Every: 1, DelayNS: uint64(delay)})
		if delay == 0 {
			delay = 100 * time.Millisecond
		}
		begin := time.Now()
		if err := aio.submit(control(aioRead, fd, mem, 0)); err != nil {
			t.Fatal(err)
		}
		if e := aio.wait(20 * time.Second); e.res != int64(len(mem)) || time.Since(begin) < delay {
			t.Errorf("%d after %v, want %v", e.res, time.Since(begin), delay)
		}
		last(t, trace, delay)
	}
}

// Resetting the counters leaves what is now: gauges stay as they are.
func TestDriverResetGauges(t *testing.T) {
	d := openDevice(t)
	pins := kernelPins(t)
	fd, aio, mem := openRaw(t, unix.O_DIRECT), newAIO(t, 2), anonymous(t, 1)
	t.Cleanup(func() {
		aio.close()
		for deadline := time.Now().Add(10 * time.Second); kernelPins(t) != pins; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d pages are pinned, it was %d", kernelPins(t), pins)
			}
		}
		// What was pinned before the reset and released after it makes the
		// counters of pages differ, by which other tests know that none is held.
		if _, err := d.ResetStats(); err != nil {
			t.Error(err)
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.WriteAt(mem, scratch); err != nil {
		t.Fatal(err)
	}
	id, err := d.RegisterBuffer(anonymous(t, 3), true)
	must(err)
	t.Cleanup(func() {
		if err := d.UnregisterBuffer(id); err != nil {
			t.Error(err)
		}
	})
	setConfig(t, d, func(c *ioctlapi.Config) { c.Completion = ioctlapi.CompletionWorker })
	t.Cleanup(func() {
		if err := d.ClearFault(ioctlapi.FaultNone); err != nil {
			t.Error(err)
		}
	})
	must(d.ArmFault(ioctlapi.Fault{Fault: ioctlapi.FaultPinLeak, Every: 1, Count: 1}))
	if n, err := unix.Pread(fd, mem, scratch); n != len(mem) || err != nil {
		t.Fatal(n, err)
	}
	must(d.ArmFault(ioctlapi.Fault{Fault: ioctlapi.FaultLostComplete, Every: 1, Count: 1, HoldMS: 600_000}))
	must(aio.submit(control(aioRead, fd, mem, scratch)))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if s, err := d.Stats(); err != nil || s.QuarantinedRequests == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no completion was lost")
		}
	}
	setConfig(t, d, func(c *ioctlapi.Config) {
		c.Model, c.Completion, c.LatencyNS, c.RepositionNS, c.Bandwidth = ioctlapi.ModelTape, ioctlapi.CompletionAuto, uint64(50*time.Second), 0, 0
	})
	must(aio.submit(control(aioRead, fd, mem, scratch)))

	before, err := d.Stats()
	must(err)
	told, err := d.ResetStats()
	must(err)
	after, err := d.Stats()
	must(err)
	if before.InFlight == 0 || before.StorePages == 0 || before.QuarantinedPages != 1 || before.QuarantinedRequests != 1 ||
		before.Head != scratch+uint64(len(mem)) || before.Buffers != 1 || before.BufferPages != 3 || before.Reads == 0 || before.FaultsCommitted == 0 {
		t.Errorf("a gauge without anything to show: %+v", before)
	}
	if told.Flags = before.Flags; told != before {
		t.Errorf("a reset told\n%+v, want\n%+v", told, before)
	}
	want := ioctlapi.Stats{Size: after.Size, Flags: after.Flags, InFlight: before.InFlight, InFlightPeak: before.InFlight, StorePages: before.StorePages,
		QuarantinedPages: 1, QuarantinedRequests: 1, Head: before.Head, Buffers: 1, BufferPages: 3}
	if after != want {
		t.Errorf("after a reset:\n%+v, want\n%+v", after, want)
	}
}

// Callers of the ABI's first days: their shorter structs are served, not a byte past
// them is touched, and what they don't know stays as it is.
func TestDriverOlderStructs(t *testing.T) {
	d := openDevice(t)
	const config, stats, tail = 72, 160, 32
	guard := bytes.Repeat([]byte{0xA5}, tail)
	setConfig(t, d, func(c *ioctlapi.Config) { c.Bandwidth, c.QueueDepth = 123<<20, 7 })
	want, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	b := append(sized(config), guard...)
	binary.LittleEndian.PutUint64(b[8:], uint64(ioctlapi.ConfigLatency))
	binary.LittleEndian.PutUint64(b[32:], 1234567)
	want.LatencyNS = 1234567
	if err := rawIoctl(d.FD(), nrSetConfig, b[:config]); err != nil || !bytes.Equal(b[config:], guard) {
		t.Errorf("SET_CONFIG: %v, % x", err, b)
	}
	if got, err := d.Config(); err != nil || got != want {
		t.Errorf("configuration %+v, %v, want %+v", got, err, want)
	}
	if _, err := d.WriteAt(make([]byte, 512), scratch); err != nil {
		t.Fatal(err)
	}
	whole, b := sized(288), append(sized(stats), guard...)
	err = errors.Join(rawIoctl(d.FD(), nrStats, whole), rawIoctl(d.FD(), nrStats, b[:stats]))
	if err != nil || !bytes.Equal(b[stats:], guard) {
		t.Errorf("STATS: %v, % x", err, b)
	}
	if !bytes.Equal(b[4:stats], whole[4:stats]) || binary.LittleEndian.Uint32(b) != stats || binary.LittleEndian.Uint64(b[16:]) == 0 {
		t.Errorf("% x, want as in % x", b, whole)
	}
}
