// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pipe(p *[2]int) error { return unix.Pipe2(p[:], unix.O_CLOEXEC) }

// A reader that takes some bytes, then no more, must not hold up Close.
func TestStreamCloseWhileNobodyReads(t *testing.T) {
	for name, open := range map[string]func(p *[2]int) error{
		"pipe":                pipe,
		"another user's pipe": pipe,
		"socket": func(p *[2]int) (err error) {
			*p, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var p [2]int
			if err := open(&p); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(p[1])
			q, err := OpenStream(StreamFile(p[1], name, true))
			if err != nil {
				t.Fatal(err)
			}
			if name == "another user's pipe" {
				s := q.(*threadQueue).execs[0].(*streamExec)
				unix.Close(s.own)
				s.own = -1
			}
			op := &Op{Kind: Write, Buf: make([]byte, 16<<20)}
			if _, err := q.Submit([]*Op{op}); err != nil {
				t.Fatal(err)
			}
			if n, err := unix.Read(p[0], make([]byte, 10000)); n < 1 || err != nil {
				t.Fatal(n, err)
			}
			time.Sleep(50 * time.Millisecond) // for it to be full again
			closed := tell(q.Close)
			select {
			case err := <-closed:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(30 * time.Second):
				t.Error("Close waits for the reader")
			}
			unix.Close(p[0])
			if op.Err != unix.ECANCELED && !t.Failed() {
				t.Errorf("%d bytes went, %v", op.N, op.Err)
			}
		})
	}
}

// A write of many times what a pipe takes at once is one operation.
func TestStreamWritesAll(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	q, err := OpenStream(StreamFile(p[1], "pipe", true))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	const size = 1<<20 + 5
	op := &Op{Kind: Write, Buf: make([]byte, size)}
	if _, err := q.Submit([]*Op{op}); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < size; {
		n, err := unix.Read(p[0], make([]byte, 65536))
		if got += n; n < 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if _, err := q.Reap(context.Background(), 1, nil); err != nil || op.N != size || op.Err != nil {
		t.Errorf("%d bytes, %v, %v", op.N, op.Err, err)
	}
}

// tell gives f's result when there is one.
func tell(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}
