// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/ioctlapi"
)

// seed is what a random test begins with: DIO_SEED, else another each time. It
// is told, so that a run can be had again.
func seed(t *testing.T) uint64 {
	t.Helper()
	s, err := strconv.ParseUint(os.Getenv("DIO_SEED"), 10, 64)
	if err != nil {
		s = rand.Uint64()
	}
	t.Logf("DIO_SEED=%d", s)
	return s
}

// helperIO keeps requests of an engine in flight, on random places, until it is
// killed or has made so many; then it ends with what is in flight.
func helperIO(args []string) error {
	if len(args) != 4 {
		return errors.New("want ENGINE ACCESS SEED OPERATIONS")
	}
	direct := args[1] == "direct"
	s, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	left, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	const depth, size = 12, 96 << 10
	r := rand.New(rand.NewPCG(s, 1))
	f, err := engine.OpenFile(ioctlapi.DefaultPath, engine.FileOptions{Read: true, Write: true, Direct: direct})
	if err != nil {
		return err
	}
	pool, err := engine.NewPool(engine.PoolOptions{Count: depth, Size: size})
	if err != nil {
		return err
	}
	q, err := engine.Open(args[0], f, engine.Options{Depth: depth, Pool: pool})
	var no *engine.Unavailable
	if errors.As(err, &no) {
		fmt.Println(no)
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Println("begins")
	var free []*engine.Op
	for b := pool.TryGet(); b != nil; b = pool.TryGet() {
		free = append(free, &engine.Op{User: b})
	}
	for ; left > 0; left-- {
		op := free[len(free)-1]
		free = free[:len(free)-1]
		n := 512 * (1 + r.IntN(size/512))
		op.Kind, op.Buf, op.Offset = engine.Kind(r.IntN(2)), op.User.(*engine.Buffer).Data[:n], scratch+512*int64(r.IntN(4<<20/512))
		if r.IntN(32) == 0 {
			op.Kind = engine.Sync
		}
		if _, err := q.Submit([]*engine.Op{op}); err != nil {
			return err
		}
		if len(free) == 0 {
			if free, err = q.Reap(context.Background(), 1, free); err != nil {
				return err
			}
			for _, op := range free {
				if err := checkOp(op); err != nil {
					return fmt.Errorf("%s, %s: %w", args[0], args[1], err)
				}
			}
		}
	}
	os.Exit(0) // as it is
	return nil
}

// checkOp tells what is wrong with the result of an operation that lies within the
// device, of which nobody's is refused or cut short.
func checkOp(op *engine.Op) error {
	want := len(op.Buf)
	if op.Kind == engine.Sync {
		want = 0
	}
	if op.Err != nil || op.N != want {
		return fmt.Errorf("%v of %d bytes at %d: told %d, %v", op.Kind, want, op.Offset, op.N, op.Err)
	}
	return nil
}

// Processes end at any instant, by themselves or killed, with requests of every
// engine in flight: each request ends all the same, nothing stays pinned, and
// the module goes and comes back.
func TestDriverStorm(t *testing.T) {
	d, err := ioctlapi.Open(ioctlapi.DefaultPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	pins := kernelPins(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.SetConfig(config) })
	r := rand.New(rand.NewPCG(seed(t), 0))
	pick := func(n ...int) int { return n[r.IntN(len(n))] }
	var engines []string
	for _, e := range engine.Engines() {
		if e.Access != engine.NeverDirect || e.Name == "mmap" {
			engines = append(engines, e.Name)
		}
	}
	const (
		rounds, limit = 40, 25 * time.Second
		// A guest that is slow goes on until it has these.
		fewRounds, fewKilled, longest = 6, 4, 5 * time.Minute
	)
	begin, killed := time.Now(), 0
	round := 0
	for ; round < rounds && time.Since(begin) < limit || (round < fewRounds || killed < fewKilled) && time.Since(begin) < longest; round++ {
		c := config
		c.Model = ioctlapi.Model(r.IntN(4))
		c.Family = ioctlapi.Family(r.IntN(2))
		c.Completion = ioctlapi.Completion(pick(int(ioctlapi.CompletionAuto), int(ioctlapi.CompletionWorker), int(ioctlapi.CompletionTimer)))
		c.LatencyNS = uint64(pick(0, 100_000, 2_000_000, 30_000_000, 400_000_000))
		c.JitterNS, c.QueueDepth = uint64(pick(0, 1_000_000)), uint32(pick(1, 8, 64))
		c.Bandwidth, c.RepositionNS = uint64(pick(0, 1<<30)), uint64(pick(0, 1_000_000))
		if err := d.SetConfig(c); err != nil {
			t.Fatal(err)
		}
		var running []*helper
		var what string
		for range 1 + r.IntN(3) {
			name, access := engines[r.IntN(len(engines))], "direct"
			if e, err := engine.Lookup(name); err != nil || e.Access != engine.NeedsDirect && r.IntN(4) == 0 {
				access = "copied"
			}
			ops := pick(3, 11, 40, 1_000_000)
			what += fmt.Sprintf(" %s/%s/%d", name, access, ops)
			running = append(running, startHelper(t, "io", nil, name, access, fmt.Sprint(r.Uint64()), fmt.Sprint(ops)))
		}
		for _, h := range running {
			h.line(t) // it begins, or says why not
		}
		time.Sleep(time.Duration(r.IntN(40_000)) * time.Microsecond)
		for _, h := range running {
			_ = h.Process.Signal(unix.SIGKILL) // it may be done
			err := h.Wait()
			status := h.ProcessState.Sys().(syscall.WaitStatus)
			if status.Signaled() && status.Signal() == unix.SIGKILL {
				killed++
			} else if status.ExitStatus() != 0 {
				t.Fatalf("round %d, %v %v:%s: %v", round, c.Model, time.Duration(c.LatencyNS), what, err)
			}
		}
		waitInFlight(t, d, 0)
		s, err := d.Stats()
		if err != nil || s.PagesPinned != s.PagesReleased || s.QuarantinedPages != 0 || s.QuarantinedRequests != 0 {
			t.Fatalf("round %d, %v %v:%s: %+v, %v", round, c.Model, time.Duration(c.LatencyNS), what, s, err)
		}
	}
	t.Logf("%d rounds, %d processes killed, %v", round, killed, time.Since(begin))
	if round < fewRounds || killed < fewKilled {
		t.Errorf("too few: want %d rounds, %d killed", fewRounds, fewKilled)
	}
	if err := d.SetConfig(config); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); kernelPins(t) != pins; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("/proc/vmstat says that %d pages are pinned, it was %d", kernelPins(t), pins)
			break
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if underAudit() {
		return // whose auditor holds the module
	}
	reload(t)
}

// reload unloads the driver, which nobody uses, and loads it again.
func reload(t *testing.T) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	path := os.Getenv("DIO_KO")
	if path == "" {
		path = "/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/updates/dio.ko"
	}
	ko, err := os.Open(path)
	if err != nil {
		t.Fatalf("the module, to load it again: %v (DIO_KO says where it is)", err)
	}
	defer ko.Close()
	// A ring whose process is gone gives its files up a little later.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err = unix.DeleteModule("dio", unix.O_NONBLOCK); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("unload the driver:", err)
		}
	}
	if _, err := os.Stat(ioctlapi.DefaultPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s after the driver went: %v", ioctlapi.DefaultPath, err)
	}
	if err := unix.FinitModule(int(ko.Fd()), "", 0); err != nil {
		t.Fatal("load the driver again:", err)
	}
	d := openDevice(t)
	if s, err := d.Stats(); err != nil || s.Reads != 0 || s.PagesPinned != 0 {
		t.Errorf("after loading it again: %+v, %v", s, err)
	}
}
