// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// The capacity can't be made smaller under requests in flight, queued or asleep, and
// can when they have ended.
func TestDriverShrinkInFlight(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	slow(t, d, time.Minute)
	full, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	small := full
	small.Capacity -= 4096
	for name, begin := range map[string]func() (end func()){
		"queued": func() func() {
			aio := newAIO(t, 1)
			if err := aio.submit(control(aioRead, openRaw(t, unix.O_DIRECT), anonymous(t, 1), scratch)); err != nil {
				t.Fatal(err)
			}
			return aio.close // cancels it
		},
		"asleep": func() func() {
			h := startHelper(t, "copied", nil)
			h.line(t)
			return func() {
				if err := h.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = h.Wait()
			}
		},
	} {
		end := begin()
		waitInFlight(t, d, 1)
		if err := d.SetConfig(small); !errors.Is(err, unix.EBUSY) {
			t.Errorf("%s: %v, want EBUSY", name, err)
		}
		if got, err := d.Config(); err != nil || got != full {
			t.Errorf("%s: refused, it left %+v, %v", name, got, err)
		}
		end()
		if err := d.SetConfig(small); err != nil {
			t.Errorf("%s: when it was over: %v", name, err)
		}
		if err := d.SetConfig(full); err != nil {
			t.Fatal(err)
		}
	}
}

// Requests in flight finish as they were begun, whatever is configured meanwhile:
// at their time, by their model, family and limits.
func TestDriverInFlightKeepsConfig(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	for name, change := range map[string]func(*ioctlapi.Config){
		"at once, null, get": func(c *ioctlapi.Config) {
			c.LatencyNS, c.Model, c.Family = 0, ioctlapi.ModelNull, ioctlapi.FamilyGet
		},
		"a minute, timer, smaller": func(c *ioctlapi.Config) {
			c.LatencyNS, c.Completion = uint64(time.Minute), ioctlapi.CompletionTimer
			c.MaxRequest, c.MaxInFlight, c.MaxInFlightFile = 4096, 1, 1
		},
	} {
		// A machine that stops for a while has no time for the change.
		for try := 1; !keepsConfig(t, d, name, change); try++ {
			if try == 5 {
				t.Fatalf("%s: the change always came too late", name)
			}
		}
	}
}

// keepsConfig changes the configuration under three requests; false: too late.
func keepsConfig(t *testing.T, d *ioctlapi.Device, name string, change func(*ioctlapi.Config)) bool {
	t.Helper()
	const latency, pos, size = time.Second, scratch + 21<<20, 8192
	before, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.SetConfig(before); err != nil {
			t.Error("restore the configuration:", err)
		}
	}()
	direct, plain, aio := openRaw(t, unix.O_DIRECT), openRaw(t, 0), newAIO(t, 2)
	stored, got, written, copied := fill(anonymous(t, 2), 1), fill(anonymous(t, 2), 2), fill(anonymous(t, 2), 3), fill(anonymous(t, 2), 4)
	pwrite(t, plain, stored, pos)
	hole(t, d, pos+size, 2*size)
	slowly := before
	slowly.Model, slowly.Family, slowly.Completion, slowly.LatencyNS = ioctlapi.ModelRAM, ioctlapi.FamilyPin, ioctlapi.CompletionAuto, uint64(latency)
	if err := d.SetConfig(slowly); err != nil {
		t.Fatal(err)
	}

	begin := time.Now()
	read, write := control(aioRead, direct, got, pos), control(aioWrite, direct, written, pos+size)
	if err := errors.Join(aio.submit(read), aio.submit(write)); err != nil {
		t.Fatal(err)
	}
	var took time.Duration
	copying := called(func() error {
		err := whole(unix.Pwrite, plain, copied, pos+2*size)()
		took = time.Since(begin)
		return err
	})
	for inFlight(t, d) != 3 && time.Since(begin) < latency {
		time.Sleep(5 * time.Millisecond)
	}
	now := slowly
	change(&now)
	if err := d.SetConfig(now); err != nil {
		t.Fatal(err)
	}
	late := time.Since(begin) > latency

	for range 2 {
		if e := aio.wait(50 * time.Second); e.res != size {
			t.Errorf("%s: a request ended with %d", name, e.res)
		}
		if took := time.Since(begin); took < latency {
			t.Errorf("%s: a request was done after %v, want %v", name, took, latency)
		}
	}
	err = <-copying
	if late {
		return false
	}
	if err != nil || took < latency || took > 50*time.Second {
		t.Errorf("%s: without O_DIRECT: %v after %v, want %v", name, err, took, latency)
	}
	if err := d.SetConfig(before); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, stored) {
		t.Errorf("%s: the read brought other bytes", name)
	}
	in := anonymous(t, 4)
	pread(t, plain, in, pos+size)
	if !bytes.Equal(in[:size], written) || !bytes.Equal(in[size:], copied) {
		t.Errorf("%s: what was written isn't there: direct %v, copied %v", name, bytes.Equal(in[:size], written), bytes.Equal(in[size:], copied))
	}
	return true
}
