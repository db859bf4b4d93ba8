// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// removable is a device that can be taken away and brought back.
type removable struct {
	path     string
	hardware bool
	remove   func(t *testing.T)
	comeBack func(t *testing.T)
	first    ioctlapi.Config // what it's configured as when it is new
}

func removables(t *testing.T) []removable {
	t.Helper()
	const allFields = 1<<15 - 1
	var memory unix.Sysinfo_t
	if err := unix.Sysinfo(&memory); err != nil {
		t.Fatal(err)
	}
	page := uint64(os.Getpagesize())
	quarter := (uint64(memory.Totalram)*uint64(memory.Unit)/4 + page - 1) / page * page
	ram := ioctlapi.Config{
		Fields: allFields, Model: ioctlapi.ModelRAM, Family: ioctlapi.FamilyPin, Completion: ioctlapi.CompletionAuto,
		Capacity: 1 << 30, StoreLimit: min(1<<30, quarter), MaxRequest: 64 << 20, MaxInFlightFile: 65536, MaxInFlight: 131072,
		Bandwidth: 100_000_000, RepositionNS: 50_000_000, QueueDepth: 32,
	}
	hardware := ram
	hardware.Model, hardware.Completion = ioctlapi.ModelEdu, ioctlapi.CompletionWorker
	hardware.Capacity, hardware.StoreLimit = eduSize, eduSize
	edu(t, eduPath).Close()
	_, name := eduFunction(t, eduPath)
	return []removable{
		{ioctlapi.DefaultPath, false, unbind, func(t *testing.T) { rebind(t).Close() }, ram},
		{eduPath, true, func(t *testing.T) { eduWrite(t, eduFolder+"unbind", name) }, func(t *testing.T) { eduBind(t, name, eduPath) }, hardware},
	}
}

// Every command and path on files of a device that was removed: what needs the
// device is ENODEV, what was refused before it is asked is refused as before, and
// what needs none works. The one that is bound next is new in every respect.
func TestRemovedCalls(t *testing.T) {
	for _, r := range removables(t) {
		t.Run(r.path, func(t *testing.T) { removedCalls(t, r) })
	}
}

func removedCalls(t *testing.T, r removable) {
	d, err := ioctlapi.Open(r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	noPins(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	g := newGoneFiles(t, r, d)

	// As unlike a new device as it can be.
	other := config
	other.Family, other.MaxRequest, other.MaxInFlightFile, other.MaxInFlight = ioctlapi.FamilyGet, 1<<20, 77, 777
	if !r.hardware {
		other.Model, other.Completion, other.LatencyNS, other.Capacity = ioctlapi.ModelTape, ioctlapi.CompletionTimer, 1000, 1<<30+1<<20
		other.StoreLimit, other.Bandwidth, other.JitterNS, other.RepositionNS = 32<<20, 1<<30, 7, 8
		other.Seed, other.Distribution, other.QueueDepth = 9, ioctlapi.DistributionExponential, 10
	}
	fault := ioctlapi.Fault{Fault: ioctlapi.FaultDirtyMissing, Every: 1 << 30}
	rule := ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1 << 30}
	if err := errors.Join(d.SetConfig(other), d.ArmFault(fault), d.Inject(rule)); err != nil {
		t.Fatal(err)
	}
	// The counters are the device's since it was bound, by whatever test.
	if _, err := d.ResetStats(); err != nil {
		t.Fatal(err)
	}
	pwrite(t, g.direct, g.mem, 0)
	pread(t, g.direct, g.mem, 0)
	g.register(t)
	info, err := d.Info()
	if err != nil {
		t.Fatal(err)
	}

	r.remove(t)
	back := false
	defer func() {
		if !back {
			r.comeBack(t)
		}
	}()
	before, err := d.Stats()
	if err != nil || before.Reads != 1 || before.Writes != 1 || before.Buffers != 0 {
		t.Errorf("%+v, %v, want a read, a write, and no registered buffer left", before, err)
	}
	for _, calls := range [][]goneCall{g.ioctls(), g.moving(), g.others(info.Capacity), g.asynchronous()} {
		for _, c := range calls {
			c.check(t)
		}
	}
	if kernelAtLeast(t, 6, 1) {
		for _, c := range g.commands() {
			c.check(t)
		}
	}
	unprivileged(t, func() {
		for _, c := range []goneCall{
			{"SET_CONFIG by nobody", 0, unix.ENODEV, g.ioctl(nrSetConfig, sized(112))},
			{"FAULT_ARM by nobody", 0, unix.ENODEV, g.ioctl(nrFaultArm, sized(48))},
			{"DRAIN by nobody", 0, unix.ENODEV, g.ioctl(nrDrain, sized(24))},
			{"STATS by nobody", 0, nil, g.ioctl(nrStats, sized(288))},
			{"STATS with RESET by nobody", 0, unix.EPERM, g.ioctl(nrStats, poke(sized(288), 4, 1))},
		} {
			c.check(t)
		}
	})

	if after, err := d.Info(); err != nil || after != info {
		t.Errorf("info: %+v, it was %+v, %v", after, info, err)
	}
	// None of all that is counted: it never began.
	if after, err := d.Stats(); err != nil || after != before {
		t.Errorf("stats: %+v, they were %+v, %v", after, before, err)
	}
	if s, err := d.ResetStats(); err != nil || s.Reads != 1 || s.Writes != 1 {
		t.Errorf("reset: %+v, %v", s, err)
	}
	if s, err := d.Stats(); err != nil || s.Reads != 0 || s.Writes != 0 || s.PagesPinned != 0 {
		t.Errorf("after the reset: %+v, %v", s, err)
	}
	g.close(t)

	r.comeBack(t)
	back = true
	checkNew(t, r)
	fresh, err := ioctlapi.Open(r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if err := fresh.SetConfig(config); err != nil {
		t.Error(err)
	}
	if _, err := d.Config(); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the old file, with a new device: %v, want ENODEV", err)
	}
}

// checkNew looks at a device that nobody has set anything of.
func checkNew(t *testing.T, r removable) {
	t.Helper()
	d, err := ioctlapi.Open(r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	want := r.first
	got, err := d.Config()
	if want.Size = got.Size; err != nil || got != want {
		t.Errorf("a new device is configured as\n%+v, %v, want\n%+v", got, err, want)
	}
	s, err := d.Stats()
	if want := (ioctlapi.Stats{Size: s.Size}); err != nil || s != want {
		t.Errorf("a new device has counted %+v, %v", s, err)
	}
	for _, id := range ioctlapi.Faults() {
		if f, err := d.Fault(id); err != nil || f.Armed != 0 || f.Every != 0 || f.Committed != 0 {
			t.Errorf("a new device has %+v, %v", f, err)
		}
	}
	for _, a := range ioctlapi.InjectActions() {
		if i, err := d.Injection(a); err != nil || i.Armed != 0 || i.Every != 0 || i.Injected != 0 {
			t.Errorf("a new device has %+v, %v", i, err)
		}
	}
}
