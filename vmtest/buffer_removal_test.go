// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// A device that is removed gives all buffers back, at once or with the transfer
// that is told of the removal; nothing can be done with what is left of it.
func TestBufferRemoved(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	noBuffers(t, d) // looks at the old device's counts when all is over
	other := openDevice(t)
	mem := anonymous(t, 8)
	id := register(t, d, mem, true)
	register(t, d, mem[:page], false)
	register(t, other, mem, false)
	slowed := config
	slowed.LatencyNS, slowed.Completion = uint64(50*time.Second), ioctlapi.CompletionAuto
	if err := d.SetConfig(slowed); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { _, err := move(d, id, 0, page, scratch, 0); done <- err }()
	waitInFlight(t, d, 1)
	unbind(t)
	defer bind(t, config)
	if err := <-done; !errors.Is(err, unix.ENODEV) {
		t.Errorf("the transfer in flight: %v, want ENODEV", err)
	}
	waitBuffers(t, d, 0)
	_, again := d.RegisterBuffer(mem, true)
	_, moved := move(d, id, 0, 1, 0, 0)
	for what, err := range map[string]error{"register": again, "transfer": moved, "unregister": other.UnregisterBuffer(1)} {
		if !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s: %v, want ENODEV", what, err)
		}
	}
}

// Registering while the device goes: whatever is in time goes with it.
func TestBufferRemovalRace(t *testing.T) {
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		user, err := ioctlapi.Open(ioctlapi.DefaultPath)
		if err != nil {
			t.Fatal(err)
		}
		ends := make(chan error)
		for range 3 {
			mem := anonymous(t, 20)
			go func() {
				for {
					id, err := user.RegisterBuffer(mem, true)
					if err == nil {
						_, err = move(user, id, 5, 999, scratch, 0)
					}
					if err == nil && rand.IntN(2) == 0 {
						err = user.UnregisterBuffer(id)
					}
					if err != nil && !errors.Is(err, unix.ENOSPC) {
						ends <- err
						return
					}
				}
			}()
		}
		time.Sleep(time.Duration(rand.IntN(30000)) * time.Microsecond)
		unbind(t)
		for range 3 {
			if err := <-ends; !errors.Is(err, unix.ENODEV) {
				t.Errorf("ended by %v, want ENODEV", err)
			}
		}
		s, err := user.Stats()
		if err != nil || s.Buffers != 0 || s.BufferPages != 0 || s.PagesPinned != s.PagesReleased {
			t.Errorf("with the device gone: %+v, %v", s, err)
		}
		bind(t, config)
		if err := user.Close(); err != nil {
			t.Error(err)
		}
	}
	if kb := pinnedKB(t, "self"); kb != 0 {
		t.Errorf("VmPin %d kB", kb)
	}
}
