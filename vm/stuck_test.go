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

// The time limit ends a run whose output nobody reads.
func TestLimitWhileOutputIsStuck(t *testing.T) {
	dir := t.TempDir()
	frames, err := os.Create(filepath.Join(dir, "frames"))
	if err != nil {
		t.Fatal(err)
	}
	w := wire.NewWriter(frames)
	if err := errors.Join(w.SendJSON(wire.Hello, wire.Greeting{}), w.Send(wire.Stdout, 0, []byte("x")), frames.Close()); err != nil {
		t.Fatal(err)
	}
	emulator := filepath.Join(dir, "qemu")
	script := "#!/bin/sh\ncat " + frames.Name() + " >&3\nexec sleep 1000\n"
	if err := os.WriteFile(emulator, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
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
