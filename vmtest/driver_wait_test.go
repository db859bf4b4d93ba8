// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Far more than there are CPUs wait in the driver at once. An auditor that keeps
// place for fewer would miss their returns.
const manyWait = 256

// waitForAll waits for calls, and gives the most that count has told meanwhile.
func waitForAll(t *testing.T, over []<-chan error, count func() int) int {
	t.Helper()
	most := 0
	for i, o := range over {
		for waiting := true; waiting; {
			select {
			case err := <-o:
				if waiting = false; err != nil {
					t.Errorf("call %d: %v", i, err)
				}
			case <-time.After(10 * time.Millisecond):
				most = max(most, count())
			}
		}
	}
	return most
}

// forASecond has each request of the test take that long.
func forASecond(t *testing.T, d *ioctlapi.Device) {
	t.Helper()
	setConfig(t, d, func(c *ioctlapi.Config) {
		c.Model, c.Completion, c.LatencyNS = ioctlapi.ModelRAM, ioctlapi.CompletionAuto, uint64(time.Second)
	})
}

// Many threads wait in read and write: each gets its own bytes.
func TestDriverManyWait(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	fd := openRaw(t, unix.O_DIRECT)
	const size = 4096
	stored, mem := fill(anonymous(t, manyWait), 1), anonymous(t, manyWait)
	pwrite(t, fd, stored, scratch)
	forASecond(t, d)
	var over []<-chan error
	for i := range manyWait {
		at := scratch + int64(i)*size
		if i%2 == 0 {
			over = append(over, called(whole(unix.Pread, fd, mem[i*size:][:size], at)))
		} else {
			over = append(over, called(whole(unix.Pwrite, fd, stored[i*size:][:size], at)))
		}
	}
	if most := waitForAll(t, over, func() int { return int(inFlight(t, d)) }); most < manyWait/2 {
		t.Errorf("at most %d of %d waited at once", most, manyWait)
	}
	for i := 0; i < manyWait; i += 2 {
		if !bytes.Equal(mem[i*size:][:size], stored[i*size:][:size]) {
			t.Errorf("read %d brought other bytes", i)
		}
	}
}

// The same for splice, each thread with a pipe of its own.
func TestDriverManySplices(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const size = 4096
	stored := fill(anonymous(t, manyWait), 2)
	pwrite(t, openRaw(t, unix.O_DIRECT), stored, scratch)
	// Without O_DIRECT: with it the kernel reads past the driver's splice_read.
	fd := openRaw(t, 0)
	forASecond(t, d)
	var over []<-chan error
	var ends []int
	for i := range manyWait {
		r, w := pipe(t, size)
		pos := scratch + int64(i)*size
		ends = append(ends, r)
		over = append(over, called(whole(func(fd int, mem []byte, pos int64) (int, error) {
			return spliceAll(fd, &pos, w, nil, len(mem))
		}, fd, stored[i*size:][:size], pos)))
	}
	if most := waitForAll(t, over, func() int { return int(inFlight(t, d)) }); most < manyWait/2 {
		t.Errorf("at most %d of %d waited at once", most, manyWait)
	}
	mem := make([]byte, size)
	for i, r := range ends {
		if n, err := unix.Read(r, mem); n != size || err != nil || !bytes.Equal(mem, stored[i*size:][:size]) {
			t.Errorf("splice %d brought other bytes: %d, %v", i, n, err)
		}
	}
}

// The same for commands: flushes, each in a thread of io_uring's, wait for a write.
func TestDriverManyCommands(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	noPins(t, d)
	fd, ring := openRaw(t, unix.O_DIRECT), newUring(t, manyWait, 0)
	defer ring.limitWorkers(manyWait)()
	mem := fill(anonymous(t, 1), 3)
	before := tasks(t)
	setConfig(t, d, func(c *ioctlapi.Config) {
		c.Model, c.Completion, c.LatencyNS = ioctlapi.ModelRAM, ioctlapi.CompletionAuto, uint64(5*time.Second)
	})
	write := []<-chan error{called(whole(unix.Pwrite, fd, mem, scratch))}
	waitInFlight(t, d, 1)
	flushes := make([]uringEntry, manyWait)
	for i := range flushes {
		flushes[i] = command(ioctlapi.URingFlush, fd, nil, 0)
		flushes[i].flags, flushes[i].data = uringAsync, uint64(i)
	}
	ring.submit(flushes...)
	if most := waitForAll(t, write, func() int { return tasks(t) - before }); most < manyWait/2 {
		t.Errorf("at most %d of %d waited at once", most, manyWait)
	}
	seen := map[uint64]bool{}
	for range flushes {
		v := ring.wait(20 * time.Second)
		if seen[v.data] || v.res != 0 {
			t.Errorf("%+v, told before: %v", v, seen[v.data])
		}
		seen[v.data] = true
	}
	ring.none()
}

// tasks is how many threads the process has, those of io_uring among them.
func tasks(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
