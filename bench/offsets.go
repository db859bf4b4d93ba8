// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"fmt"
	"math/bits"
)

// RW is what is done, and where.
type RW string

// The four that Spec.RW takes.
const (
	Read      RW = "read"
	Write     RW = "write"
	RandRead  RW = "randread"
	RandWrite RW = "randwrite"
)

// ParseRW reads one of the four.
func ParseRW(s string) (RW, error) {
	switch rw := RW(s); rw {
	case Read, Write, RandRead, RandWrite:
		return rw, nil
	}
	return "", fmt.Errorf("%q: want read, write, randread or randwrite", s)
}

// Writes tells whether the target's bytes change.
func (rw RW) Writes() bool { return rw == Write || rw == RandWrite }

// Random tells whether offsets are drawn.
func (rw RW) Random() bool { return rw == RandRead || rw == RandWrite }

// offsets gives one position after another: in turn, wrapping at the end, or
// drawn evenly from all blocks, the same ones for the same seed.
type offsets struct {
	block, end, at int64
	random         bool
	state, blocks  uint64
}

// newOffsets covers the whole blocks of size bytes; there must be one.
func newOffsets(rw RW, block int, size int64, seed uint64) offsets {
	n := size / int64(block)
	return offsets{block: int64(block), end: n * int64(block), random: rw.Random(),
		state: seed*0x9e3779b97f4a7c15 | 1, blocks: uint64(n)}
}

func (o *offsets) next() int64 {
	if !o.random {
		at := o.at
		if o.at += o.block; o.at >= o.end {
			o.at = 0
		}
		return at
	}
	// xorshift64*, scaled by a multiplication rather than a division.
	x := o.state
	x ^= x >> 12
	x ^= x << 25
	x ^= x >> 27
	o.state = x
	hi, _ := bits.Mul64(x*0x2545f4914f6cdd1d, o.blocks)
	return int64(hi) * o.block
}

// begin moves the next position of a sequence to part k of n, so that threads
// don't tread on each other.
func (o *offsets) begin(k, n int) {
	if !o.random {
		o.at = int64(o.blocks) * int64(k) / int64(n) * o.block
	}
}
