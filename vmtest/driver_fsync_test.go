// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// fsync, of the caller and through AIO, ends after the requests before it, and
// doesn't wait for those after it.
func TestDriverFsync(t *testing.T) {
	d := openDevice(t)
	fd, aio, mem := openRaw(t, unix.O_DIRECT), newAIO(t, 8), anonymous(t, 2)
	const latency = 600 * time.Millisecond
	slow(t, d, latency)
	begin := time.Now()
	if err := aio.submit(control(aioWrite, fd, mem, scratch)); err != nil {
		t.Fatal(err)
	}
	done := make(chan time.Duration)
	go func() {
		if err := unix.Fsync(fd); err != nil {
			t.Error(err)
		}
		done <- time.Since(begin)
	}()
	// Requests that keep coming don't hold it up: the last one ends after 4 latencies.
	for range 3 {
		time.Sleep(latency / 2)
		if err := aio.submit(control(aioWrite, fd, mem, scratch)); err != nil {
			t.Fatal(err)
		}
	}
	if took := <-done; took < latency || took > latency+latency*3/4 {
		t.Errorf("fsync took %v beside a latency of %v", took, latency)
	}
	for range 4 {
		aio.wait(10 * time.Second)
	}
	begin = time.Now()
	write, fsync := control(aioWrite, fd, mem, scratch), control(aioFsync, fd, nil, 0)
	write.data, fsync.data = 1, 2
	if err := errors.Join(aio.submit(write), aio.submit(fsync)); err != nil {
		t.Fatal(err)
	}
	// The write is done before the fsync ends, but either may be told first.
	ended := map[uint64]int64{}
	for range 2 {
		e := aio.wait(10 * time.Second)
		ended[e.data] = e.res
		if took := time.Since(begin); took < latency {
			t.Errorf("%d was over after %v, want %v", e.data, took, latency)
		}
	}
	if want := map[uint64]int64{1: int64(len(mem)), 2: 0}; !maps.Equal(ended, want) {
		t.Errorf("results %v, want %v", ended, want)
	}
}

// helperFsync waits for what others have in flight.
func helperFsync([]string) error {
	fd, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	fmt.Println("begins")
	return unix.Fsync(fd)
}

// A polled request ends when its owner polls, perhaps never: nobody's fsync waits
// for it, nor a command's flush. Other requests are waited for as ever.
func TestDriverFsyncPolled(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency = 300 * time.Millisecond
	slow(t, d, latency)
	fd, ring, mem := openRaw(t, unix.O_DIRECT), newUring(t, 8, uringIOPoll), anonymous(t, 2)
	entries := []uringEntry{entry(uringWrite, fd, mem[:4096], scratch)}
	if hasCommands(t, d) {
		entries = append(entries, command(ioctlapi.URingWrite, fd, mem[4096:], scratch+4096))
	}
	ring.submit(entries...)
	waitInFlight(t, d, uint64(len(entries)))
	begin := time.Now()
	h := startHelper(t, "fsync", nil)
	h.line(t)
	ended := make(chan error, 1)
	go func() { ended <- h.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error("another process's fsync:", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("another process's fsync waits for polled requests")
		_ = h.Process.Kill()
		<-ended
	}
	t.Logf("the other process's fsync was over after %v", time.Since(begin))
	if hasCommands(t, d) {
		plain := newUring(t, 2, 0)
		plain.submit(command(ioctlapi.URingFlush, fd, nil, 0))
		if v := plain.wait(10 * time.Second); v.res != 0 {
			t.Errorf("flush beside polled requests: %d", v.res)
		}
	}
	// One that isn't polled, beside them.
	aio := newAIO(t, 1)
	begin = time.Now()
	if err := aio.submit(control(aioWrite, fd, anonymous(t, 1), scratch+8192)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fsync(fd); err != nil || time.Since(begin) < latency {
		t.Errorf("fsync ended after %v, %v; the write takes %v", time.Since(begin), err, latency)
	}
	aio.wait(10 * time.Second)
	if s, err := d.Stats(); err != nil || s.InFlight != uint64(len(entries)) {
		t.Errorf("%d in flight, %v, want the %d polled ones", s.InFlight, err, len(entries))
	}
	// They count against the limits.
	setConfig(t, d, func(c *ioctlapi.Config) { c.MaxInFlight = uint32(len(entries)) })
	if err := aio.submit(control(aioRead, fd, anonymous(t, 1), scratch)); err != nil {
		t.Fatal(err)
	}
	if e := aio.wait(10 * time.Second); e.res != -int64(unix.EAGAIN) {
		t.Errorf("a request past max_in_flight, all of which are polled: %d, want EAGAIN", e.res)
	}
	for range entries {
		if v := ring.wait(10 * time.Second); v.res != 4096 {
			t.Errorf("a polled write: %d", v.res)
		}
	}
}

// Who waits in fsync can be killed at once, and later ones still wait for what
// it didn't.
func TestDriverFsyncKilled(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency = 5 * time.Second
	slow(t, d, latency)
	fd, aio := openRaw(t, unix.O_DIRECT), newAIO(t, 1)
	begin := time.Now()
	if err := aio.submit(control(aioWrite, fd, anonymous(t, 1), scratch)); err != nil {
		t.Fatal(err)
	}
	// Where a program takes a second to start there is no time for all three.
	for i := 0; i == 0 || i < 3 && time.Since(begin) < latency/3; i++ {
		h := startHelper(t, "fsync", nil)
		h.line(t)
		time.Sleep(50 * time.Millisecond)
		killed := time.Now()
		if err := h.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = h.Wait()
		if took := time.Since(killed); took > time.Second || h.ProcessState.Exited() {
			t.Errorf("it took %v to die: %v", took, h.ProcessState)
		}
	}
	if err := unix.Fsync(fd); err != nil || time.Since(begin) < latency {
		t.Errorf("fsync ended after %v, %v; the write takes %v", time.Since(begin), err, latency)
	}
	// It's done; that it's told before fsync ends isn't promised.
	if e := aio.wait(10 * time.Second); e.res != 4096 {
		t.Errorf("the write wasn't done: %+v", e)
	}
}
