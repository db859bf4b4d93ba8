// SPDX-License-Identifier: GPL-2.0-only

package wire

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
)

func frameBytes(t *testing.T, typ Type, payload string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := NewWriter(&b).Send(typ, 3, []byte(payload)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	big := bytes.Repeat([]byte("x"), 3*MaxPayload+5)
	if n, err := w.Stream(Stdout, 0).Write(big); n != len(big) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	if err := w.SendUint32(Credit, 77); err != nil {
		t.Fatal(err)
	}
	if err := w.SendJSON(Exit, Status{Code: 139, Signal: "SIGSEGV"}); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&b)
	var got []byte
	for len(got) < len(big) {
		f, err := r.Next()
		if err != nil || f.Type != Stdout {
			t.Fatalf("frame %+v, %v", f.Type, err)
		}
		got = append(got, f.Payload...)
	}
	if !bytes.Equal(got, big) {
		t.Error("bytes differ")
	}
	f, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if v, err := f.Uint32(); v != 77 || err != nil {
		t.Errorf("credit %d, %v", v, err)
	}
	f, err = r.Next()
	if err != nil {
		t.Fatal(err)
	}
	var s Status
	if err := f.JSON(&s); err != nil || s.Code != 139 || s.Signal != "SIGSEGV" {
		t.Errorf("status %+v, %v", s, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("end: %v, want io.EOF", err)
	}
}

func TestTruncated(t *testing.T) {
	whole := frameBytes(t, Stderr, "hello")
	for n := 1; n < len(whole); n++ {
		_, err := NewReader(bytes.NewReader(whole[:n])).Next()
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v, want io.ErrUnexpectedEOF", n, err)
		}
	}
}

// Every single-bit error anywhere in a frame must be seen.
func TestCorrupt(t *testing.T) {
	whole := frameBytes(t, Exit, `{"code":1}`)
	for i := range whole {
		for bit := range 8 {
			bad := bytes.Clone(whole)
			bad[i] ^= 1 << bit
			f, err := NewReader(bytes.NewReader(bad)).Next()
			if err == nil {
				t.Fatalf("byte %d bit %d: accepted as type %d %q", i, bit, f.Type, f.Payload)
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("byte %d bit %d: %v", i, bit, err)
			}
		}
	}
}

func TestBadPayload(t *testing.T) {
	f := Frame{Type: Exit, Payload: []byte("{")}
	if err := f.JSON(new(Status)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("JSON: %v", err)
	}
	if _, err := f.Uint32(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Uint32: %v", err)
	}
	if err := NewWriter(io.Discard).Send(Stdout, 0, make([]byte, MaxPayload+1)); err == nil {
		t.Error("an oversized payload was sent")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestWriteError(t *testing.T) {
	if n, err := NewWriter(failing{}).Stream(Tar, 1).Write([]byte("x")); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%d, %v", n, err)
	}
}

// Frames of concurrent senders must not mix.
func TestConcurrent(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				_ = w.Send(Stdout, uint8(i), bytes.Repeat([]byte{byte(i)}, 100))
			}
		})
	}
	wg.Wait()
	r, n := NewReader(&b), 0
	for ; ; n++ {
		f, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range f.Payload {
			if c != f.Stream {
				t.Fatal("mixed frames")
			}
		}
	}
	if n != 400 {
		t.Errorf("%d frames", n)
	}
}
