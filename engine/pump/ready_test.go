// SPDX-License-Identifier: GPL-2.0-only

package pump

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"dio/engine"
)

// Who changes something for the copy must not do so for one that never begins.
func TestReadyComesOnceEveryEngineIsThere(t *testing.T) {
	refused, spoiled := errors.New("no such luck"), errors.New("not now")
	for name, c := range map[string]struct {
		refuse engine.Kind // whose engine isn't to be had
		target bool
		ready  error // what comes of Ready
		want   error
		calls  int
	}{
		"reading refused": {engine.Read, true, nil, refused, 0},
		"writing refused": {engine.Write, true, nil, refused, 0},
		"not ready":       {engine.Sync, true, spoiled, spoiled, 1},
		"copied":          {engine.Sync, true, nil, nil, 1},
		"only read":       {engine.Write, false, nil, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			data := bytes.Repeat([]byte{7}, 5000)
			queues := map[engine.Kind]*balky{engine.Read: {data: data, depth: 2}, engine.Write: {data: make([]byte, len(data)), depth: 2}}
			f, calls := &engine.File{Path: "file", Kind: engine.DioDevice, OffsetAlign: 1, MemAlign: 1}, 0
			var dst *End
			if c.target {
				dst = &End{File: f}
			}
			_, err := Run(context.Background(), End{File: f}, dst, Options{Length: int64(len(data)), BlockSize: 1000, Depth: 2,
				Ready: func() error {
					calls++
					for _, q := range queues {
						if q.calls > 0 {
							t.Error("something was moved before")
						}
					}
					return c.ready
				},
				open: func(_ End, k engine.Kind, _ engine.Options) (engine.Queue, error) {
					if k == c.refuse {
						return nil, refused
					}
					return queues[k], nil
				}})
			if !errors.Is(err, c.want) || calls != c.calls {
				t.Errorf("%v, want %v; Ready was called %d times, want %d", err, c.want, calls, c.calls)
			}
			if moved := queues[engine.Read].calls; (err == nil) != (moved > 0) {
				t.Errorf("%v, and %d reads", err, moved)
			}
		})
	}
}

// tiring is a queue whose operations move a part and are then told EAGAIN, as those
// of several system calls may be.
type tiring struct{ balky }

func (q *tiring) Reap(ctx context.Context, want int, done []*engine.Op) ([]*engine.Op, error) {
	done, err := q.balky.Reap(ctx, want, done)
	for _, op := range done {
		if op.Err == nil && op.N < len(op.Buf) {
			op.Err = unix.EAGAIN
		}
	}
	return done, err
}

func TestGoesOnAfterAPartAndEAGAIN(t *testing.T) {
	_, want := randomFile(t, 50_000)
	in, out := &tiring{balky{data: want, depth: 4}}, &tiring{balky{data: make([]byte, len(want)), depth: 4}}
	f := &engine.File{Path: "tiring", Kind: engine.DioDevice, OffsetAlign: 1, MemAlign: 1}
	res, err := Run(context.Background(), End{File: f}, &End{File: f}, Options{Length: int64(len(want)), BlockSize: 1000, Depth: 4,
		open: func(_ End, k engine.Kind, _ engine.Options) (engine.Queue, error) {
			return map[engine.Kind]engine.Queue{engine.Read: in, engine.Write: out}[k], nil
		}})
	if err != nil || !bytes.Equal(out.data, want) {
		t.Fatalf("%v, or the copy differs", err)
	}
	if res.Read.Resumed == 0 || res.Write.Resumed == 0 {
		t.Errorf("nothing came in parts: %+v", res)
	}
}
