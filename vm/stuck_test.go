// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/vm/kernel"
	"dio/vm/wire"
)

// A guest that takes much input while none comes must not keep its own output
// and its end waiting.
func TestCreditWhileInputIsQuiet(t *testing.T) {
	quiet, feeder := io.Pipe()
	defer feeder.Close()
	ended := make(chan error, 1)
	go func() {
		res, err := talk(t, &Spec{Stdin: quiet}, func(r *wire.Reader, w *wire.Writer, _ net.Conn) {
			_ = w.SendJSON(wire.Hello, wire.Greeting{})
			for range 1000 {
				_ = w.SendUint32(wire.Credit, 1)
			}
			_ = w.SendJSON(wire.Exit, wire.Status{Code: 3})
			_, _ = r.Next()
		})
		if err == nil && res.Status != 3 {
			err = errors.New("another status")
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the talk hangs")
	}
}

// fakeQEMU is the path of one whose guest greets, says "x", and which then does as the
// shell script says.
func fakeQEMU(t *testing.T, then string) string {
	t.Helper()
	dir := t.TempDir()
	frames, err := os.Create(filepath.Join(dir, "frames"))
	if err != nil {
		t.Fatal(err)
	}
	w := wire.NewWriter(frames)
	if err := errors.Join(w.SendJSON(wire.Hello, wire.Greeting{}), w.Send(wire.Stdout, 0, []byte("x")), frames.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncat "+frames.Name()+" >&3\n"+then+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// What a QEMU that fails says of itself is told, and stands in the console's log.
func TestLastWordsOfQEMU(t *testing.T) {
	const words = "qemu: ../memory.c:1: Assertion `sections' failed."
	console := filepath.Join(t.TempDir(), "console")
	if err := os.WriteFile(console, []byte("the guest's words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Spec{Kernel: &kernel.Image{Release: "9.9"}, Timeout: time.Minute}
	setDefaults(s)
	emulator := fakeQEMU(t, "echo \""+strings.ReplaceAll(words, "`", "\\`")+"\" >&2; kill -ABRT $$")
	_, err := boot(context.Background(), &QEMU{Path: emulator}, machine{console: console}, s, time.Now(), nil)
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), words) || !strings.Contains(e.What, "ended without a result") {
		t.Errorf("%v", err)
	}
	if log, err := os.ReadFile(console); err != nil || string(log) != "the guest's words\n\nqemu: "+words+"\n" {
		t.Errorf("%v, console %q", err, log)
	}
}

// The time limit ends a run whose output nobody reads.
func TestLimitWhileOutputIsStuck(t *testing.T) {
	emulator := fakeQEMU(t, "exec sleep 1000")
	unread, out := io.Pipe()
	defer unread.Close()
	s := &Spec{Kernel: &kernel.Image{Release: "9.9"}, Stdout: out, Timeout: time.Second}
	setDefaults(s)
	ended := make(chan error, 1)
	go func() {
		_, err := boot(context.Background(), &QEMU{Path: emulator}, machine{}, s, time.Now(), nil)
		ended <- err
	}()
	select {
	case err := <-ended:
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.What, "time limit of 1s, while the command ran") {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the run outlives its limit")
	}
}

// brokenPipe is an output whose reader has gone.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, unix.EPIPE }

// A reader of the output that goes away stops the run; the VM didn't fail, and
// there is no console to keep.
func TestOutputsReaderGone(t *testing.T) {
	_, err := talk(t, &Spec{Stdout: brokenPipe{}}, func(r *wire.Reader, w *wire.Writer, _ net.Conn) {
		_ = w.SendJSON(wire.Hello, wire.Greeting{})
		_ = w.Send(wire.Stdout, 0, []byte("x"))
		if f, err := r.Next(); err != nil || f.Type != wire.Bye {
			t.Errorf("%v, %v", f.Type, err)
		}
	})
	var e *Error
	if !errors.Is(err, unix.EPIPE) || errors.As(err, &e) {
		t.Errorf("%v", err)
	}
}
