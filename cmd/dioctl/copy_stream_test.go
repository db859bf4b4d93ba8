// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipeAndSource are a named pipe, and a file with more bytes than it holds.
func pipeAndSource(t *testing.T) (pipe, source string, data []byte) {
	t.Helper()
	dir := t.TempDir()
	pipe, source = filepath.Join(dir, "pipe"), filepath.Join(dir, "source")
	data = bytes.Repeat([]byte("through a named pipe"), 100_000)
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.WriteFile(source, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	return pipe, source, data
}

// startCopy runs a copy in this process until it ends or stop is called.
func startCopy(args ...string) (ended <-chan error, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- newApp(io.Discard, io.Discard).RunContext(ctx, append([]string{"dioctl", "copy"}, args...))
	}()
	return done, cancel
}

func copyEnds(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the copy doesn't end")
		return nil
	}
}

// A named pipe without a reader is waited for, not filled and thrown away.
func TestCopyToPipeWaitsForReader(t *testing.T) {
	pipe, source, _ := pipeAndSource(t)
	ended, stop := startCopy("--length", "1000", source, pipe)
	select {
	case err := <-ended:
		t.Fatalf("it ended without a reader: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	stop()
	if err := copyEnds(t, ended); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

func TestCopyToPipe(t *testing.T) {
	pipe, source, data := pipeAndSource(t)
	ended, stop := startCopy(source, pipe)
	defer stop()
	got, err := os.ReadFile(pipe)
	if err := errors.Join(err, copyEnds(t, ended)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
}

// A reader that goes away ends the copy.
func TestCopyToPipeThatBreaks(t *testing.T) {
	pipe, source, _ := pipeAndSource(t)
	ended, stop := startCopy(source, pipe)
	defer stop()
	r, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadFull(r, make([]byte, 10))
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if err := copyEnds(t, ended); !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
}
