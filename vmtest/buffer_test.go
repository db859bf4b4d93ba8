// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// register pins mem for the test, or fails it.
func register(t *testing.T, d *ioctlapi.Device, mem []byte, writable bool) uint32 {
	t.Helper()
	id, err := d.RegisterBuffer(mem, writable)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// move is one transfer between a registered buffer, at, and the store.
func move(d *ioctlapi.Device, id uint32, at, n int, pos uint64, flags uint32) (int, error) {
	tr := ioctlapi.Transfer{Flags: ioctlapi.TransferBuffer | flags, Addr: uint64(at), Length: uint64(n), Offset: pos, Buffer: id}
	err := d.Transfer(&tr)
	return int(tr.Done), err
}

// noBuffers fails the test when it leaves a buffer or a page pinned behind, by
// the driver's count and by the kernel's, or its own process charged.
func noBuffers(t *testing.T, d *ioctlapi.Device) {
	t.Helper()
	noPins(t, d)
	before, charged := bufferStats(t, d), pinnedKB(t, "self")
	t.Cleanup(func() {
		if after := bufferStats(t, d); after != before {
			t.Errorf("buffers and their pages: %v, it was %v", after, before)
		}
		if after := pinnedKB(t, "self"); after != charged {
			t.Errorf("VmPin %d kB, it was %d", after, charged)
		}
	})
}

// bufferStats are the device's buffers and their pages.
func bufferStats(t *testing.T, d *ioctlapi.Device) [2]uint64 {
	t.Helper()
	s, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return [2]uint64{s.Buffers, s.BufferPages}
}

// waitBuffers waits until the device has want buffers.
func waitBuffers(t *testing.T, d *ioctlapi.Device, want uint64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); bufferStats(t, d)[0] != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v buffers and pages, want %d buffers", bufferStats(t, d), want)
		}
	}
}

// pinnedKB is what a process is charged for pinned pages.
func pinnedKB(t *testing.T, pid string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmPin:")
	n, err := strconv.Atoi(strings.Fields(rest + " none")[0])
	if err != nil {
		t.Fatalf("no VmPin of %s in %s", pid, status)
	}
	return n
}

// Bytes go where they should, from and to any place of a buffer of any
// alignment, at once and queued, and nothing is pinned for it.
func TestBufferTransfers(t *testing.T) {
	d := openDevice(t)
	noBuffers(t, d)
	for _, c := range []struct {
		completion ioctlapi.Completion
		latency    time.Duration
	}{
		{ioctlapi.CompletionAuto, 0}, {ioctlapi.CompletionWorker, 0},
		{ioctlapi.CompletionTimer, time.Millisecond}, {ioctlapi.CompletionAuto, time.Millisecond},
	} {
		t.Run(fmt.Sprint(c.completion, c.latency), func(t *testing.T) {
			setConfig(t, d, func(f *ioctlapi.Config) { f.Completion, f.LatencyNS = c.completion, uint64(c.latency) })
			out, in := fill(anonymous(t, 70), 33), anonymous(t, 70)
			from, to := register(t, d, out[123:69*4096+7], false), register(t, d, in[77:], true)
			pinned, err := d.Stats()
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range []struct{ at, n int }{{0, 1}, {4096 - 123, 4096}, {4000, 97}, {1, 8 * 4096}, {5000, 60*4096 + 3}, {0, 69*4096 + 7 - 123}} {
				const gap = 40
				clear(in)
				pos := uint64(scratch + 1<<24 + 511*i)
				if n, err := move(d, from, r.at, r.n, pos, ioctlapi.TransferWrite); n != r.n || err != nil {
					t.Fatalf("%+v to the device: %d, %v", r, n, err)
				}
				if n, err := move(d, to, gap+r.at, r.n, pos, 0); n != r.n || err != nil {
					t.Fatalf("%+v from the device: %d, %v", r, n, err)
				}
				sent, got := out[123+r.at:][:r.n], in[77+gap+r.at:][:r.n]
				if sha256.Sum256(sent) != sha256.Sum256(got) {
					t.Errorf("%+v: what came back isn't what was sent", r)
				}
				clear(got)
				if !bytes.Equal(in, make([]byte, len(in))) {
					t.Errorf("%+v: a byte beside the range was written", r)
				}
			}
			after, err := d.Stats()
			if err != nil || after.PagesPinned != pinned.PagesPinned || after.PagesReleased != pinned.PagesReleased || after.InFlight != 0 {
				t.Errorf("after the transfers %+v, before %+v, %v", after, pinned, err)
			}
			if err := errors.Join(d.UnregisterBuffer(from), d.UnregisterBuffer(to)); err != nil {
				t.Error(err)
			}
		})
	}
}

// At the end of the store, and what a device that fails does with a buffer.
func TestBufferShort(t *testing.T) {
	d := openDevice(t)
	noBuffers(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	mem := fill(anonymous(t, 4), 5)
	id := register(t, d, mem, true)
	defer d.UnregisterBuffer(id)
	for _, latency := range []time.Duration{0, time.Millisecond} {
		slow(t, d, latency)
		if n, err := move(d, id, 9, 8192, config.Capacity-700, ioctlapi.TransferWrite); n != 700 || err != nil {
			t.Errorf("across the capacity: %d, %v", n, err)
		}
		if n, err := move(d, id, 9, 8192, config.Capacity, ioctlapi.TransferWrite); n != 0 || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("at the capacity: %d, %v, want ENOSPC", n, err)
		}
		if n, err := move(d, id, 9, 8192, config.Capacity, 0); n != 0 || err != nil {
			t.Errorf("a read at the capacity: %d, %v", n, err)
		}
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectShort, Every: 1})
		if n, err := move(d, id, 0, 8192, scratch, 0); n != 4096 || err != nil {
			t.Errorf("a short read: %d, %v, want 4096", n, err)
		}
		if err := d.ClearInject(ioctlapi.InjectNone); err != nil {
			t.Fatal(err)
		}
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1})
		if n, err := move(d, id, 0, 8192, scratch, 0); n != 0 || !errors.Is(err, unix.EIO) {
			t.Errorf("a failing read: %d, %v, want EIO", n, err)
		}
		if err := d.ClearInject(ioctlapi.InjectNone); err != nil {
			t.Fatal(err)
		}
	}
}

// The id goes at once and can be given out anew, the memory with the last
// transfer; closing the file works the same.
func TestBufferInFlight(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionTimer} {
		for _, closing := range []bool{false, true} {
			t.Run(fmt.Sprint(completion, " closing=", closing), func(t *testing.T) {
				setConfig(t, d, func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = uint64(time.Second), completion })
				user, err := ioctlapi.Open(ioctlapi.DefaultPath)
				if err != nil {
					t.Fatal(err)
				}
				defer user.Close()
				out := fill(anonymous(t, 8), 77)
				id := register(t, user, out, false)
				done := make(chan error)
				go func() {
					n, err := move(user, id, 3, 5*page, scratch, ioctlapi.TransferWrite)
					if err == nil && n != 5*page {
						err = fmt.Errorf("%d bytes", n)
					}
					done <- err
				}()
				waitInFlight(t, d, 1)
				if closing {
					err = user.Close()
				} else {
					err = user.UnregisterBuffer(id)
				}
				if err != nil {
					t.Error(err)
				}
				if s := bufferStats(t, d); s != [2]uint64{1, 8} {
					t.Errorf("with the transfer in flight %v buffers and pages", s)
				}
				if !closing {
					if _, err := move(user, id, 0, 1, 0, ioctlapi.TransferWrite); !errors.Is(err, unix.ENOENT) {
						t.Errorf("a transfer on the old id: %v, want ENOENT", err)
					}
					if again := register(t, user, fill(anonymous(t, 1), 1), true); again != id {
						t.Errorf("the next id is %d, want %d", again, id)
					}
				}
				select {
				case err := <-done:
					t.Errorf("unregistering ended the transfer early: %v", err)
					return
				default:
				}
				if err := <-done; err != nil {
					t.Error("the transfer:", err)
				}
				if !closing {
					waitBuffers(t, d, 1)
					if err := user.UnregisterBuffer(id); err != nil {
						t.Error(err)
					}
				}
				waitBuffers(t, d, 0)
				back := make([]byte, 5*page)
				if _, err := d.ReadAt(back, scratch); err != nil || !bytes.Equal(back, out[3:][:5*page]) {
					t.Errorf("%v; the bytes as expected: %v", err, bytes.Equal(back, out[3:][:5*page]))
				}
			})
		}
	}
}
