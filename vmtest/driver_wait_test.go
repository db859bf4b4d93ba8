// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Many threads wait in the driver at once, far more than there are CPUs: each gets
// its own bytes. An auditor that keeps place for fewer would miss their returns.
func TestDriverManyWait(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	fd := openRaw(t, unix.O_DIRECT)
	const threads, size = 256, 4096
	stored, mem := fill(anonymous(t, threads), 1), anonymous(t, threads)
	pwrite(t, fd, stored, scratch)
	setConfig(t, d, func(c *ioctlapi.Config) {
		c.Model, c.Completion, c.LatencyNS = ioctlapi.ModelRAM, ioctlapi.CompletionAuto, uint64(time.Second)
	})
	var over []<-chan error
	for i := range threads {
		at := scratch + int64(i)*size
		if i%2 == 0 {
			over = append(over, called(whole(unix.Pread, fd, mem[i*size:][:size], at)))
		} else {
			over = append(over, called(whole(unix.Pwrite, fd, stored[i*size:][:size], at)))
		}
	}
	most := uint64(0)
	for i, o := range over {
		for waiting := true; waiting; {
			select {
			case err := <-o:
				if waiting = false; err != nil {
					t.Errorf("thread %d: %v", i, err)
				}
			case <-time.After(10 * time.Millisecond):
				most = max(most, inFlight(t, d))
			}
		}
	}
	if most < threads/2 {
		t.Errorf("at most %d of %d waited at once", most, threads)
	}
	for i := 0; i < threads; i += 2 {
		if !bytes.Equal(mem[i*size:][:size], stored[i*size:][:size]) {
			t.Errorf("read %d brought other bytes", i)
		}
	}
}
