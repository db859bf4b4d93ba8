// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"errors"
	"math"
	"testing"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

func TestSlotsTellSecondCompletions(t *testing.T) {
	s := newSlots(1)
	a, b := &Op{}, &Op{}
	first := s.ticket(s.take(a))
	if s.finish(first) != a || s.strays != 0 {
		t.Fatal("the first completion")
	}
	if s.finish(first) != nil || s.strays != 1 {
		t.Error("a second completion of the same operation went unseen")
	}
	second := s.ticket(s.take(b))
	if s.finish(first) != nil || s.strays != 2 || !s.holds(b) {
		t.Error("an old ticket finished the slot's next operation")
	}
	if s.finish(second) != b || s.used != 0 {
		t.Error("the next operation's own completion")
	}
	if s.finish(77) != nil || s.finish(ownTicket) != nil || s.strays != 4 {
		t.Error("tickets that were never given out")
	}
}

type fakeTransferer struct {
	got  ioctlapi.Transfer
	done uint64
	err  error
}

func (f *fakeTransferer) Transfer(t *ioctlapi.Transfer) error {
	f.got = *t
	t.Done = f.done
	return f.err
}

func TestIoctlEngine(t *testing.T) {
	dev := &fakeTransferer{done: 3}
	x := &ioctlExec{dev: dev, fsync: func() error { return unix.EIO }}
	buf := make([]byte, 10)
	n, err := x.run(&Op{Kind: Write, Buf: buf, Offset: 1 << 33})
	if n != 3 || err != nil || dev.got.Flags != ioctlapi.TransferWrite || dev.got.Length != 10 ||
		dev.got.Offset != 1<<33 || dev.got.Addr != uint64(base(buf)) {
		t.Errorf("write: %d, %v, %+v", n, err, dev.got)
	}
	dev.err = &ioctlapi.Error{Op: "x", Path: "y", Err: unix.ENOSPC}
	if n, err := x.run(&Op{Kind: Read, Buf: buf}); n != 3 || err != unix.ENOSPC || dev.got.Flags != 0 {
		t.Errorf("read: %d, %v", n, err)
	}
	if _, err := x.run(&Op{Kind: Sync}); !errors.Is(err, unix.EIO) {
		t.Errorf("sync: %v", err)
	}
	dev.got = ioctlapi.Transfer{}
	if n, err := x.run(&Op{Kind: Read}); n != 0 || err != nil || dev.got.Size != 0 {
		t.Errorf("nothing to move: %d, %v", n, err)
	}
}

// fakeRegistrar has one registered buffer, number 5.
type fakeRegistrar struct {
	fakeTransferer
	length        int
	writable      bool
	registerErr   error
	unregistered  []uint32
	unregisterErr error
}

func (f *fakeRegistrar) RegisterBuffer(mem []byte, writable bool) (uint32, error) {
	f.length, f.writable = len(mem), writable
	return 5, f.registerErr
}

func (f *fakeRegistrar) UnregisterBuffer(id uint32) error {
	f.unregistered = append(f.unregistered, id)
	return f.unregisterErr
}

func TestIoctlBufferEngine(t *testing.T) {
	pool, err := NewPool(PoolOptions{Count: 2, Size: 5000, Misalign: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	dev := &fakeRegistrar{}
	dev.done = 9
	file := &File{Path: "x", Read: true}
	r, err := registerPool(dev, file, pool)
	if err != nil || dev.length != len(pool.mem) || !dev.writable {
		t.Fatalf("register: %v, %+v", err, dev)
	}
	x := &ioctlExec{dev: dev, registered: r}
	part := pool.all[1].Data[100:200]
	if n, err := x.run(&Op{Kind: Write, Buf: part, Offset: 1 << 33}); n != 9 || err != nil ||
		dev.got.Flags != ioctlapi.TransferWrite|ioctlapi.TransferBuffer || dev.got.Buffer != 5 || dev.got.Length != 100 ||
		dev.got.Offset != 1<<33 || dev.got.Addr != uint64(base(part)-base(pool.mem)) {
		t.Errorf("write: %d, %v, %+v", n, err, dev.got)
	}
	if _, err := x.run(&Op{Kind: Read, Buf: make([]byte, 8)}); !errors.Is(err, unix.EFAULT) {
		t.Errorf("foreign memory: %v", err)
	}
	q := &bufferQueue{&inlineQueue{exec: x}, r}
	if err := errors.Join(q.Close(), q.Close()); err != nil || len(dev.unregistered) != 1 || dev.unregistered[0] != 5 {
		t.Errorf("close: %v, %v", err, dev.unregistered)
	}
	if _, err := registerPool(dev, file, nil); err == nil {
		t.Error("no pool was taken")
	}
	dev.registerErr = &ioctlapi.Error{Op: "x", Path: "y", Err: unix.ENOMEM}
	var no *Unavailable
	if _, err := registerPool(dev, &File{Path: "x"}, pool); !errors.As(err, &no) || !errors.Is(err, unix.ENOMEM) || dev.writable {
		t.Errorf("refused: %v, writable %v", err, dev.writable)
	}
}

func TestPoolLimits(t *testing.T) {
	page := unix.Getpagesize()
	for _, o := range []PoolOptions{{}, {Count: 1}, {Count: 1, Size: -1}, {Count: 1, Size: 1, Misalign: page},
		{Count: math.MaxInt, Size: 1 << 20}, {Count: 1, Size: math.MaxInt}} {
		if p, err := NewPool(o); err == nil {
			p.Close()
			t.Errorf("%+v was taken", o)
		}
	}
	p, err := NewPool(PoolOptions{Count: 3, Size: 5000, Misalign: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for i := range p.all {
		b := p.TryGet()
		if b == nil || b.Index != i || len(b.Data) != 5000 || base(b.Data)%uintptr(page) != 3 || !p.contains(b.Data) {
			t.Errorf("buffer %d: %+v", i, b)
		}
	}
	if p.TryGet() != nil {
		t.Error("a fourth of three buffers")
	}
	if p.contains(make([]byte, 1)) {
		t.Error("the pool claims memory that isn't its own")
	}
}
