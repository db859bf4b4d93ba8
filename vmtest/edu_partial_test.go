// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The hardware stops answering when it has moved some of a request's segments: the
// request is short, by just what was moved, and nothing of the rest is moved later.
func TestEduPartial(t *testing.T) {
	const parts, part = 8, eduSize / 8
	eduRebind(t, 64) // each segment where it lies, none joined in a buffer of the driver's
	d := edu(t, eduOpenPath)
	noPins(t, d)
	fd := eduRaw(t, eduOpenPath, unix.O_DIRECT)
	mem := anonymous(t, parts)
	var iov [][]byte
	for i := range parts {
		iov = append(iov, mem[i*eduSize:][:part]) // a page each: on the bus they don't touch
	}
	joined := func() []byte { return bytes.Join(iov, nil) }
	write := func(t *testing.T, b []byte) {
		t.Helper()
		buf := anonymous(t, 1)
		copy(buf, b)
		if n, err := unix.Pwrite(fd, buf, 0); n != eduSize || err != nil {
			t.Fatal(n, err)
		}
	}
	old, fresh := fill(make([]byte, eduSize), 1), fill(make([]byte, eduSize), 2)
	for name, toDevice := range map[string]bool{"read": false, "write": true} {
		t.Run(name, func(t *testing.T) {
			for attempt := 1; ; attempt++ {
				eduParameter(t, "edu_timeout_ms", "20000")
				// What is to be overwritten is old, what overwrites it is fresh.
				do, onDevice, inMemory := unix.Preadv, fresh, old
				if toDevice {
					do, onDevice, inMemory = unix.Pwritev, old, fresh
				}
				write(t, onDevice)
				for i := range parts {
					copy(iov[i], inMemory[i*part:])
				}
				before, err := d.Stats()
				if err != nil {
					t.Fatal(err)
				}
				type result struct {
					n   int
					err error
				}
				ended := make(chan result, 1)
				go func() {
					n, err := do(fd, iov, 0)
					ended <- result{n, err}
				}()
				for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
					if s, err := d.Stats(); err != nil || s.DMASegments > before.DMASegments {
						break
					}
					if time.Now().After(deadline) {
						t.Fatal("no segment was moved")
					}
				}
				eduWrite(t, "/sys/module/dio/parameters/edu_timeout_ms", "20")
				r := <-ended
				eduWrite(t, "/sys/module/dio/parameters/edu_timeout_ms", "20000")
				after, err := d.Stats()
				if err != nil {
					t.Fatal(err)
				}
				moved := int(after.DMASegments-before.DMASegments) * part
				if r.n == eduSize && attempt < 5 {
					continue // the machine slept through each timeout
				}
				if r.err != nil || r.n != moved || r.n < part || r.n >= eduSize {
					t.Fatalf("%d, %v; %d bytes were moved, want some, and just these", r.n, r.err, moved)
				}
				t.Logf("%d of %d segments", r.n/part, parts)
				if n := after.DMATimeouts - before.DMATimeouts; n != 1 {
					t.Errorf("%d timeouts counted", n)
				}
				eduSettle(t, fd)
				if toDevice {
					if got := eduContents(t, fd); !bytes.Equal(got[:r.n], fresh[:r.n]) || !bytes.Equal(got[r.n+part:], old[r.n+part:]) {
						t.Error("the device holds something else than was written")
					}
					if !bytes.Equal(joined(), fresh) {
						t.Error("the buffer was changed")
					}
				} else if got := joined(); !bytes.Equal(got[:r.n], fresh[:r.n]) || !bytes.Equal(got[r.n:], old[r.n:]) {
					t.Error("the buffer holds something else than what was read, and what was there")
				}
				return
			}
		})
	}
}

// eduSettle waits until the hardware is done with what was given up.
func eduSettle(t *testing.T, fd int) {
	t.Helper()
	buf := anonymous(t, 1)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(eduTransfer / 2) {
		n, err := unix.Pread(fd, buf, 0)
		if n == eduSize && err == nil {
			return
		}
		if !errors.Is(err, unix.EIO) || time.Now().After(deadline) {
			t.Fatalf("%d, %v", n, err)
		}
	}
}

// eduContents are the bytes of the device.
func eduContents(t *testing.T, fd int) []byte {
	t.Helper()
	buf := anonymous(t, 1)
	if n, err := unix.Pread(fd, buf, 0); n != eduSize || err != nil {
		t.Fatal(n, err)
	}
	return buf
}
