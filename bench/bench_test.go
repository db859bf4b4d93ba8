// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestBuckets(t *testing.T) {
	last := -1
	for _, v := range []uint64{0, 1, 127, 128, 129, 255, 256, 257, 258, 1000, 4095, 4096, 1 << 20, 1<<20 + 1<<13, 1 << 40, 1<<63 - 1, 1 << 63, math.MaxUint64} {
		b := bucket(v)
		if b < last {
			t.Errorf("bucket of %d is %d, below the one before", v, b)
		}
		last = b
		if up := upper(b); up < v || float64(up-v) > float64(v)*HistogramError {
			t.Errorf("%d falls in a bucket up to %d", v, up)
		}
		if up := upper(b); up != math.MaxUint64 && bucket(up+1) != b+1 {
			t.Errorf("bucket %d ends at %d, but %d is in bucket %d", b, up, up+1, bucket(up+1))
		}
	}
	if n := len(Histogram{}.counts); bucket(math.MaxUint64) != n-1 {
		t.Errorf("the largest value has bucket %d of %d", bucket(math.MaxUint64), n)
	}
}

// exact is what Percentile approximates.
func exact(sorted []int64, p float64) int64 {
	return sorted[max(int(math.Ceil(p*float64(len(sorted))-1e-9)), 1)-1]
}

func TestPercentiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() int64{
		"even":     func() int64 { return r.Int64N(1000) },
		"wide":     func() int64 { return int64(math.Exp(r.Float64() * 30)) },
		"constant": func() int64 { return 12345 },
		"outlier":  func() int64 { return 100 + max(0, r.Int64N(1000)-998)*1_000_000 },
	} {
		h, other, all := new(Histogram), new(Histogram), []int64{}
		for i := range 10_000 {
			v := draw()
			all = append(all, v)
			if i%2 == 0 {
				h.Record(v)
			} else {
				other.Record(v)
			}
		}
		h.Merge(other)
		slices.Sort(all)
		if h.Count() != 10_000 || h.Max() != all[len(all)-1] {
			t.Errorf("%s: %d values, max %d, want %d", name, h.Count(), h.Max(), all[len(all)-1])
		}
		for _, p := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
			got, want := h.Percentile(p), exact(all, p)
			if got < want || float64(got) > float64(want)*(1+HistogramError) {
				t.Errorf("%s: p%g is %d, want %d", name, 100*p, got, want)
			}
		}
	}
	h := new(Histogram)
	if h.Percentile(0.5) != 0 || h.Max() != 0 {
		t.Error("an empty histogram has a percentile")
	}
	h.Record(-5)
	if h.Percentile(1) != 0 || h.Count() != 1 {
		t.Error("a clock that goes back")
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	h := new(Histogram)
	if n := testing.AllocsPerRun(100, func() { h.Record(4711) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOffsets(t *testing.T) {
	const block, blocks = 4096, 16
	o := newOffsets(Read, block, block*blocks+100, 0)
	o.begin(1, 2)
	for i := range int64(40) {
		if at := o.next(); at != (i+blocks/2)%blocks*block {
			t.Fatalf("position %d of a sequence is %d", i, at)
		}
	}
	for _, seed := range []uint64{0, 1, math.MaxUint64} {
		a, b := newOffsets(RandRead, block, block*blocks, seed), newOffsets(RandRead, block, block*blocks, seed)
		seen := [blocks]int{}
		for range 1000 * blocks {
			at := a.next()
			if at != b.next() {
				t.Fatal("the same seed gives other offsets")
			}
			if at < 0 || at%block != 0 || at >= block*blocks {
				t.Fatal("offset", at)
			}
			seen[at/block]++
		}
		for i, n := range seen {
			if n < 800 || n > 1200 { // 1,000 are expected, within some 30
				t.Errorf("seed %d: block %d was drawn %d times of 16,000", seed, i, n)
			}
		}
	}
	one := newOffsets(RandWrite, block, block, 5)
	if one.next() != 0 {
		t.Error("one block alone")
	}
}

func TestCountsInstructions(t *testing.T) {
	if spinInstructions == 0 {
		t.Skip("nobody counted the loop's instructions on this processor")
	}
	exact := float64(spinTurns * spinInstructions)
	for _, c := range []struct {
		name  string
		tries []float64
		want  bool
	}{
		{"every instruction a nanosecond, one try interrupted", []float64{exact * 1.3, exact + 40, exact + 41, exact + 40, exact * 1.01, exact + 40}, true},
		{"a real processor", []float64{exact / 6, exact / 6, exact / 7, exact / 6, exact / 6, exact / 6}, false},
		{"a slow emulator", []float64{exact * 1.4, exact * 1.5, exact * 1.2, exact * 1.4, exact * 1.4, exact * 1.4}, false},
	} {
		i := 0
		if got := countsInstructions(func() float64 { i++; return c.tries[i-1] }); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
