// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Who finishes a request: its timer, in a softirq, where nothing has to sleep and no
// more than 64 KiB are to be moved; else the worker.
func TestDriverFinisher(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	trace := timing(t)
	fd, aio, mem := openRaw(t, unix.O_DIRECT), newAIO(t, 1), anonymous(t, 17)
	const limit = 64 << 10
	for _, c := range []struct {
		name       string
		completion ioctlapi.Completion
		latency    time.Duration
		op         uint16
		bytes      int
		timer      bool
	}{
		{"timer, write", ioctlapi.CompletionTimer, time.Millisecond, aioWrite, 4096, true},
		{"timer, write, no latency", ioctlapi.CompletionTimer, 0, aioWrite, 4096, true},
		{"timer, 64 KiB", ioctlapi.CompletionTimer, time.Millisecond, aioWrite, limit, true},
		{"timer, more", ioctlapi.CompletionTimer, time.Millisecond, aioWrite, limit + 512, false},
		{"timer, read: its pages are to be marked dirty", ioctlapi.CompletionTimer, time.Millisecond, aioRead, 4096, false},
		{"worker, write", ioctlapi.CompletionWorker, time.Millisecond, aioWrite, 4096, false},
		{"worker, no latency", ioctlapi.CompletionWorker, 0, aioWrite, 4096, false},
		{"auto, write", ioctlapi.CompletionAuto, time.Millisecond, aioWrite, 4096, false},
		{"auto, read", ioctlapi.CompletionAuto, time.Millisecond, aioRead, 4096, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			setConfig(t, d, func(to *ioctlapi.Config) { to.Completion, to.LatencyNS = c.completion, uint64(c.latency) })
			if err := aio.submit(control(c.op, fd, mem[:c.bytes], scratch)); err != nil {
				t.Fatal(err)
			}
			if e := aio.wait(10 * time.Second); e.res != int64(c.bytes) {
				t.Fatalf("result %d, want %d", e.res, c.bytes)
			}
			events, err := trace.Drain()
			if err != nil {
				t.Fatal(err)
			}
			completions := 0
			for _, e := range events {
				if e.Name != "dio_complete" {
					continue
				}
				completions++
				if e.InSoftirq() != c.timer || !c.timer && !strings.HasPrefix(e.Comm, "kworker") {
					t.Errorf("finished by %s, flags %s; by its timer: %v", e.Comm, e.Flags, c.timer)
				}
			}
			if completions != 1 {
				t.Errorf("%d completions seen", completions)
			}
		})
	}
}
