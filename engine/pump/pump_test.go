// SPDX-License-Identifier: GPL-2.0-only

package pump

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/engine"
)

func randomFile(t *testing.T, size int) (string, []byte) {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	path := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, b
}

func open(t *testing.T, path string, o engine.FileOptions) *engine.File {
	t.Helper()
	f, err := engine.OpenFile(path, o)
	if o.Direct && errors.Is(err, unix.EINVAL) {
		t.Skip("this file system refuses O_DIRECT")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// ends opens both sides, with a plain file beside a direct one.
func ends(t *testing.T, src, dst, name string, direct bool) (End, End) {
	t.Helper()
	s := End{File: open(t, src, engine.FileOptions{Read: true, Direct: direct}), Engine: name}
	d := End{File: open(t, dst, engine.FileOptions{Read: true, Write: true, Create: true, Direct: direct}), Engine: name}
	if direct {
		s.Plain = open(t, src, engine.FileOptions{Read: true})
		d.Plain = open(t, dst, engine.FileOptions{Read: true, Write: true})
	}
	return s, d
}

func TestCopyEveryEngine(t *testing.T) {
	src, want := randomFile(t, 3<<20+12345)
	sum := sha256.Sum256(want)
	for _, name := range []string{"preadv", "preadv2", "mmap", "aio", "io_uring", "io_uring-fixed", "splice"} {
		for _, c := range []struct {
			depth, block int
			direct       bool
		}{{1, 65536, false}, {8, 65536, false}, {3, 9999, false}, {8, 65536, true}, {1, 12288, true}} {
			t.Run(fmt.Sprintf("%s/depth=%d/block=%d/direct=%v", name, c.depth, c.block, c.direct), func(t *testing.T) {
				dst := filepath.Join(t.TempDir(), "target")
				s, d := ends(t, src, dst, name, c.direct)
				var no *engine.Unavailable
				if err := engine.Probe(name, s.File); errors.As(err, &no) {
					t.Skip(no)
				}
				h := sha256.New()
				var last int64
				res, err := Run(context.Background(), s, &d, Options{Length: -1, BlockSize: c.block, Depth: c.depth, Hash: h,
					Sync: true, Progress: func(n int64) { last = n }})
				if err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(dst)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("the copy differs (%d bytes, %v)", len(got), err)
				}
				if !bytes.Equal(h.Sum(nil), sum[:]) {
					t.Error("the hash is wrong")
				}
				if res.Bytes != int64(len(want)) || last != res.Bytes || res.Read.Ops == 0 || res.Write.Ops == 0 {
					t.Errorf("result %+v, last progress %d", res, last)
				}
				if c.direct && name != "mmap" && (res.Write.Plain == 0 || res.Write.Plain > 4096) {
					t.Errorf("%d bytes went around O_DIRECT; only the tail should", res.Write.Plain)
				}
			})
		}
	}
}

func TestOffsetsAndLengths(t *testing.T) {
	src, want := randomFile(t, 300001)
	for _, c := range []struct{ from, to, length int64 }{
		{0, 0, 0}, {1, 0, 1}, {12345, 777, 100000}, {4096, 8192, 65536}, {300000, 5, 1}, {5, 4096, 250000}, {4096, 5, 200000},
	} {
		for _, direct := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d+%d to %d direct=%v", c.from, c.length, c.to, direct), func(t *testing.T) {
				dst := filepath.Join(t.TempDir(), "target")
				marker := bytes.Repeat([]byte{0xee}, 400000)
				if err := os.WriteFile(dst, marker, 0o600); err != nil {
					t.Fatal(err)
				}
				s, d := ends(t, src, dst, "preadv", direct)
				s.Offset, d.Offset = c.from, c.to
				res, err := Run(context.Background(), s, &d, Options{Length: c.length, BlockSize: 16384, Depth: 4})
				if err != nil || res.Bytes != c.length {
					t.Fatalf("%+v, %v", res, err)
				}
				got, _ := os.ReadFile(dst)
				copy(marker[c.to:], want[c.from:c.from+c.length])
				if !bytes.Equal(got, marker) {
					t.Error("the target differs, or bytes beside the copy changed")
				}
			})
		}
	}
}

func TestDirectRefusesWhatItCannotCarry(t *testing.T) {
	src, _ := randomFile(t, 10000)
	s, d := ends(t, src, filepath.Join(t.TempDir(), "target"), "preadv", true)
	d.Plain = nil
	_, err := Run(context.Background(), s, &d, Options{Length: -1, BlockSize: 8192, Depth: 1})
	var op *OpError
	if !errors.As(err, &op) || !errors.Is(err, unix.EINVAL) || op.Kind != engine.Write || op.Length != 1808 {
		t.Errorf("an odd tail: %v", err)
	}
}

func TestShortSource(t *testing.T) {
	src, _ := randomFile(t, 5000)
	s, _ := ends(t, src, filepath.Join(t.TempDir(), "target"), "preadv", false)
	res, err := Run(context.Background(), s, nil, Options{Length: 6000, BlockSize: 1000, Depth: 2})
	if !errors.Is(err, ErrShortSource) || res.Bytes > 5000 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestStreams(t *testing.T) {
	src, want := randomFile(t, 1<<20+17)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "target")
	s, d := ends(t, src, dst, "io_uring", false)
	into := make(chan error, 1)
	go func() {
		out := End{File: engine.StreamFile(p[1], "pipe", true)}
		_, err := Run(context.Background(), s, &out, Options{Length: -1, BlockSize: 7777, Depth: 6})
		unix.Close(p[1])
		into <- err
	}()
	in := End{File: engine.StreamFile(p[0], "pipe", false)}
	res, err := Run(context.Background(), in, &d, Options{Length: -1, BlockSize: 10000, Depth: 4})
	if err := errors.Join(err, <-into); err != nil || res.Bytes != int64(len(want)) {
		t.Fatalf("%+v, %v", res, err)
	}
	if got, _ := os.ReadFile(dst); !bytes.Equal(got, want) {
		t.Error("what went through the pipe differs")
	}
}

// balky is a queue that completes the newest operation first, moves less than
// asked, and says EAGAIN past two in flight, as a busy device does.
type balky struct {
	data   []byte
	held   []*engine.Op
	depth  int
	calls  int
	peak   int
	closed bool
}

func (b *balky) Submit(ops []*engine.Op) (int, error) {
	n := min(len(ops), b.depth-len(b.held))
	for _, op := range ops[:n] {
		op.N, op.Err = 0, nil
		if running := b.running(); running >= 2 {
			op.Err = unix.EAGAIN
		}
		b.held = append(b.held, op)
	}
	b.peak = max(b.peak, len(b.held))
	return n, nil
}

func (b *balky) running() (n int) {
	for _, op := range b.held {
		if op.Err == nil {
			n++
		}
	}
	return n
}

func (b *balky) Reap(_ context.Context, want int, done []*engine.Op) ([]*engine.Op, error) {
	for ; want > 0 && len(b.held) > 0; want-- {
		op := b.held[len(b.held)-1]
		b.held = b.held[:len(b.held)-1]
		if op.Err == nil {
			b.calls++
			n := len(op.Buf)
			if b.calls%3 == 0 && n > 1 {
				n /= 2
			}
			if op.Kind == engine.Read {
				op.N = copy(op.Buf[:n], b.data[min(op.Offset, int64(len(b.data))):])
			} else {
				op.N = copy(b.data[op.Offset:], op.Buf[:n])
			}
		}
		done = append(done, op)
	}
	return done, nil
}

func (b *balky) InFlight() int           { return len(b.held) }
func (b *balky) Depth() int              { return b.depth }
func (b *balky) Cancel(*engine.Op) error { return engine.ErrNotCancelable }
func (b *balky) Strays() int             { return 0 }
func (b *balky) Close() error            { b.closed = true; b.held = nil; return nil }

func TestResumesRetriesAndOrders(t *testing.T) {
	_, want := randomFile(t, 100003)
	in, out := &balky{data: want, depth: 5}, &balky{data: make([]byte, len(want)), depth: 5}
	f := &engine.File{Path: "balky", Kind: engine.DioDevice, OffsetAlign: 1, MemAlign: 1}
	h := sha256.New()
	res, err := Run(context.Background(), End{File: f}, &End{File: f}, Options{Length: int64(len(want)), BlockSize: 1000, Depth: 5, Hash: h,
		open: func(_ End, k engine.Kind, _ engine.Options) (engine.Queue, error) {
			return map[engine.Kind]engine.Queue{engine.Read: in, engine.Write: out}[k], nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(want)
	if !bytes.Equal(out.data, want) || !bytes.Equal(h.Sum(nil), sum[:]) {
		t.Error("the copy differs")
	}
	if res.Read.Resumed == 0 || res.Write.Resumed == 0 || res.Read.Retried == 0 {
		t.Errorf("the queues weren't balky: %+v", res)
	}
	if !in.closed || !out.closed || in.peak > 5 || out.peak > 5 {
		t.Errorf("closed %v, %v; peaks %d, %d", in.closed, out.closed, in.peak, out.peak)
	}
}

func TestErrorsEndBothSides(t *testing.T) {
	src, _ := randomFile(t, 1<<20)
	s, _ := ends(t, src, filepath.Join(t.TempDir(), "target"), "io_uring", false)
	ro := End{File: open(t, src, engine.FileOptions{Read: true}), Engine: "aio"}
	_, err := Run(context.Background(), s, &ro, Options{Length: -1, BlockSize: 4096, Depth: 8})
	var op *OpError
	if !errors.As(err, &op) || !errors.Is(err, unix.EBADF) || op.Path != src {
		t.Errorf("writing a file open for reading: %v", err)
	}
	if msg := (&OpError{Kind: engine.Read, Err: unix.Errno(529)}).Error(); !bytes.Contains([]byte(msg), []byte("EIOCBQUEUED")) {
		t.Error(msg)
	}
}

func TestCancelledCopyEnds(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	in := End{File: engine.StreamFile(p[0], "pipe", false)}
	start := time.Now()
	_, err := Run(ctx, in, nil, Options{Length: -1, BlockSize: 4096, Depth: 2})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}
