// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// io_uring can't take back a command that a driver has, no more than a read: the
// cancel doesn't find it, and it ends in its time with all its bytes. Nor is it lost
// to io_uring by that: when the ring goes, from 6.7 on, it is cancelled as any other.
func TestDriverCommandCancel(t *testing.T) {
	d := openDevice(t)
	if !hasCommands(t, d) {
		t.Log("this kernel has no commands: TestDriverCommand sees to that")
		return
	}
	noPins(t, d)
	page, commands := os.Getpagesize(), []uint64{1, 2, 3, 4}
	fd, out := openRaw(t, 0), fill(anonymous(t, len(commands)), 21)
	if n, err := unix.Pwrite(fd, out, scratch); n != len(out) || err != nil {
		t.Fatal(n, err)
	}
	// begin has a read of a page in flight for each.
	begin := func(t *testing.T, ring *uring, mem []byte, flags uint8) ioctlapi.Stats {
		t.Helper()
		before, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		for i, data := range commands {
			e := command(ioctlapi.URingRead, fd, mem[i*page:][:page], scratch+int64(i*page))
			e.data, e.flags = data, flags
			ring.submit(e)
		}
		return before
	}

	// cancel asks for each back; its answers have numbers of their own.
	const answers = 100
	cancel := func(ring *uring) {
		var asked []uringEntry
		for _, data := range commands {
			asked = append(asked, uringEntry{opcode: uringCancel, fd: -1, addr: data, data: answers + data})
		}
		ring.submit(asked...)
	}

	for _, c := range []struct {
		name  string
		flags uint8
		wants []unix.Errno
	}{
		{"at once", 0, []unix.Errno{unix.ENOENT}},
		// The thread that handed it to the driver may be about to leave it.
		{"by a thread", uringAsync, []unix.Errno{unix.ENOENT, unix.EALREADY}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const latency = 3 * time.Second
			slow(t, d, latency)
			ring, mem := newUring(t, 8, 0), fill(anonymous(t, len(commands)), 22)
			began := time.Now()
			before := begin(t, ring, mem, c.flags)
			waitInFlight(t, d, before.InFlight+uint64(len(commands)))
			cancel(ring)
			told := map[uint64]bool{}
			for range 2 * len(commands) {
				v := ring.wait(30 * time.Second)
				took := time.Since(began)
				switch {
				case told[v.data]:
					t.Errorf("told again: %+v", v)
				case slices.Contains(commands, v.data):
					if v.res != int32(page) || took < latency {
						t.Errorf("a command: %+v after %v, want %d, and not before %v", v, took, page, latency)
					}
				case v.res >= 0 || !slices.Contains(commands, v.data-answers) || !slices.Contains(c.wants, unix.Errno(-v.res)):
					t.Errorf("a cancel: %+v, want one of %v", v, c.wants)
				}
				told[v.data] = true
			}
			ring.none()
			if !bytes.Equal(mem, out) {
				t.Error("what was read isn't what was written")
			}
			if after, err := d.Stats(); err != nil || after.InFlight != before.InFlight || after.Cancelled != before.Cancelled {
				t.Errorf("%d in flight, it was %d; %d cancelled, it was %d; %v", after.InFlight, before.InFlight, after.Cancelled, before.Cancelled, err)
			}
		})
	}

	t.Run("the ring goes", func(t *testing.T) {
		if !kernelAtLeast(t, 6, 7) {
			t.Log("this kernel cancels no commands: TestDriverCommandRingGoes sees to that")
			return
		}
		const latency = 50 * time.Second
		slow(t, d, latency)
		ring, mem := newUring(t, 8, 0), fill(anonymous(t, len(commands)), 22)
		was := bytes.Clone(mem)
		began := time.Now()
		before := begin(t, ring, mem, 0)
		waitInFlight(t, d, before.InFlight+uint64(len(commands)))
		cancel(ring)
		for range commands {
			if v := ring.wait(30 * time.Second); v.data <= answers || v.res != -int32(unix.ENOENT) {
				t.Fatalf("%+v, want a cancel that finds nothing", v)
			}
		}
		closed := time.Now()
		ring.close()
		waitInFlight(t, d, before.InFlight)
		if took := time.Since(began); took > latency {
			t.Errorf("all were gone %v after they began, which is their time", took)
		}
		t.Logf("all were gone %v after the ring", time.Since(closed))
		after, err := d.Stats()
		if err != nil || after.Cancelled-before.Cancelled != uint64(len(commands)) {
			t.Errorf("%d were cancelled, want %d; %v", after.Cancelled-before.Cancelled, len(commands), err)
		}
		if !bytes.Equal(mem, was) {
			t.Error("a cancelled read moved bytes")
		}
	})
}
