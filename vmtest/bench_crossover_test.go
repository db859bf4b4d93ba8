// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dio/bench"
)

// Where O_DIRECT wins over copying: measured on the device, for each engine and
// direction, at each size; and what is said of it is what was measured.
func TestBenchCrossover(t *testing.T) {
	engines, kinds, sizes := []string{"psync", "aio"}, []bench.RW{bench.Read, bench.Write}, []int{512, 4096, 65536}
	args := []string{"dioctl", "bench", "--crossover", "--ops", "32", "--size", "1M", "--engine", "psync,aio", "--rw", "read,write", "--block-size", "512,4k,64k"}
	type report struct {
		bench.Report
		Crossovers []bench.Crossover `json:"crossover"`
	}
	r := decode[report](t, mustRun(t, append(args, "--format", "json", device)...))

	cost := map[string]float64{}
	key := func(engine string, rw bench.RW, size int, variant string) string {
		return fmt.Sprint(engine, " ", rw, " ", size, " ", variant)
	}
	for _, res := range r.Results {
		if res.Figures == nil {
			t.Errorf("%s, %s, %d: not measured: %s", res.Engine, res.RW, res.BlockSize, res.Unavailable)
			continue
		}
		k := key(res.Engine, res.RW, res.BlockSize, res.Variant)
		if cost[k] != 0 || res.Ops != 32 || res.Cost() <= 0 {
			t.Errorf("%s: %+v", k, *res.Figures)
		}
		cost[k] = res.Cost()
	}
	if want := len(engines) * len(kinds) * len(sizes) * 2; len(cost) != want {
		t.Errorf("%d were measured, want %d: %v", len(cost), want, cost)
	}
	if len(r.Crossovers) != len(engines)*len(kinds) {
		t.Errorf("%+v, want one for each of %v and %v", r.Crossovers, engines, kinds)
	}
	for _, x := range r.Crossovers {
		if !slices.Contains(engines, x.Engine) || !slices.Contains(kinds, x.RW) || x.Sizes != len(sizes) {
			t.Errorf("%+v", x)
		}
		// The smallest size from which on direct is never the dearer one.
		from := 0
		for _, size := range slices.Backward(sizes) {
			direct, copied := cost[key(x.Engine, x.RW, size, "direct")], cost[key(x.Engine, x.RW, size, "buffered")]
			if direct == 0 || copied == 0 || direct > copied {
				break
			}
			from = size
		}
		if x.From != from {
			t.Errorf("%s, %s: direct wins from %d on, want %d: %v", x.Engine, x.RW, x.From, from, cost)
		}
	}

	text := string(mustRun(t, append(args, device)...).stdout)
	for _, e := range engines {
		for _, rw := range kinds {
			if !strings.Contains(text, fmt.Sprintf("%s by %s: O_DIRECT wins from ", rw, e)) && !strings.Contains(text, fmt.Sprintf("%s by %s: copying wins", rw, e)) {
				t.Errorf("not a word of %s by %s:\n%s", rw, e, text)
			}
		}
	}
}
