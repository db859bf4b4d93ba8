// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEnginesReadAndWrite(t *testing.T) {
	const block, blocks = 8192, 12
	for _, name := range fileEngines() {
		for _, depth := range []int{1, 5} {
			for _, direct := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/direct=%v", name, depth, direct), func(t *testing.T) {
					fx := openFixture(t, name, depth, block, block*blocks, direct)
					buf := make([]Op, depth)
					for i := 0; i < blocks; i += depth {
						var ops []*Op
						for j := range min(depth, blocks-i) {
							buf[j] = Op{Kind: Read, Buf: fx.pool.all[j].Data, Offset: int64(i+j) * block, User: i + j}
							ops = append(ops, &buf[j])
						}
						fx.run(t, ops)
						for _, op := range ops {
							if op.Err != nil || op.N != block || !bytes.Equal(op.Buf, fx.want[op.Offset:op.Offset+block]) {
								t.Fatalf("read at %d: %d, %v; same bytes: %v", op.Offset, op.N, op.Err,
									bytes.Equal(op.Buf, fx.want[op.Offset:op.Offset+block]))
							}
							if op.Submitted == 0 || op.Completed < op.Submitted {
								t.Errorf("times: %v, %v", op.Submitted, op.Completed)
							}
							// Write it back turned round.
							for k := range op.Buf {
								op.Buf[k] ^= 0xff
							}
							op.Kind = Write
						}
						fx.run(t, ops)
						for _, op := range ops {
							if op.Err != nil || op.N != block {
								t.Fatalf("write at %d: %d, %v", op.Offset, op.N, op.Err)
							}
						}
					}
					sync := &Op{Kind: Sync}
					fx.run(t, []*Op{sync})
					if sync.Err != nil {
						t.Errorf("sync: %v", sync.Err)
					}
					got, err := os.ReadFile(fx.f.Path)
					if err != nil {
						t.Fatal(err)
					}
					for i := range fx.want {
						fx.want[i] ^= 0xff
					}
					if !bytes.Equal(got, fx.want) {
						t.Error("the file differs from what was written")
					}
				})
			}
		}
	}
}

func TestEnginesAtTheEnd(t *testing.T) {
	for _, name := range fileEngines() {
		t.Run(name, func(t *testing.T) {
			fx := openFixture(t, name, 1, 4096, 5000, false)
			buf := fx.pool.all[0].Data
			op := &Op{Kind: Read, Buf: buf, Offset: 4097}
			fx.run(t, []*Op{op})
			if op.Err != nil || op.N != 903 || !bytes.Equal(buf[:903], fx.want[4097:]) {
				t.Errorf("across the end: %d, %v", op.N, op.Err)
			}
			*op = Op{Kind: Read, Buf: buf, Offset: 5000}
			fx.run(t, []*Op{op})
			if op.Err != nil || op.N != 0 {
				t.Errorf("at the end: %d, %v", op.N, op.Err)
			}
			// A write past the end makes the file longer, at an odd place.
			copy(buf, "grown")
			*op = Op{Kind: Write, Buf: buf[:5], Offset: 7001}
			fx.run(t, []*Op{op})
			got, _ := os.ReadFile(fx.f.Path)
			if op.Err != nil || op.N != 5 || len(got) != 7006 || string(got[7001:]) != "grown" || got[6000] != 0 {
				t.Errorf("past the end: %d, %v, the file has %d bytes", op.N, op.Err, len(got))
			}
		})
	}
}

func TestErrnosComeThrough(t *testing.T) {
	for _, name := range fileEngines() {
		t.Run(name, func(t *testing.T) {
			fx := openFixture(t, name, 2, 4096, 8192, false)
			ro, err := OpenFile(fx.f.Path, FileOptions{Read: true})
			if err != nil {
				t.Fatal(err)
			}
			defer ro.Close()
			q, err := Open(name, ro, Options{Depth: 2, Pool: fx.pool})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			fx.q, fx.f = q, ro
			bad := &Op{Kind: Write, Buf: fx.pool.all[0].Data, Offset: 0}
			good := &Op{Kind: Read, Buf: fx.pool.all[1].Data, Offset: 4096}
			fx.run(t, []*Op{bad, good})
			if !errors.Is(bad.Err, unix.EBADF) || bad.N != 0 {
				t.Errorf("writing a file open for reading: %d, %v, want EBADF", bad.N, bad.Err)
			}
			if good.Err != nil || good.N != 4096 {
				t.Errorf("the operation beside it: %d, %v", good.N, good.Err)
			}
		})
	}
}

func TestNoWaitFlag(t *testing.T) {
	for _, name := range []string{"preadv", "preadv2", "aio", "io_uring"} {
		t.Run(name, func(t *testing.T) {
			fx := openFixture(t, name, 1, 4096, 8192, false)
			op := &Op{Kind: Read, Buf: fx.pool.all[0].Data, Flags: NoWait}
			fx.run(t, []*Op{op})
			if op.Err != nil && !errors.Is(op.Err, unix.EAGAIN) && !errors.Is(op.Err, unix.EOPNOTSUPP) {
				t.Errorf("NOWAIT: %d, %v", op.N, op.Err)
			}
			*op = Op{Kind: Read, Buf: fx.pool.all[0].Data, Flags: 1 << 30}
			fx.run(t, []*Op{op})
			if op.Err == nil {
				t.Error("an unknown flag was taken")
			}
		})
	}
	for _, name := range []string{"mmap", "splice"} {
		fx := openFixture(t, name, 1, 4096, 8192, false)
		op := &Op{Kind: Read, Buf: fx.pool.all[0].Data, Flags: NoWait}
		fx.run(t, []*Op{op})
		if !errors.Is(op.Err, unix.EOPNOTSUPP) {
			t.Errorf("%s: a flag it can't carry: %v", name, op.Err)
		}
	}
}

func TestMmapFaultIsAnError(t *testing.T) {
	fx := openFixture(t, "mmap", 1, 8192, 16384, false)
	op := &Op{Kind: Read, Buf: fx.pool.all[0].Data}
	fx.run(t, []*Op{op}) // maps all of it
	if op.Err != nil {
		t.Fatal(op.Err)
	}
	m := fx.q.(*inlineQueue).exec.(*mmapExec)
	if err := os.Truncate(fx.f.Path, 0); err != nil {
		t.Fatal(err)
	}
	if err := copyMapped(op, 0, m.win[:8192]); !errors.Is(err, ErrBusFault) {
		t.Errorf("touching a page that is gone: %v", err)
	}
}

func TestMmapWindowMoves(t *testing.T) {
	fx := openFixture(t, "mmap", 1, 10000, 64<<10, false)
	fx.q.(*inlineQueue).exec.(*mmapExec).max = 8192
	for _, off := range []int64{0, 50001, 3, 8190} {
		op := &Op{Kind: Read, Buf: fx.pool.all[0].Data, Offset: off}
		fx.run(t, []*Op{op})
		if op.Err != nil || op.N != 10000 || !bytes.Equal(op.Buf, fx.want[off:off+10000]) {
			t.Errorf("at %d: %d, %v", off, op.N, op.Err)
		}
	}
}

// slowFile is a pipe's reading end: a read there waits until closed.
func TestCloseDrainsAndCancels(t *testing.T) {
	for _, name := range []string{"io_uring", "aio"} {
		t.Run(name, func(t *testing.T) {
			fx := openFixture(t, name, 4, 4096, 65536, true)
			var ops []*Op
			for i := range 4 {
				ops = append(ops, &Op{Kind: Read, Buf: fx.pool.all[i].Data, Offset: int64(i) * 4096})
			}
			if n, err := fx.q.Submit(ops); n != 4 || err != nil {
				t.Fatalf("submit: %d, %v", n, err)
			}
			if n, err := fx.q.Submit([]*Op{{Kind: Sync}}); n != 0 || err != nil {
				t.Errorf("submit to a full queue: %d, %v", n, err)
			}
			if err := fx.q.Close(); err != nil {
				t.Fatal(err)
			}
			if n := fx.q.InFlight(); n != 0 {
				t.Errorf("%d in flight after Close", n)
			}
		})
	}
}

// stuckRing is an io_uring queue with a read of an empty pipe in flight.
func stuckRing(t *testing.T) (*uringQueue, *Op, int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	pool, err := NewPool(PoolOptions{Count: 1, Size: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	f := &File{FD: p[0], Path: "pipe", Kind: CharDevice, Read: true}
	q, err := openUring(f, Options{Depth: 2})
	var no *Unavailable
	if errors.As(err, &no) {
		t.Skip(no)
	}
	if err != nil {
		t.Fatal(err)
	}
	op := &Op{Kind: Read, Buf: pool.all[0].Data, Offset: -1}
	if n, err := q.Submit([]*Op{op}); n != 1 || err != nil {
		t.Fatalf("submit: %d, %v", n, err)
	}
	return q.(*uringQueue), op, p[1]
}

func TestContextEndsAWait(t *testing.T) {
	q, op, w := stuckRing(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	done, err := q.Reap(ctx, 1, nil)
	if !errors.Is(err, context.DeadlineExceeded) || len(done) != 0 || time.Since(start) > time.Second {
		t.Fatalf("reap: %v, %v after %v", done, err, time.Since(start))
	}
	if _, err := unix.Write(w, []byte("late")); err != nil {
		t.Fatal(err)
	}
	if done, err = q.Reap(context.Background(), 1, nil); err != nil || len(done) != 1 || op.N != 4 {
		t.Errorf("after the data came: %v, %v, %d", done, err, op.N)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

func TestCancelOfAStuckOperation(t *testing.T) {
	q, op, _ := stuckRing(t)
	if err := q.Cancel(op); err != nil {
		t.Fatal(err)
	}
	done, err := q.Reap(context.Background(), 1, nil)
	if err != nil || len(done) != 1 || op.Err == nil {
		t.Errorf("reap: %v, %v; the operation: %v", done, err, op.Err)
	}
	if err := q.Cancel(op); !errors.Is(err, ErrNotCancelable) {
		t.Errorf("cancelling what is done: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

func TestLazySubmitHandsOverInReap(t *testing.T) {
	fx := openFixture(t, "io_uring", 2, 4096, 8192, false)
	q, err := Open("io_uring", fx.f, Options{Depth: 2, LazySubmit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	op := &Op{Kind: Read, Buf: fx.pool.all[0].Data}
	if n, err := q.Submit([]*Op{op}); n != 1 || err != nil || q.(*uringQueue).ring.Pending() != 1 {
		t.Fatalf("submit: %d, %v, %d pending", n, err, q.(*uringQueue).ring.Pending())
	}
	if done, err := q.Reap(context.Background(), 1, nil); err != nil || len(done) != 1 || op.N != 4096 {
		t.Errorf("reap: %v, %v, %d", done, err, op.N)
	}
}

func TestFixedRefusesForeignBuffers(t *testing.T) {
	fx := openFixture(t, "io_uring-fixed", 1, 4096, 8192, false)
	other, err := NewPool(PoolOptions{Count: 1, Size: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	op := &Op{Kind: Read, Buf: other.all[0].Data}
	fx.run(t, []*Op{op})
	if !errors.Is(op.Err, unix.EFAULT) {
		t.Errorf("a buffer that isn't registered: %v", op.Err)
	}
}

func TestUnavailableSaysWhy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path, FileOptions{Read: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, reason := range map[string]string{"ioctl": "not a dio device", "io_uring-iopoll": "O_DIRECT"} {
		var no *Unavailable
		if err := Probe(name, f); !errors.As(err, &no) || !bytes.Contains([]byte(no.Error()), []byte(reason)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Probe("preadv", f); err != nil {
		t.Errorf("preadv: %v", err)
	}
	if _, err := Open("teleport", f, Options{}); err == nil {
		t.Error("an unknown engine opened")
	}
	if _, err := Open("preadv", f, Options{Depth: MaxDepth + 1}); err == nil {
		t.Error("too deep a queue opened")
	}
	if no := uringUnavailable("io_uring", f, unix.EPERM); !bytes.Contains([]byte(no.Error()), []byte("io_uring_disabled")) {
		t.Error(no)
	}
}

func TestStream(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	defer unix.Close(p[0])
	in, err := OpenStream(StreamFile(p[0], "in", false))
	if err != nil {
		t.Fatal(err)
	}
	out, err := OpenStream(StreamFile(p[1], "out", true))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w, r := &Op{Kind: Write, Buf: []byte("hello")}, &Op{Kind: Read, Buf: make([]byte, 100)}
	for _, s := range []struct {
		q  Queue
		op *Op
	}{{out, w}, {in, r}} {
		if n, err := s.q.Submit([]*Op{s.op}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := s.q.Reap(context.Background(), 1, nil); err != nil || s.op.N != 5 || s.op.Err != nil {
			t.Fatalf("%v: %d, %v, %v", s.op.Kind, s.op.N, s.op.Err, err)
		}
	}
	// A read that nobody feeds ends with Close.
	if _, err := in.Submit([]*Op{r}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- in.Close() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Close waits for a silent peer")
	}
}
