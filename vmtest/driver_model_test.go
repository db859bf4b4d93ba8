// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// model sets a model up, and counters from zero.
func model(t *testing.T, d *ioctlapi.Device, change func(*ioctlapi.Config)) {
	t.Helper()
	setConfig(t, d, func(c *ioctlapi.Config) {
		c.Completion, c.LatencyNS, c.JitterNS, c.Bandwidth, c.RepositionNS = ioctlapi.CompletionAuto, 0, 0, 0, 0
		change(c)
	})
	if _, err := d.ResetStats(); err != nil {
		t.Fatal(err)
	}
}

// burst submits n reads of mem at once, one behind the other, and gives the
// time from the first submission to each completion, in their order.
func burst(t *testing.T, fd int, mem []byte, n int) (took []time.Duration, order []uint64) {
	t.Helper()
	aio := newAIO(t, n)
	begin := time.Now()
	for i := range n {
		c := control(aioRead, fd, mem, int64(i*len(mem)))
		c.data = uint64(i)
		if err := aio.submit(c); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		e := aio.wait(30 * time.Second)
		if e.res != int64(len(mem)) {
			t.Errorf("request %d ended with %d", e.data, e.res)
		}
		took, order = append(took, time.Since(begin)), append(order, e.data)
	}
	aio.none()
	return took, order
}

// A disk works on queue_depth requests at a time, the others wait their turn.
func TestDriverDiskDepth(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency, depth, n = 300 * time.Millisecond, 2, 6
	model(t, d, func(c *ioctlapi.Config) {
		c.Model, c.LatencyNS, c.QueueDepth = ioctlapi.ModelDisk, uint64(latency), depth
	})
	took, order := burst(t, openRaw(t, unix.O_DIRECT), anonymous(t, 1), n)
	for i := range took {
		round := time.Duration(i/depth + 1)
		if took[i] < latency*round-latency/10 || took[i] > latency*(round+1) {
			t.Errorf("completion %d after %v, want round %d of %v", i, took[i], round, latency)
		}
		if int(order[i])/depth != i/depth {
			t.Errorf("completions came in the order %v", order)
			break
		}
	}
	if s, err := d.Stats(); err != nil || s.DepthWaits != n-depth || s.Queued != n {
		t.Errorf("depth waits %d, queued %d, %v; want %d, %d", s.DepthWaits, s.Queued, err, n-depth, n)
	}
}

// All requests of a disk share its bandwidth; its bytes are kept. The same
// without O_DIRECT, where the caller sleeps.
func TestDriverDiskBandwidth(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const bandwidth = 1 << 20
	model(t, d, func(c *ioctlapi.Config) {
		c.Model, c.Bandwidth, c.QueueDepth = ioctlapi.ModelDisk, bandwidth, 32
	})
	mem := anonymous(t, 32) // 128 KiB: an eighth of a second
	took, _ := burst(t, openRaw(t, unix.O_DIRECT), mem, 8)
	if last := took[7]; last < 990*time.Millisecond || last > 1700*time.Millisecond {
		t.Errorf("1 MiB at 1 MiB/s took %v", last)
	}
	out, in := fill(mem, 3), anonymous(t, 32)
	for _, flags := range []int{0, unix.O_DIRECT} {
		fd, begin := openRaw(t, flags), time.Now()
		if n, err := unix.Pwrite(fd, out, scratch); n != len(out) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
		if n, err := unix.Pread(fd, in, scratch); n != len(in) || err != nil || !bytes.Equal(in, out) {
			t.Errorf("read: %d, %v, equal: %v", n, err, bytes.Equal(in, out))
		}
		if took := time.Since(begin); took < 250*time.Millisecond {
			t.Errorf("flags %#x: 256 KiB at 1 MiB/s took %v", flags, took)
		}
	}
}

// The random part: the same with the same seed, another with another, spread
// as asked for.
func TestDriverDiskJitter(t *testing.T) {
	d := openDevice(t)
	for _, distribution := range []ioctlapi.Distribution{ioctlapi.DistributionUniform, ioctlapi.DistributionExponential} {
		// A machine that stops for a moment spoils times and order: not three times
		// running, and less so the longer the times are.
		var problems []string
		for try := 0; try == 0 || len(problems) > 0 && try < 3; try++ {
			problems = jitterProblems(t, d, distribution, 400*time.Millisecond<<try)
			t.Logf("%v, try %d: %q", distribution, try, problems)
		}
		for _, p := range problems {
			t.Errorf("%v: %s", distribution, p)
		}
	}
}

// jitterProblems runs three bursts, the first two with the same seed, and says
// what isn't as the distribution has it.
func jitterProblems(t *testing.T, d *ioctlapi.Device, distribution ioctlapi.Distribution, jitter time.Duration) []string {
	t.Helper()
	const n = 16
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 1)
	var problems []string
	var orders [][]uint64
	for _, seed := range []uint64{1, 1, 2} {
		model(t, d, func(c *ioctlapi.Config) {
			c.Model, c.QueueDepth, c.Seed = ioctlapi.ModelDisk, 64, seed
			c.JitterNS, c.Distribution = uint64(jitter), distribution
		})
		took, order := burst(t, fd, mem, n)
		orders = append(orders, order)
		var sum time.Duration
		for _, v := range took {
			sum += v
		}
		mean, want := sum/n, jitter/2
		if distribution == ioctlapi.DistributionExponential {
			want = jitter
			// None of 16 uniform times is over the jitter; of these seeds' exponential
			// ones the longest are 1.79 and 1.59 times as long.
			if last := took[n-1]; last < jitter+jitter*3/10 {
				problems = append(problems, fmt.Sprintf("seed %d: none takes longer than %v", seed, last))
			}
		} else if last := took[n-1]; last > jitter+jitter/2 {
			problems = append(problems, fmt.Sprintf("seed %d: %v is over %v", seed, last, jitter))
		}
		if mean < want/2 || mean > want*2 {
			problems = append(problems, fmt.Sprintf("seed %d: %v on average, want about %v", seed, mean, want))
		}
	}
	same, other := 0, 0
	for i := range n {
		if orders[0][i] == orders[1][i] {
			same++
		}
		if orders[0][i] == orders[2][i] {
			other++
		}
	}
	// Neighbours may change places when their times are a blink apart.
	if same < n-4 || other > n-4 {
		problems = append(problems, fmt.Sprintf("in order with the same seed %d of %d, with another %d", same, n, other))
	}
	return problems
}

// One request at a time lets the tape run dry before each; several in flight
// keep it streaming. A request elsewhere is a seek.
func TestDriverTape(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const reposition, n = 200 * time.Millisecond, 6
	tape := func(c *ioctlapi.Config) {
		c.Model, c.Bandwidth, c.RepositionNS = ioctlapi.ModelTape, 1<<20, uint64(reposition)
	}
	model(t, d, tape)
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 8) // 32 KiB: 31 ms

	took, order := burst(t, fd, mem, n)
	s, err := d.Stats()
	if err != nil || s.Stalls != 0 || s.Seeks != 0 || s.Head != uint64(n*len(mem)) {
		t.Errorf("streaming: %d stalls, %d seeks, head at %d, %v", s.Stalls, s.Seeks, s.Head, err)
	}
	if took[n-1] < 180*time.Millisecond || took[n-1] > 600*time.Millisecond {
		t.Errorf("streaming %d times 32 KiB at 1 MiB/s took %v", n, took[n-1])
	}
	for i := range order {
		if order[i] != uint64(i) {
			t.Errorf("a tape completed in the order %v", order)
			break
		}
	}

	model(t, d, tape) // rewinds
	begin := time.Now()
	for i := range n {
		if got, err := unix.Pread(fd, mem, int64(i*len(mem))); got != len(mem) || err != nil {
			t.Fatalf("read: %d, %v", got, err)
		}
	}
	one := time.Since(begin)
	s, err = d.Stats()
	if err != nil || s.Stalls != n-1 || s.Seeks != 0 {
		t.Errorf("one at a time: %d stalls, %d seeks, %v; want %d, 0", s.Stalls, s.Seeks, err, n-1)
	}
	if one < (n-1)*reposition {
		t.Errorf("%d stalls of %v in only %v", n-1, reposition, one)
	}

	model(t, d, tape)
	begin = time.Now()
	if got, err := unix.Pread(fd, mem, 1<<20); got != len(mem) || err != nil {
		t.Fatalf("read: %d, %v", got, err)
	}
	if took := time.Since(begin); took < reposition {
		t.Errorf("a seek took %v", took)
	}
	if s, err = d.Stats(); err != nil || s.Stalls != 0 || s.Seeks != 1 || s.Head != 1<<20+uint64(len(mem)) {
		t.Errorf("elsewhere: %d stalls, %d seeks, head at %d, %v; want 0, 1", s.Stalls, s.Seeks, s.Head, err)
	}
}

// A fault that is used up isn't armed any more.
func TestDriverFaultUsedUp(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	if err := d.ArmFault(ioctlapi.Fault{Fault: ioctlapi.FaultDirtyMissing, Every: 1, Count: 1}); err != nil {
		t.Fatal(err)
	}
	defer d.ClearFault(ioctlapi.FaultDirtyMissing)
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 1)
	for want := uint32(1); ; want = 0 {
		if f, err := d.Fault(ioctlapi.FaultDirtyMissing); err != nil || f.Armed != want || f.Count != uint64(want) {
			t.Errorf("armed %d, count %d, %v; want %d", f.Armed, f.Count, err, want)
		}
		if want == 0 {
			break
		}
		if n, err := unix.Pread(fd, mem, scratch); n != len(mem) || err != nil {
			t.Fatal(n, err)
		}
	}
	// It is still known how it was armed, until it's cleared; so the listing tells.
	for _, c := range []struct {
		every uint32
		text  string
	}{{1, "used up"}, {0, "no"}} {
		if f, err := d.Fault(ioctlapi.FaultDirtyMissing); err != nil || f.Every != c.every || f.Committed == 0 {
			t.Errorf("%s: every %d, committed %d, %v", c.text, f.Every, f.Committed, err)
		}
		listed := string(mustRun(t, "dioctl", "fault", "list").stdout)
		if _, line, _ := strings.Cut(listed, "dirty-missing"); !strings.HasPrefix(strings.TrimSpace(line), c.text+" ") {
			t.Errorf("want %q in the listing:\n%s", c.text, listed)
		}
		if err := d.ClearFault(ioctlapi.FaultDirtyMissing); err != nil {
			t.Fatal(err)
		}
	}
}
