// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"math"
	"math/bits"
)

// Each power of two is cut into so many buckets: a value is told apart from
// any other that is more than 1/subBuckets away from it.
const (
	subBits    = 7
	subBuckets = 1 << subBits
)

// HistogramError is the largest relative error of Percentile: it tells a
// value that at least the given share of all values don't exceed, and that is
// at most this much above the least such value. Max is exact.
const HistogramError = 1.0 / subBuckets

// Histogram counts durations in nanoseconds. Its size doesn't depend on what
// it counts, and Record allocates nothing.
type Histogram struct {
	counts [(64 - subBits + 1) * subBuckets]uint32
	total  uint64
	max    uint64
}

// bucket is the place of v: itself below subBuckets, then subBuckets places
// for each power of two.
func bucket(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - subBits
	return (shift+1)<<subBits + int(v>>uint(shift)) - subBuckets
}

// upper is the largest value of a bucket.
func upper(b int) uint64 {
	if b < subBuckets {
		return uint64(b)
	}
	shift := uint(b>>subBits - 1)
	return (uint64(b&(subBuckets-1)+subBuckets)+1)<<shift - 1
}

// Record counts a duration of ns nanoseconds; negative ones, from a clock that
// went back, count as 0.
func (h *Histogram) Record(ns int64) {
	v := uint64(max(ns, 0))
	h.counts[bucket(v)]++
	h.total++
	h.max = max(h.max, v)
}

// Count is how many were recorded.
func (h *Histogram) Count() uint64 { return h.total }

// Max is the longest, exactly; 0 when there are none.
func (h *Histogram) Max() int64 { return int64(h.max) }

// Merge adds what o counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// Percentile is a duration that a share p of all (0 to 1) don't exceed, to
// within HistogramError; 0 when there are none.
func (h *Histogram) Percentile(p float64) int64 {
	if h.total == 0 {
		return 0
	}
	// The least rank that holds the share; rounding must not push 0.99 of 100
	// up to 100.
	rank := uint64(math.Ceil(p*float64(h.total) - 1e-9))
	rank = min(max(rank, 1), h.total)
	seen := uint64(0)
	for i, n := range h.counts {
		if seen += uint64(n); seen >= rank {
			return int64(min(upper(i), h.max))
		}
	}
	return int64(h.max)
}

// Latency is a histogram's summary in nanoseconds.
type Latency struct {
	P50  int64 `json:"p50"`
	P90  int64 `json:"p90"`
	P99  int64 `json:"p99"`
	P999 int64 `json:"p999"`
	Max  int64 `json:"max"`
}

// Summary gives the percentiles that are shown.
func (h *Histogram) Summary() Latency {
	return Latency{h.Percentile(0.5), h.Percentile(0.9), h.Percentile(0.99), h.Percentile(0.999), h.Max()}
}
