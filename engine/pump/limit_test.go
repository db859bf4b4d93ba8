// SPDX-License-Identifier: GPL-2.0-only

package pump

import (
	"bytes"
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"dio/engine"
)

// crowded is a queue whose device others use up for its first operations.
type crowded struct {
	balky
	refuse int
}

func (c *crowded) Submit(ops []*engine.Op) (int, error) {
	n := min(len(ops), c.depth-len(c.held))
	for _, op := range ops[:n] {
		op.N, op.Err = 0, nil
		if c.refuse > 0 {
			c.refuse--
			op.Err = unix.EAGAIN
		}
		c.held = append(c.held, op)
	}
	if c.refuse == 0 {
		c.peak = max(c.peak, c.running())
	}
	return n, nil
}

// What others used up for a moment is used again once they have left.
func TestDepthComesBackAfterEAGAIN(t *testing.T) {
	_, want := randomFile(t, 300_000)
	in := &crowded{balky: balky{data: want, depth: 8}, refuse: 20}
	got := make([]byte, len(want))
	out := &balky{data: got, depth: 8}
	f := &engine.File{Path: "crowded", Kind: engine.DioDevice, OffsetAlign: 1, MemAlign: 1}
	res, err := Run(context.Background(), End{File: f}, &End{File: f}, Options{Length: int64(len(want)), BlockSize: 1000, Depth: 8,
		open: func(_ End, k engine.Kind, _ engine.Options) (engine.Queue, error) {
			return map[engine.Kind]engine.Queue{engine.Read: in, engine.Write: out}[k], nil
		}})
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v, or the copy differs", err)
	}
	if in.peak != 8 || res.Read.Retried != 20 {
		t.Errorf("afterwards %d at a time were in flight of 8; %d were repeated", in.peak, res.Read.Retried)
	}
	// Where the room stays as it is, asking for more must not cost much.
	if res.Write.Retried > res.Write.Ops/4 {
		t.Errorf("%d of %d writes were repeated", res.Write.Retried, res.Write.Ops)
	}
}
