// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// An operation that nobody cancelled and that io_uring gave up may be tried again;
// one that was cancelled may not.
func TestUringGivesUpOrCancels(t *testing.T) {
	q := &uringQueue{f: &File{Path: "file"}, slots: newSlots(3),
		ring: &ring{cqHead: &atomic.Uint32{}, cqTail: &atomic.Uint32{}, cqMask: 3, cqes: make([]uringCQE, 4)}}
	given, cancelled, good := &Op{cancel: true}, &Op{}, &Op{}
	for i, op := range []*Op{given, cancelled, good} {
		q.ring.cqes[i] = uringCQE{userData: q.slots.ticket(q.slots.take(op)), res: -int32(unix.ECANCELED)}
		q.ring.cqTail.Add(1)
	}
	cancelled.cancel, q.ring.cqes[2].res = true, 4096
	if done := q.collect(nil); len(done) != 3 {
		t.Fatalf("%d completions", len(done))
	}
	if !errors.Is(given.Err, unix.EAGAIN) || !errors.Is(given.Err, unix.ECANCELED) {
		t.Errorf("given up: %v", given.Err)
	}
	if errors.Is(cancelled.Err, unix.EAGAIN) || !errors.Is(cancelled.Err, unix.ECANCELED) {
		t.Errorf("cancelled: %v", cancelled.Err)
	}
	if good.Err != nil || good.N != 4096 {
		t.Errorf("done: %d, %v", good.N, good.Err)
	}
}
