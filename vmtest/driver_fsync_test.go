// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"fmt"
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
	if err := errors.Join(aio.submit(control(aioWrite, fd, mem, scratch)), aio.submit(control(aioFsync, fd, nil, 0))); err != nil {
		t.Fatal(err)
	}
	first, second := aio.wait(10*time.Second), aio.wait(10*time.Second)
	if first.res != int64(len(mem)) || second.res != 0 {
		t.Errorf("the write ended with %d, then the fsync with %d", first.res, second.res)
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

// Who waits in fsync can be killed at once, and later ones still wait for what
// it didn't.
func TestDriverFsyncKilled(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency = 3 * time.Second
	slow(t, d, latency)
	fd, aio := openRaw(t, unix.O_DIRECT), newAIO(t, 1)
	begin := time.Now()
	if err := aio.submit(control(aioWrite, fd, anonymous(t, 1), scratch)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
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
	if e, ok := aio.next(0); !ok || e.res != 4096 {
		t.Errorf("the write wasn't done: %+v", e)
	}
}
