// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

func inject(t *testing.T, d *ioctlapi.Device, rule ioctlapi.Inject) {
	t.Helper()
	if err := d.Inject(rule); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.ClearInject(ioctlapi.InjectNone); err != nil {
			t.Error(err)
		}
	})
}

// Errors and short transfers, each Nth, by direction and range, so often, on
// every path: copied, direct at once, direct queued.
func TestDriverInjectErrors(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	mem := anonymous(t, 2)
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionWorker, ioctlapi.CompletionTimer} {
		setConfig(t, d, func(c *ioctlapi.Config) { c.Completion, c.LatencyNS = completion, 0 })
		for _, flags := range []int{0, unix.O_DIRECT} {
			fd := openRaw(t, flags)
			inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 3, Flags: ioctlapi.InjectReads, Offset: scratch + 4096, Length: 8192, Count: 2})
			var hits []int
			for i := range 12 {
				// Neither a write nor another place is an occasion.
				if n, err := unix.Pwrite(fd, mem, scratch+4096); n != len(mem) || err != nil {
					t.Errorf("write: %d, %v", n, err)
				}
				if n, err := unix.Pread(fd, mem[:4096], scratch); n != 4096 || err != nil {
					t.Errorf("read before the range: %d, %v", n, err)
				}
				if n, err := unix.Pread(fd, mem[:4096], scratch+12288); n != 4096 || err != nil {
					t.Errorf("read behind the range: %d, %v", n, err)
				}
				n, err := unix.Pread(fd, mem, scratch)
				if errors.Is(err, unix.EIO) {
					hits = append(hits, i)
				} else if n != len(mem) || err != nil {
					t.Errorf("read: %d, %v", n, err)
				}
			}
			if len(hits) != 2 || hits[0] != 2 || hits[1] != 5 {
				t.Errorf("%v, flags %#x: reads %v failed, want the third and the sixth", completion, flags, hits)
			}
			if r, err := d.Injection(ioctlapi.InjectEIO); err != nil || r.Armed != 0 || r.Count != 0 || r.Every != 3 {
				t.Errorf("used up: %+v, %v", r, err)
			}
			inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectShort, Every: 1})
			before := append([]byte(nil), mem...)
			if n, err := unix.Pwrite(fd, fill(mem, 77), scratch); n != len(mem)/2 || err != nil {
				t.Errorf("%v, flags %#x: short write: %d, %v", completion, flags, n, err)
			}
			if n, err := unix.Pread(fd, mem[:1024], scratch); n != 512 || err != nil {
				t.Errorf("%v, flags %#x: short read: %d, %v", completion, flags, n, err)
			}
			if err := d.ClearInject(ioctlapi.InjectShort); err != nil {
				t.Fatal(err)
			}
			want := append(append([]byte(nil), fill(mem, 77)[:len(mem)/2]...), before[len(mem)/2:]...)
			if n, err := unix.Pread(fd, mem, scratch); n != len(mem) || err != nil || !bytes.Equal(mem, want) {
				t.Errorf("%v, flags %#x: after a short write: %d, %v, equal: %v", completion, flags, n, err, bytes.Equal(mem, want))
			}
		}
	}
}

// The same seed fails the same requests, another one others, about as many.
func TestDriverInjectSeed(t *testing.T) {
	d := openDevice(t)
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 1)
	run := func(seed uint64) string {
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 4, Seed: seed})
		var out strings.Builder
		for range 400 {
			_, err := unix.Pread(fd, mem, 0)
			out.WriteByte("01"[btoi(err != nil)])
		}
		return out.String()
	}
	a, b, c := run(7), run(7), run(8)
	if a != b || a == c {
		t.Errorf("same seed: equal %v; another: equal %v", a == b, a == c)
	}
	if n := strings.Count(a, "1"); n < 60 || n > 140 {
		t.Errorf("%d of 400 failed, want about 100", n)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A delay is waited for, on every path, or refused where the caller may not wait.
func TestDriverInjectDelay(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	mem := anonymous(t, 1)
	const delay = 200 * time.Millisecond
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionInline} {
		setConfig(t, d, func(c *ioctlapi.Config) { c.Completion, c.LatencyNS = completion, 0 })
		for _, flags := range []int{0, unix.O_DIRECT} {
			fd := openRaw(t, flags)
			inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectDelay, Every: 2, DelayNS: uint64(delay)})
			for i := range 4 {
				begin := time.Now()
				if n, err := unix.Pread(fd, mem, 0); n != len(mem) || err != nil {
					t.Errorf("read: %d, %v", n, err)
				}
				if took := time.Since(begin); (took >= delay) != (i%2 == 1) {
					t.Errorf("flags %#x: read %d took %v", flags, i, took)
				}
			}
			if n, err := vectored(unix.SYS_PREADV2, fd, iovecs(mem), 0, unix.RWF_NOWAIT); !errors.Is(err, unix.EAGAIN) {
				t.Errorf("flags %#x, RWF_NOWAIT: %d, %v, want EAGAIN", flags, n, err)
			}
		}
	}
}

// A held request ends after the next one, or alone after a while; a cancel and
// the end of the process find it, too.
func TestDriverInjectReorder(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	for _, c := range []struct {
		completion ioctlapi.Completion
		latency    time.Duration
	}{{ioctlapi.CompletionAuto, 50 * time.Millisecond}, {ioctlapi.CompletionTimer, 50 * time.Millisecond}, {ioctlapi.CompletionWorker, 0}, {ioctlapi.CompletionAuto, 0}} {
		setConfig(t, d, func(f *ioctlapi.Config) { f.Completion, f.LatencyNS = c.completion, uint64(c.latency) })
		fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, 1)
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectReorder, Every: 2, DelayNS: uint64(20 * time.Second)})
		aio := newAIO(t, 8)
		submit := func(data uint64) {
			t.Helper()
			one := control(aioRead, fd, mem, 0)
			one.data = data
			if err := aio.submit(one); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []uint64{0, 1, 2} {
			submit(n)
		}
		place := map[uint64]int{}
		for i := range 3 {
			place[aio.wait(10*time.Second).data] = i
		}
		// AIO tells what ends within its own io_submit() only on the way out: without a
		// latency that may be after the second, which the third's end lets go.
		if c.latency != 0 && place[1] < place[2] {
			t.Errorf("%v, %v: the held one ended before a later one: %v", c.completion, c.latency, place)
		}
		submit(3) // held, and nothing passes it
		aio.none()
		aio.close() // cancels what is held
		waitInFlight(t, d, 0)
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectReorder, Every: 1, DelayNS: uint64(300 * time.Millisecond)})
		aio, begin := newAIO(t, 1), time.Now()
		if err := aio.submit(control(aioRead, fd, mem, 0)); err != nil {
			t.Fatal(err)
		}
		if e := aio.wait(10 * time.Second); e.res != int64(len(mem)) || time.Since(begin) < 300*time.Millisecond {
			t.Errorf("held alone: %d after %v", e.res, time.Since(begin))
		}
	}
}

// A try that gets EAGAIN, for it may not wait or too many are in flight, is no
// occasion, and the next one is hit in its place.
func TestDriverInjectTurnedAway(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	mem := anonymous(t, 1)
	var rule ioctlapi.Inject
	var stats ioctlapi.Stats
	check := func(what string, occasions, count, errors uint64) {
		t.Helper()
		r, err := d.Injection(ioctlapi.InjectEIO)
		s, err2 := d.Stats()
		if err != nil || err2 != nil || r.Occasions != occasions || r.Count != count || r.Armed != 1 || r.Injected-rule.Injected != errors {
			t.Errorf("%s: %+v, %v, %v; want %d occasions, %d left, %d injected", what, r, err, err2, occasions, count, errors)
		}
		if n := s.InjectedErrors - stats.InjectedErrors; n != errors {
			t.Errorf("%s: %d injected errors counted, want %d", what, n, errors)
		}
	}
	set := func(i ioctlapi.Inject) {
		t.Helper()
		inject(t, d, i)
		var err error
		if rule, err = d.Injection(i.Action); err != nil {
			t.Fatal(err)
		}
		if stats, err = d.Stats(); err != nil {
			t.Fatal(err)
		}
	}
	for _, seed := range []uint64{0, 3} {
		// Queued by its completion alone: no time is set.
		for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionWorker, ioctlapi.CompletionTimer} {
			setConfig(t, d, func(c *ioctlapi.Config) { c.Completion, c.LatencyNS = completion, 0 })
			fd := openRaw(t, unix.O_DIRECT)
			set(ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1, Seed: seed, Count: 3})
			for range 3 {
				if n, err := vectored(unix.SYS_PREADV2, fd, iovecs(mem), 0, unix.RWF_NOWAIT); !errors.Is(err, unix.EAGAIN) {
					t.Errorf("%v: RWF_NOWAIT: %d, %v, want EAGAIN", completion, n, err)
				}
			}
			check(completion.String(), 0, 3, 0)
			if n, err := unix.Pread(fd, mem, 0); !errors.Is(err, unix.EIO) {
				t.Errorf("%v: then: %d, %v, want EIO", completion, n, err)
			}
			check(completion.String(), 1, 2, 1)
		}

		// io_uring tries without waiting first, and again in a thread of its own.
		setConfig(t, d, func(c *ioctlapi.Config) {
			c.Completion, c.LatencyNS, c.MaxInFlightFile = ioctlapi.CompletionAuto, uint64(500*time.Millisecond), 1
		})
		fd, ring := openRaw(t, unix.O_DIRECT), newUring(t, 4, 0)
		set(ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1, Seed: seed, Count: 3, Offset: 4096})
		first, second := entry(uringRead, fd, mem, 0), entry(uringRead, fd, mem, 4096)
		first.data, second.data = 1, 2
		ring.submit(first, second)
		results := map[uint64]int32{}
		for range 2 {
			v := ring.wait(10 * time.Second)
			results[v.data] = v.res
		}
		if results[1] != int32(len(mem)) {
			t.Errorf("the first: %d", results[1])
		}
		// Some kernels try until there is room.
		if results[2] == -int32(unix.EAGAIN) {
			check("io_uring", 0, 3, 0)
			ring.submit(second)
			results[2] = ring.wait(10 * time.Second).res
		}
		if results[2] != -int32(unix.EIO) {
			t.Errorf("the second: %d, want EIO", results[2])
		}
		check("io_uring", 1, 2, 1)
	}
}

// What a rule did counts under its own name and no other, for the rule and for the
// device.
func TestDriverInjectCounts(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	fd, aio, mem := openRaw(t, unix.O_DIRECT), newAIO(t, 1), anonymous(t, 2)
	counts := func() [4]uint64 {
		t.Helper()
		s, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return [4]uint64{s.InjectedErrors, s.InjectedShorts, s.InjectedDelays, s.InjectedReorders}
	}
	for i, rule := range []ioctlapi.Inject{
		{Action: ioctlapi.InjectEIO},
		{Action: ioctlapi.InjectShort},
		{Action: ioctlapi.InjectDelay, DelayNS: uint64(time.Millisecond)},
		{Action: ioctlapi.InjectReorder, DelayNS: uint64(time.Millisecond)},
	} {
		const hits = 3
		rule.Every, rule.Count, rule.Flags = 2, hits, ioctlapi.InjectReads
		was, err := d.Injection(rule.Action)
		if err != nil {
			t.Fatal(err)
		}
		want := counts()
		want[i] += hits
		inject(t, d, rule)
		// Each second read is hit, until the rule is used up.
		for range 2*hits + 4 {
			for _, op := range []uint16{aioRead, aioWrite} {
				if err := aio.submit(control(op, fd, mem, scratch)); err != nil {
					t.Fatal(err)
				}
				aio.wait(10 * time.Second)
			}
		}
		if got := counts(); got != want {
			t.Errorf("%v: errors, shorts, delays and reorders count %d, want %d", rule.Action, got, want)
		}
		if r, err := d.Injection(rule.Action); err != nil || r.Injected-was.Injected != hits || r.Armed != 0 {
			t.Errorf("%v: %+v, %v, want %d more than %d injected, and it used up", rule.Action, r, err, hits, was.Injected)
		}
		if err := d.ClearInject(rule.Action); err != nil {
			t.Fatal(err)
		}
	}
}

// The command sets, shows and removes rules.
func TestDriverInjectCommand(t *testing.T) {
	d := openDevice(t)
	t.Cleanup(func() { d.ClearInject(ioctlapi.InjectNone) })
	out, err := exec.Command("dioctl", "inject", "set", "--every", "5", "--length", "1M", "--writes", "short").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, err := d.Injection(ioctlapi.InjectShort)
	if err != nil || r.Armed != 1 || r.Every != 5 || r.Length != 1<<20 || r.Flags != ioctlapi.InjectWrites {
		t.Errorf("%+v, %v", r, err)
	}
	if out, err := exec.Command("dioctl", "inject", "clear").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r, err := d.Injection(ioctlapi.InjectShort); err != nil || r.Armed != 0 || r.Every != 0 {
		t.Errorf("after clear: %+v, %v", r, err)
	}

	// Used up looks otherwise.
	if err := d.Inject(ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1, Count: 1}); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Pread(openRaw(t, 0), make([]byte, 512), scratch); !errors.Is(err, unix.EIO) {
		t.Errorf("read: %d, %v, want EIO", n, err)
	}
	if r, err := d.Injection(ioctlapi.InjectEIO); err != nil || r.Armed != 0 || r.Every != 1 || r.Count != 0 {
		t.Errorf("used up: %+v, %v", r, err)
	}
	if o := mustRun(t, "dioctl", "inject", "list"); !strings.Contains(string(o.stdout), "used up") {
		t.Errorf("the listing:\n%s", o.stdout)
	}
}
