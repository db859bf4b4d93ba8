// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// The commands work on it.
func TestEduCommands(t *testing.T) {
	edu(t, eduPath)
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"info", eduPath}, []string{"dio-edu", "4 KiB", "dma"}},
		{[]string{"config", "get", eduPath}, []string{"edu"}},
		{[]string{"stats", eduPath}, []string{"interrupts"}},
		{[]string{"fault", "list", "--device", eduPath}, []string{"pin-leak"}},
		{[]string{"read", "--direct", "--discard", eduPath}, nil},
	} {
		o := mustRun(t, append([]string{"dioctl"}, c.args...)...)
		for _, word := range c.words {
			if !strings.Contains(string(o.stdout), word) {
				t.Errorf("dioctl %s doesn't say %q:\n%s", strings.Join(c.args, " "), word, o.stdout)
			}
		}
	}
	o := run(t, "dioctl", "config", "set", "--latency", "1ms", eduPath)
	if o.status == 0 || !strings.Contains(o.stderr, "invalid argument") {
		t.Errorf("a latency was set: %d, %s", o.status, o.stderr)
	}
}

// A synchronous reader that waits behind others is killed at once, and its pages
// are given back, while the others are still being worked on.
func TestEduKill(t *testing.T) {
	d := edu(t, eduPath)
	noPins(t, d)
	before := 40 // requests; 4 s, in which a program has to start and to be killed
	if checked(t) {
		before *= 3
	}
	fd, aio, mem := eduRaw(t, eduPath, unix.O_DIRECT), newAIO(t, before), anonymous(t, before)
	for name, args := range map[string][]string{
		"direct": {"read", "--direct", "--discard", eduPath},
		"copied": {"read", "--discard", eduPath},
		"ioctl":  {"read", "--engine", "ioctl", "--discard", eduPath},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("dioctl", args...)
			for i := range before {
				if err := aio.submit(control(aioRead, fd, mem[i*eduSize:][:eduSize], 0)); err != nil {
					t.Fatal(err)
				}
			}
			start, err := d.Stats()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for s := start; s.Reads == start.Reads; time.Sleep(5 * time.Millisecond) {
				if s, err = d.Stats(); err != nil {
					t.Fatal(err)
				} else if s.InFlight == 0 {
					t.Fatal("the child began too late")
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			err = cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != -1 {
				t.Errorf("it ended with %v, want a signal", err)
			}
			s, err := d.Stats()
			if err != nil || s.InFlight == 0 || s.PagesPinned-s.PagesReleased != s.InFlight {
				t.Errorf("it was waited for: %+v, %v", s, err)
			}
			for range before {
				if e := aio.wait(20 * time.Second); e.res != eduSize {
					t.Errorf("result %d", e.res)
				}
			}
			aio.none()
			waitInFlight(t, d, 0)
		})
	}
}

// The tour of DMA: every check holds; the other tours refuse hardware, it software.
func TestEduDemo(t *testing.T) {
	edu(t, eduPath)
	o := mustRun(t, "dioctl", "demo", "dma")
	t.Logf("\n%s", o.stdout)
	for line := range strings.Lines(string(o.stdout)) {
		if len(line) > 101 {
			t.Errorf("a line of %d columns: %s", len(line)-1, line)
		}
	}
	if !strings.Contains(string(o.stdout), "checks held.") || !strings.Contains(string(o.stdout), "dma_map_sgtable") {
		t.Errorf("%s", o.stdout)
	}
	for _, args := range [][]string{{"dma", "--device", ioctlapi.DefaultPath}, {"direct", "--device", eduPath}} {
		o := run(t, append([]string{"dioctl", "demo"}, args...)...)
		if o.status == 0 || !strings.Contains(o.stderr, "demo dma") {
			t.Errorf("demo %v: exit %d, %s", args, o.status, o.stderr)
		}
	}
}
