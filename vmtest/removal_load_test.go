// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// doomed is a program that ends when the device is taken away from it, and says why.
type doomed struct {
	*exec.Cmd
	errors bytes.Buffer  // to be read when it has ended
	ended  chan struct{} // closed then
}

func startDoomed(t *testing.T, cmd *exec.Cmd) *doomed {
	t.Helper()
	c := &doomed{Cmd: cmd, ended: make(chan struct{})}
	c.Stderr = &c.errors
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.Wait() // its state says more
		close(c.ended)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-c.ended
	})
	return c
}

// alive fails the test when the program has ended already.
func (c *doomed) alive(t *testing.T) {
	t.Helper()
	select {
	case <-c.ended:
		t.Fatalf("%v ended before the removal: %v, %s", c.Args, c.ProcessState, c.errors.String())
	default:
	}
}

// opened waits until the program has path open: from then on the device is all that
// it can fail for.
func (c *doomed) opened(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		c.alive(t)
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(files, func(f string) bool { to, _ := os.Readlink(f); return to == path }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v doesn't open %s", c.Args, path)
		}
	}
}

// wait has the program end by itself, for one of these reasons.
func (c *doomed) wait(t *testing.T, limit time.Duration, reasons ...unix.Errno) {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(limit):
		t.Fatalf("%v hangs after the removal", c.Args)
	}
	said := c.errors.String()
	if c.ProcessState.ExitCode() <= 0 || !slices.ContainsFunc(reasons, func(e unix.Errno) bool { return strings.Contains(said, e.Error()) }) {
		t.Errorf("%v: %v, %q, want a failure for %v", c.Args, c.ProcessState, said, reasons)
	}
}

// Removed and bound again under load, at seeded moments: no call hangs, each
// gives what it should or ENODEV, nothing stays pinned.
func TestRemovalUnderLoad(t *testing.T) {
	const (
		rounds = 8
		seed   = 20260719
		// For which a program reads the device for longer than it is there.
		latency = 8 * time.Millisecond
	)
	var config ioctlapi.Config
	engines := []string{"aio", "io_uring", "io_uring-iopoll", "preadv", "ioctl", "splice"}
	func() {
		d, err := ioctlapi.Open(ioctlapi.DefaultPath)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if config, err = d.Config(); err != nil {
			t.Fatal(err)
		}
		if hasCommands(t, d) {
			engines = append(engines, "uring_cmd", "uring_cmd-iopoll")
		}
	}()
	pins := kernelPins(t)
	random := rand.New(rand.NewPCG(seed, 0))
	busy := config
	busy.LatencyNS, busy.Completion = uint64(latency), ioctlapi.CompletionAuto

	copying := func(engine string) *doomed {
		args := []string{"copy", "--engine", engine, "--direct", "--block-size", "16k"}
		if !slices.Contains([]string{"preadv", "ioctl", "splice"}, engine) {
			args = append(args, "--depth", "16")
		}
		return startDoomed(t, exec.Command("dioctl", append(args, ioctlapi.DefaultPath, os.DevNull)...))
	}
	for round := range rounds {
		bindAs := busy
		if round%3 == 2 {
			bindAs.Completion = ioctlapi.CompletionTimer
		}
		func() {
			d, err := ioctlapi.Open(ioctlapi.DefaultPath)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := d.SetConfig(bindAs); err != nil {
				t.Fatal(err)
			}
		}()
		var children []*doomed
		for _, engine := range engines {
			children = append(children, copying(engine))
		}
		for _, c := range children {
			c.opened(t, ioctlapi.DefaultPath)
		}
		// One more comes at about the time that the device goes.
		late := copying(engines[round%len(engines)])
		var threads sync.WaitGroup
		for i := range 2 {
			threads.Go(func() { load(t, i == 0) })
		}
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		for _, c := range children {
			c.alive(t)
		}
		unbind(t)
		for _, c := range children {
			c.wait(t, 30*time.Second, unix.ENODEV)
		}
		late.wait(t, 30*time.Second, unix.ENODEV, unix.ENOENT, unix.ENXIO)
		threads.Wait()
		bind(t, config)
	}
	for deadline := time.Now().Add(10 * time.Second); kernelPins(t) != pins; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("/proc/vmstat says that %d pages are pinned, it was %d", kernelPins(t), pins)
		}
	}
}

// load uses the device until it's gone: with calls, or through a mapping.
func load(t *testing.T, mapped bool) {
	fd, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	page := os.Getpagesize()
	const pages = 64
	m, err := unix.Mmap(fd, scratch, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if errors.Is(err, unix.ENODEV) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Munmap(m)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		for i := range pages {
			if mapped {
				if !touch(&m[i*page]) {
					return
				}
				continue
			}
			// The mapping is the buffer: its pages go with the device, EFAULT.
			if n, err := unix.Pread(fd, m[i*page:][:page], scratch+pages*int64(page)); errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EFAULT) {
				return
			} else if n != page || err != nil {
				t.Errorf("%d, %v", n, err)
				return
			}
		}
	}
	t.Error("the device wasn't removed for 20 s")
}
