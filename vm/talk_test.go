// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"archive/tar"
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/vm/wire"
)

// talk runs a conversation against guest, which speaks from the other end.
func talk(t *testing.T, s *Spec, guest func(r *wire.Reader, w *wire.Writer, port net.Conn)) (Result, error) {
	t.Helper()
	setDefaults(s)
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		guest(wire.NewReader(theirs), wire.NewWriter(theirs), theirs)
	}()
	var res Result
	c := newConversation(ours, s, &res, time.Now())
	err := c.run()
	ours.Close()
	<-done
	return res, c.explain(err, s)
}

func TestConversation(t *testing.T) {
	var stdout, stderr bytes.Buffer
	input := strings.Repeat("0123456789", 100_000) // more than the window
	host := t.TempDir() + "/deep/out"
	s := &Spec{Stdin: strings.NewReader(input), Stdout: &stdout, Stderr: &stderr, Outs: []Out{{"/x", host}, {"/y", host + "2"}}}
	var got strings.Builder
	res, err := talk(t, s, func(r *wire.Reader, w *wire.Writer, _ net.Conn) {
		_ = w.SendJSON(wire.Hello, wire.Greeting{Release: "9.9"})
		pending := 0
		for {
			f, err := r.Next()
			if err != nil {
				t.Error(err)
				return
			}
			if f.Type == wire.StdinEnd {
				break
			}
			got.Write(f.Payload)
			if pending += len(f.Payload); pending > wire.StdinWindow {
				t.Errorf("%d bytes without credit", pending)
			}
			if pending > wire.StdinWindow-32<<10 {
				_ = w.SendUint32(wire.Credit, uint32(pending))
				pending = 0
			}
		}
		_ = w.Send(wire.Stdout, 0, []byte("out"))
		_ = w.Send(wire.Stderr, 0, []byte("err"))
		_ = w.Send(wire.Kmsg, 0, []byte("[    1.000000] log\n"))
		tw := tar.NewWriter(w.Stream(wire.Tar, 0))
		_ = tw.WriteHeader(&tar.Header{Name: ".", Typeflag: tar.TypeReg, Size: 2, Mode: 0o600})
		_, _ = tw.Write([]byte("hi"))
		_ = tw.Close()
		_ = w.Send(wire.OutEnd, 0, nil)
		_ = w.Send(wire.OutEnd, 1, []byte("no such file"))
		_ = w.SendJSON(wire.Exit, wire.Status{Code: 3})
		if f, err := r.Next(); err != nil || f.Type != wire.Bye {
			t.Errorf("after Exit: %v, %v", f.Type, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != 3 || res.Release != "9.9" || stdout.String() != "out" || stderr.String() != "err" || res.Kmsg != "[    1.000000] log\n" {
		t.Errorf("%+v, stdout %q, stderr %q", res, stdout.String(), stderr.String())
	}
	if got.String() != input {
		t.Errorf("the guest read %d bytes of %d", got.Len(), len(input))
	}
	if b, _ := os.ReadFile(host); string(b) != "hi" {
		t.Errorf("brought back %q", b)
	}
	if len(res.OutErrors) != 1 || !strings.Contains(res.OutErrors[0].Error(), "no such file") {
		t.Errorf("%v", res.OutErrors)
	}
}

// Whatever isn't an Exit frame is no result.
func TestNoResult(t *testing.T) {
	hello := func(w *wire.Writer) { _ = w.SendJSON(wire.Hello, wire.Greeting{}) }
	for name, c := range map[string]struct {
		guest func(r *wire.Reader, w *wire.Writer, port net.Conn)
		want  string
	}{
		"nothing": {func(*wire.Reader, *wire.Writer, net.Conn) {}, "did not come up"},
		"a crash": {func(_ *wire.Reader, w *wire.Writer, _ net.Conn) {
			hello(w)
			_ = w.Send(wire.Stdout, 0, []byte("PASS\n"))
		}, "without a result"},
		"a failure": {func(r *wire.Reader, w *wire.Writer, _ net.Conn) {
			hello(w)
			_ = w.SendText(wire.Fail, "load x.ko")
			_, _ = r.Next()
		}, "load x.ko"},
		"garbage": {func(r *wire.Reader, w *wire.Writer, port net.Conn) {
			hello(w)
			_, _ = port.Write(bytes.Repeat([]byte{0xff}, 64))
			_, _ = r.Next()
		}, "corrupt"},
		"a cut frame": {func(_ *wire.Reader, w *wire.Writer, port net.Conn) {
			hello(w)
			var b bytes.Buffer
			_ = wire.NewWriter(&b).SendJSON(wire.Exit, wire.Status{})
			_, _ = port.Write(b.Bytes()[:b.Len()-1])
		}, "unexpected EOF"},
		"an output nobody asked for": {func(r *wire.Reader, w *wire.Writer, _ net.Conn) {
			hello(w)
			_ = w.Send(wire.Tar, 7, []byte("x"))
			_, _ = r.Next()
		}, "output 7"},
		"a host's frame": {func(r *wire.Reader, w *wire.Writer, _ net.Conn) {
			hello(w)
			_ = w.Send(wire.Bye, 0, nil)
			_, _ = r.Next()
		}, "corrupt"},
	} {
		_, err := talk(t, &Spec{}, c.guest)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A signal asked for before the guest is up must reach it.
func TestEarlySignal(t *testing.T) {
	ours, theirs := net.Pipe()
	s := &Spec{}
	setDefaults(s)
	var res Result
	c := newConversation(ours, s, &res, time.Now())
	c.signal(unix.SIGTERM)
	go func() { _ = c.run() }()
	_ = wire.NewWriter(theirs).SendJSON(wire.Hello, wire.Greeting{})
	f, err := wire.NewReader(theirs).Next()
	if n, _ := f.Uint32(); err != nil || f.Type != wire.Signal || n != uint32(unix.SIGTERM) {
		t.Errorf("%v %d, %v", f.Type, n, err)
	}
	theirs.Close()
}
