// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A child that outlives the command and writes faster than is read holds up
// nothing, and what the command wrote before is all there.
func TestDrainOfAFlood(t *testing.T) {
	p, err := Linux{}.Start(Command{Path: "/bin/sh", Dir: "/", Env: []string{"PATH=/usr/bin:/bin"},
		Args: []string{"sh", "-c", "echo first; yes the last word & exit 0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(-p.Pid, unix.SIGKILL) // the flood
	var ws unix.WaitStatus
	if _, err := unix.Wait4(p.Pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for drain, end := false, time.Now().Add(20*time.Second); ; {
		n, err := io.CopyN(&got, p.Stdout, 1000)
		if n < 1000 || err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the output doesn't end")
		}
		if !drain {
			drain = true
			p.Stdout.Drain()
		}
		time.Sleep(time.Millisecond)
	}
	if !strings.HasPrefix(got.String(), "first\n") {
		t.Errorf("it begins with %.20q", got.String())
	}
}

// All that was in the pipe before is taken, however full it was.
func TestDrainOfAFullPipe(t *testing.T) {
	p, err := Linux{}.Start(Command{Path: "/bin/sh", Dir: "/", Env: []string{"PATH=/usr/bin:/bin"},
		Args: []string{"sh", "-c", "head -c 65536 /dev/zero; exec sleep 1000"}})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(-p.Pid, unix.SIGKILL)
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if n, err := unix.IoctlGetInt(p.Stdout.(*drainable).fd, unix.TIOCINQ); err != nil || time.Now().After(end) {
			t.Fatal(n, err)
		} else if n == 65536 {
			break
		}
	}
	p.Stdout.Drain()
	if b, err := io.ReadAll(p.Stdout); len(b) != 65536 || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// Files whose size isn't what they hold can be taken out, too.
func TestTarOfKernelFiles(t *testing.T) {
	for _, p := range []string{"/proc/self/limits", "/sys/devices/system/cpu/online"} {
		want, err := os.ReadFile(p)
		if err != nil {
			t.Logf("%s isn't here: %v", p, err)
			continue
		}
		var b bytes.Buffer
		if err := writeTar(&b, p); err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		r := tar.NewReader(&b)
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if got, err := io.ReadAll(r); err != nil || h.Size != int64(len(want)) || !bytes.Equal(got, want) {
			t.Errorf("%s: %q of %d bytes, %v; want %q", p, got, h.Size, err, want)
		}
	}
}
