// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fixture is an engine on a file of random bytes.
type fixture struct {
	q    Queue
	pool *Pool
	f    *File
	want []byte // what the file holds
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// openFixture skips, with the engine's own words, what this kernel or the
// temporary folder's file system really refuses.
func openFixture(t *testing.T, name string, depth, block, size int, direct bool) *fixture {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	want := randomBytes(size)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path, FileOptions{Read: true, Write: true, Direct: direct})
	if direct && errors.Is(err, unix.EINVAL) {
		t.Skip("this file system refuses O_DIRECT")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	pool, err := NewPool(PoolOptions{Count: depth, Size: block})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	q, err := Open(name, f, Options{Depth: depth, Pool: pool, Timestamps: true})
	var no *Unavailable
	if errors.As(err, &no) {
		t.Skip(no)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &fixture{q, pool, f, want}
}

// run drives ops through the queue, never more than its depth at once.
func (fx *fixture) run(t *testing.T, ops []*Op) {
	t.Helper()
	var done []*Op
	total := len(ops)
	for len(done) < total {
		n, err := fx.q.Submit(ops)
		if err != nil {
			t.Fatalf("submit: %v", err)
		}
		ops = ops[n:]
		if fx.q.InFlight() > fx.q.Depth() {
			t.Fatalf("%d in flight, depth is %d", fx.q.InFlight(), fx.q.Depth())
		}
		before := len(done)
		if done, err = fx.q.Reap(context.Background(), 1, done); err != nil {
			t.Fatalf("reap: %v", err)
		}
		if len(done) == before {
			t.Fatal("Reap waited for one and gave none")
		}
	}
	if fx.q.InFlight() != 0 || fx.q.Strays() != 0 {
		t.Errorf("after all: %d in flight, %d strays", fx.q.InFlight(), fx.q.Strays())
	}
}

// fileEngines are those that work on plain files.
func fileEngines() []string {
	var names []string
	for _, e := range Engines() {
		if e.Access == FollowsFlag || e.Access == NeverDirect {
			names = append(names, e.Name)
		}
	}
	return names
}
