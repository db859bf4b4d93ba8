// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"dio/engine/uring"
)

// An operation that nobody cancelled and that io_uring gave up may be tried again;
// one that was cancelled may not.
func TestUringGivesUpOrCancels(t *testing.T) {
	q := &uringQueue{f: &File{Path: "file"}, slots: newSlots(3),
		ring: &uring.Ring{CQHead: &atomic.Uint32{}, CQTail: &atomic.Uint32{}, CQMask: 3, CQEs: make([]uring.CQE, 4)}}
	given, cancelled, good := &Op{cancel: true}, &Op{}, &Op{}
	for i, op := range []*Op{given, cancelled, good} {
		q.ring.CQEs[i] = uring.CQE{UserData: q.slots.ticket(q.slots.take(op)), Res: -int32(unix.ECANCELED)}
		q.ring.CQTail.Add(1)
	}
	cancelled.cancel, q.ring.CQEs[2].Res = true, 4096
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
