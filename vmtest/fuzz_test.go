// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// A fuzzer makes one random call at a time. What each may be told, and what
// must not have changed, it judges itself; that the kernel stays silent, that
// the device still works and holds nothing, is judged for all of them.
type fuzzer struct {
	name, path string
	// make gives the calls of one thread, and what ends them; an error is a finding.
	make func(f *fuzzThread) (call, end func() error)
	// told are outcomes of which a run without any hasn't tried much.
	told []error
	// limit bounds the run.
	limit time.Duration
	// commits: old and new faults are committed in it.
	commits bool
	// commands: those of io_uring are among its calls.
	commands bool
}

// fuzzers are all that there are.
var fuzzers = []fuzzer{
	{"ioctl", ioctlapi.DefaultPath, fuzzIoctl, []error{nil, unix.EINVAL, unix.EFAULT, unix.E2BIG, unix.ENOTTY, unix.EPERM, unix.EBADF, unix.ENOSPC, unix.ENOENT, unix.EACCES}, fuzzTime, true, false},
	// Most of its time is the hardware's.
	{"ioctl of hardware", eduPath, fuzzIoctl, []error{nil, unix.EINVAL, unix.EFAULT, unix.E2BIG, unix.ENOTTY, unix.EPERM, unix.ENOSPC, unix.ENOENT, unix.EOPNOTSUPP},
		fuzzTime / 3, false, false},
	{"rw", ioctlapi.DefaultPath, fuzzRW, []error{nil, unix.EINVAL, unix.EFAULT, unix.ENOSPC, unix.EBADF, unix.EAGAIN, unix.EOPNOTSUPP}, fuzzTime, false, false},
	{"io_uring", ioctlapi.DefaultPath, fuzzUring, []error{nil, unix.EINVAL, unix.EFAULT, unix.ENOSPC, unix.EBADF, unix.ECANCELED}, fuzzTime, false, true},
}

// Bounds of a run; DIO_FUZZ_TIME makes it longer, and then it isn't counted.
const (
	fuzzCalls   = 20_000
	fuzzTime    = 15 * time.Second
	fuzzThreads = 3 // two of root's, one of nobody's
)

// fuzzThread is what a thread of a fuzzer works with.
type fuzzThread struct {
	*rand.Rand
	root  bool
	files []int // the device: read and write, O_DIRECT, read only, write only
	mem   *fuzzMemory
	told  map[error]int
	// commands are the answers of io_uring's commands, which told leaves out.
	commands map[fuzzAnswer]int
	// readsRingLate: io_uring reads entries in the ring after it was handed them.
	readsRingLate bool
	// hardware: the device is of another kind, and small.
	hardware bool
	// faults are those to arm: what this kernel survives or refuses, none, and
	// one that isn't.
	faults []ioctlapi.FaultID
	// resets of the counters hold this, who may count the others for reading.
	resets *sync.RWMutex
	// drains: io_uring finds the end of what a drained entry waits for.
	drains bool
}

// pick chooses one of some.
func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// number is a number that somebody may have forgotten.
func (f *fuzzThread) number() uint64 {
	if f.IntN(4) == 0 {
		return f.Uint64() >> f.IntN(64)
	}
	n := pick(f.Rand, 0, 1, 2, 3, 7, 8, 511, 512, 4095, 4096, 8192, 1<<16, 1<<20, 1<<30, 1<<31-1, 1<<31, 1<<32-1, 1<<32, 1<<40, 1<<62, 1<<63-1, 1<<63,
		^uint64(0), ^uint64(4095), ^uint64(511))
	if f.IntN(4) == 0 {
		n += uint64(f.IntN(3)) - 1
	}
	return n
}

// place is a position near where something happens on the device.
func (f *fuzzThread) place() uint64 {
	if f.hardware && f.IntN(4) != 0 {
		return 512 * uint64(f.IntN(eduSize/512+1))
	}
	switch f.IntN(8) {
	case 0:
		return f.number()
	case 1:
		return 1<<30 - 4096 + uint64(f.IntN(16))*512
	default:
		return scratch + 512*uint64(f.IntN(4096)) + uint64(f.IntN(8)/7)
	}
}

// remodel makes the device another now and then, as far as this thread may.
func (f *fuzzThread) remodel() error {
	if !f.root || f.IntN(200) != 0 {
		return nil
	}
	return ioctlapi.FromFD(ioctlapi.Linux{}, f.files[0], ioctlapi.DefaultPath).SetConfig(ioctlapi.Config{
		Fields: ioctlapi.ConfigModel | ioctlapi.ConfigFamily | ioctlapi.ConfigCompletion | ioctlapi.ConfigLatency,
		Model:  ioctlapi.Model(f.IntN(4)), Family: ioctlapi.Family(f.IntN(2)),
		Completion: pick(f.Rand, ioctlapi.CompletionAuto, ioctlapi.CompletionWorker, ioctlapi.CompletionTimer),
		LatencyNS:  pick[uint64](f.Rand, 0, 0, 300_000)})
}

// dropPrivileges makes the thread nobody's, for ever.
func dropPrivileges() error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
		return fmt.Errorf("setresuid: %w", e)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

// TestFuzz calls the device in every way that makes no sense, and some that do.
func TestFuzz(t *testing.T) {
	for i, f := range fuzzers {
		t.Run(f.name, func(t *testing.T) { runFuzzer(t, f, uint64(i)) })
	}
}

func runFuzzer(t *testing.T, z fuzzer, number uint64) {
	s := seed(t)
	hardware := z.path == eduPath
	d := openDevice(t)
	if hardware {
		d = edu(t, z.path)
	}
	before := fuzzState(t, d)
	t.Cleanup(func() { d.SetConfig(before.config) })
	mem := newFuzzMemory(t)
	var files []int
	for _, mode := range []int{unix.O_RDWR, unix.O_RDWR | unix.O_DIRECT, unix.O_RDONLY, unix.O_WRONLY | unix.O_DIRECT} {
		fd, err := unix.Open(z.path, mode|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		files = append(files, fd)
	}

	faults := []ioctlapi.FaultID{ioctlapi.FaultNone, ioctlapi.FaultID(len(ioctlapi.Faults()) + 1)}
	for _, id := range ioctlapi.Faults() {
		if id != ioctlapi.FaultUseAfterComplete || !checked(t) {
			faults = append(faults, id)
		}
	}
	calls, limit := fuzzCalls/fuzzThreads, z.limit
	if v, err := time.ParseDuration(os.Getenv("DIO_FUZZ_TIME")); err == nil {
		calls, limit = 1<<31-1, v
	}
	deadline := time.Now().Add(limit)
	told, commands := map[error]int{}, map[fuzzAnswer]int{}
	var lock sync.Mutex
	var resets sync.RWMutex
	var threads, helpers sync.WaitGroup
	over := make(chan struct{})
	for i := range fuzzThreads {
		threads.Go(func() {
			runtime.LockOSThread() // and never unlock: it may not be root's any more
			f := &fuzzThread{Rand: rand.New(rand.NewPCG(s, number<<8|uint64(i))), root: i != fuzzThreads-1, files: files, mem: mem, hardware: hardware, faults: faults, resets: &resets, told: map[error]int{}, commands: map[fuzzAnswer]int{}, readsRingLate: readsRingLate(t), drains: drainsWell(t)}
			if !f.root {
				if err := dropPrivileges(); err != nil {
					t.Error(err)
					return
				}
			}
			call, end := z.make(f)
			for n := 0; n < calls && time.Now().Before(deadline) && !t.Failed(); n++ {
				if err := call(); err != nil {
					t.Errorf("thread %d, call %d: %v", i, n, err)
				}
			}
			if err := end(); err != nil {
				t.Errorf("thread %d, at its end: %v", i, err)
			}
			lock.Lock()
			defer lock.Unlock()
			for err, n := range f.told {
				told[err] += n
			}
			for a, n := range f.commands {
				commands[a] += n
			}
		})
	}
	helpers.Go(func() {
		for r := rand.New(rand.NewPCG(s, 99)); ; {
			select {
			case <-over:
				return
			case <-time.After(time.Duration(r.IntN(2000)) * time.Microsecond):
				if err := mem.disturb(r); err != nil {
					t.Error("disturb the memory:", err)
					return
				}
			}
		}
	})
	threads.Wait()
	close(over)
	helpers.Wait()

	sum := 0
	for _, n := range told {
		sum += n
	}
	t.Logf("%d calls, %v", sum, told)
	for _, want := range z.told {
		if told[want] == 0 {
			t.Errorf("no call was told %v: that part wasn't tried (%v)", want, slices.Collect(maps.Keys(told)))
		}
	}
	if z.commits {
		checkCommitted(t, d)
	}
	if z.commands && hasCommands(t, d) {
		checkCommands(t, commands)
	}
	for _, fd := range files {
		for id := range uint32(ioctlapi.BuffersMax) {
			if err := rawIoctl(fd, nrBufferUnregister, poke(sized(16), 8, id+1)); err != nil && err != unix.ENOENT {
				t.Errorf("unregister a buffer: %v", err)
			}
		}
	}
	before.check(t, d)
	complaints, err := kernelComplaints()
	if err != nil {
		t.Error(err)
	}
	for _, line := range complaints {
		t.Error("the kernel complained:", line)
	}
}

// checkCommitted tells which faults were committed; the old and the new are among them.
func checkCommitted(t *testing.T, d *ioctlapi.Device) {
	t.Helper()
	counts, old, young := map[ioctlapi.FaultID]uint64{}, uint64(0), uint64(0)
	for _, id := range ioctlapi.Faults() {
		f, err := d.Fault(id)
		if err != nil {
			t.Fatal(err)
		}
		if f.Committed > 0 {
			counts[id] = f.Committed
		}
		if id < ioctlapi.FaultDirtyLate {
			old += f.Committed
		} else {
			young += f.Committed
		}
	}
	t.Logf("faults committed since the device is there: %v", counts)
	if old == 0 || young == 0 {
		t.Error("there were hardly any: that part wasn't tried")
	}
}

// fuzzBefore is what has to be there again after fuzzing.
type fuzzBefore struct {
	config ioctlapi.Config
	pins   int64
	over   uint64 // pages unpinned once too often, on purpose
}

func fuzzState(t *testing.T, d *ioctlapi.Device) fuzzBefore {
	t.Helper()
	c, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Fault(ioctlapi.FaultOverUnpin)
	if err != nil {
		t.Fatal(err)
	}
	return fuzzBefore{c, kernelPins(t), f.Committed}
}

// check puts the device back, and finds it empty and at work.
func (b fuzzBefore) check(t *testing.T, d *ioctlapi.Device) {
	t.Helper()
	if err := errors.Join(d.ClearFault(ioctlapi.FaultNone), d.ClearInject(ioctlapi.InjectNone), d.SetConfig(b.config)); err != nil {
		t.Fatal("put the device back:", err)
	}
	waitInFlight(t, d, 0)
	s, err := d.Stats()
	if err != nil || s.PagesPinned != s.PagesReleased || s.QuarantinedPages != 0 || s.QuarantinedRequests != 0 {
		t.Errorf("after it all: %+v, %v", s, err)
	}
	f, err := d.Fault(ioctlapi.FaultOverUnpin)
	if err != nil {
		t.Fatal(err)
	}
	want := b.pins - int64(f.Committed-b.over)
	for deadline := time.Now().Add(5 * time.Second); kernelPins(t) != want; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("/proc/vmstat says that %d pages are pinned, want %d", kernelPins(t), want)
			break
		}
	}
	out, in, pos := fill(anonymous(t, 16), byte(s.Reads)), anonymous(t, 16), int64(scratch)
	if d.Path() != ioctlapi.DefaultPath {
		out, in, pos = out[:eduSize], in[:eduSize], 0
	}
	for _, access := range []int{0, unix.O_DIRECT} {
		fd := eduRaw(t, d.Path(), access)
		clear(in)
		if n, err := unix.Pwrite(fd, out, pos); n != len(out) || err != nil {
			t.Errorf("access %#x: write: %d, %v", access, n, err)
		}
		if n, err := unix.Pread(fd, in, pos); n != len(in) || err != nil || !bytes.Equal(in, out) {
			t.Errorf("access %#x: read: %d, %v, equal: %v", access, n, err, bytes.Equal(in, out))
		}
	}
}
