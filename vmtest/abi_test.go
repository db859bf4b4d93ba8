// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// The Go structs are what the loaded module was compiled with: every field's
// place and size is compared with the module's BTF.
func TestABIMatchesBTF(t *testing.T) {
	if !kernelAtLeast(t, 5, 11) {
		t.Skip("this kernel has no BTF of its modules: the header's test on the host has to do")
	}
	spec, err := btf.LoadKernelModuleSpec("dio")
	if err != nil {
		t.Fatal(err)
	}
	for name, mirror := range map[string]any{
		"dio_info": ioctlapi.Info{}, "dio_config": ioctlapi.Config{}, "dio_stats": ioctlapi.Stats{},
		"dio_transfer": ioctlapi.Transfer{}, "dio_fault": ioctlapi.Fault{}, "dio_drain": ioctlapi.Drain{}, "dio_inject": ioctlapi.Inject{}, "dio_discard": ioctlapi.Discard{},
		"dio_uring_cmd":       ioctlapi.URingCmd{},
		"dio_buffer_register": ioctlapi.BufferRegister{}, "dio_buffer_unregister": ioctlapi.BufferUnregister{},
	} {
		var c *btf.Struct
		if err := spec.TypeByName(name, &c); err != nil {
			t.Errorf("struct %s: %v", name, err)
			continue
		}
		g := reflect.TypeOf(mirror)
		if uintptr(c.Size) != g.Size() || len(c.Members) != g.NumField() {
			t.Errorf("struct %s: %d bytes in %d fields in the module, %d in %d in Go", name, c.Size, len(c.Members), g.Size(), g.NumField())
			continue
		}
		for i, m := range c.Members {
			size, err := btf.Sizeof(m.Type)
			if err != nil {
				t.Fatalf("struct %s: %s: %v", name, m.Name, err)
			}
			f := g.Field(i)
			if f.Tag.Get("json") != m.Name || f.Offset != uintptr(m.Offset.Bytes()) || f.Type.Size() != uintptr(size) {
				t.Errorf("struct %s: the module has %s at %d of %d bytes, Go has %s at %d of %d", name, m.Name, m.Offset.Bytes(), size,
					f.Tag.Get("json"), f.Offset, f.Type.Size())
			}
		}
	}
}

func openDevice(t *testing.T) *ioctlapi.Device {
	t.Helper()
	d, err := ioctlapi.Open(ioctlapi.DefaultPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// Every call works, and what is set is what is read.
func TestABICalls(t *testing.T) {
	d := openDevice(t)
	info, err := d.Info()
	if err != nil {
		t.Fatal(err)
	}
	end, err := unix.Seek(d.FD(), 0, unix.SEEK_END)
	if info.DriverName() != "dio" || info.ABIVersion != ioctlapi.ABIVersion || info.Capacity != uint64(end) || err != nil ||
		info.PageSize != uint32(os.Getpagesize()) || info.MemAlign == 0 || info.OffsetAlign == 0 {
		t.Errorf("info %+v, the end is at %d, %v", info, end, err)
	}
	if names := info.Features.String(); strings.Contains(names, "bit") {
		t.Errorf("the driver has features that this package has no name for: %s", names)
	}

	before, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	if names := before.Fields.String(); strings.Contains(names, "bit") {
		t.Errorf("the driver has settings that this package has no name for: %s", names)
	}
	t.Cleanup(func() {
		if err := d.SetConfig(before); err != nil {
			t.Error(err)
		}
	})
	// Numbers whose halves differ, so that a swapped or shifted field shows.
	want := before
	want.Model, want.Family, want.Completion = ioctlapi.ModelRAM, ioctlapi.FamilyGet, ioctlapi.CompletionWorker
	want.LatencyNS, want.Capacity, want.StoreLimit, want.MaxRequest = 12_345_678_901, 0x1_2345_6000, 0x765_4000, 0x34_5000
	want.MaxInFlightFile, want.MaxInFlight = 0x123, 0x456
	if err := d.SetConfig(want); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Config(); err != nil || got != want {
		t.Errorf("set %+v\ngot %+v, %v", want, got, err)
	}
	// All or nothing: one bad value, and none is taken.
	bad := before
	bad.Family = 99
	if err := d.SetConfig(bad); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a family that isn't one: %v", err)
	}
	if got, err := d.Config(); err != nil || got != want {
		t.Errorf("after a refused change: %+v, %v", got, err)
	}
	if err := d.SetConfig(before); err != nil {
		t.Fatal(err)
	}

	if _, err := d.ResetStats(); err != nil {
		t.Fatal(err)
	}
	out := []byte("the classic way, at an odd offset")
	in := make([]byte, len(out))
	if n, err := d.WriteAt(out, 12345); n != len(out) || err != nil {
		t.Fatalf("transfer to the device: %d, %v", n, err)
	}
	if n, err := d.ReadAt(in, 12345); n != len(in) || err != nil || string(in) != string(out) {
		t.Fatalf("transfer back: %d, %v, %q", n, err, in)
	}
	s, err := d.Stats()
	if err != nil || s.Reads != 1 || s.Writes != 1 || s.BytesRead != uint64(len(in)) || s.BytesWritten != uint64(len(out)) ||
		s.PagesPinned == 0 || s.PagesPinned != s.PagesReleased || s.PagesDirtied == 0 || s.PagesDirtied >= s.PagesPinned {
		t.Errorf("stats %+v, %v", s, err)
	}

	for _, id := range ioctlapi.Faults() {
		want := ioctlapi.Fault{Fault: id, Every: 1 << 30, Count: 1<<40 + 5}
		if id.Holds() {
			want.HoldMS = 1234
		}
		if err := d.ArmFault(want); impossibleFault(t, id) {
			if !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("%v, which can't be committed on this kernel: %v, want EOPNOTSUPP", id, err)
			}
			continue
		} else if err != nil {
			t.Errorf("%v: %v", id, err)
			continue
		}
		got, err := d.Fault(id)
		if err != nil || got.Fault != id || got.Every != want.Every || got.Count != want.Count || got.Armed != 1 ||
			want.HoldMS != 0 && got.HoldMS != want.HoldMS {
			t.Errorf("%v: armed %+v, got %+v, %v", id, want, got, err)
		}
	}
	if err := d.ClearFault(ioctlapi.FaultNone); err != nil {
		t.Error(err)
	}
	for _, id := range ioctlapi.Faults() {
		if got, err := d.Fault(id); err != nil || got.Armed != 0 {
			t.Errorf("%v after clearing all: %+v, %v", id, got, err)
		}
	}
	if r, err := d.Drain(); err != nil || r.Pages != 0 || r.Requests != 0 {
		t.Errorf("drain with nothing put aside: %+v, %v", r, err)
	}
}

// transferAt moves all of buf at a place far behind what other tests use.
func transferAt(d *ioctlapi.Device, buf []byte, flags uint32) (uint64, error) {
	tr := ioctlapi.Transfer{Addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))), Length: uint64(len(buf)), Offset: 900 << 20, Flags: flags}
	err := d.Transfer(&tr)
	return tr.Done, err
}

// What the ioctls answer to nonsense.
func TestABIErrors(t *testing.T) {
	d := openDevice(t)
	if _, err := d.Fault(ioctlapi.FaultID(99)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a fault that isn't one: %v", err)
	}
	if err := d.ArmFault(ioctlapi.Fault{Fault: ioctlapi.FaultPinLeak}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("every 0: %v", err)
	}
	for name, tr := range map[string]ioctlapi.Transfer{
		"length 0":     {Addr: 4096},
		"huge length":  {Addr: 4096, Length: 1 << 62},
		"offset wraps": {Addr: 4096, Length: 4096, Offset: 1<<64 - 4096 + 1},
		"unknown flag": {Addr: 4096, Length: 4096, Flags: 1 << 31},
	} {
		if err := d.Transfer(&tr); !errors.Is(err, unix.EINVAL) || tr.Done != 0 {
			t.Errorf("%s: %d, %v, want EINVAL", name, tr.Done, err)
		}
	}
	// A page that nobody may touch, and one that nobody may write.
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, 2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	before, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range []uint32{0, ioctlapi.TransferWrite} {
		if n, err := transferAt(d, mem[:page], flags); !errors.Is(err, unix.EFAULT) || n != 0 {
			t.Errorf("flags %d, a buffer that can't be touched: %d, %v, want EFAULT", flags, n, err)
		}
	}
	if err := unix.Mprotect(mem[page:], unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	if n, err := transferAt(d, mem[page:], 0); !errors.Is(err, unix.EFAULT) || n != 0 {
		t.Errorf("a read-only buffer as target of a read: %d, %v, want EFAULT", n, err)
	}
	if n, err := transferAt(d, mem[page:], ioctlapi.TransferWrite); err != nil || n != uint64(page) {
		t.Errorf("a read-only buffer as source of a write: %d, %v", n, err)
	}
	if after, err := d.Stats(); err != nil || after.PagesPinned-after.PagesReleased != before.PagesPinned-before.PagesReleased {
		t.Errorf("pages stayed pinned: before %+v, after %+v, %v", before, after, err)
	}
	null, err := ioctlapi.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := null.Info(); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("/dev/null: %v, want ENOTTY", err)
	}
}

// abiTests are those that a 32-bit program runs, too.
var abiTests = []string{
	"TestABIMatchesBTF", "TestABICalls", "TestABIErrors", "TestDriverIoctlStructs", "TestDriverIoctlValues", "TestDriverOlderStructs",
	"TestDriverAnswerLost", "TestDriverTransferErrors", "TestDriverDiscard", "TestDriverDiscardCounts", "TestDriverCommand",
	"TestDriverCommandErrors", "TestDriverCommandFlush", "TestEnginesInProcess", "TestBufferTransfers", "TestBufferErrors", "TestBufferFork",
}

// The same tests by a 32-bit program: the ABI is the same for it.
func TestABIAs32Bit(t *testing.T) {
	program := os.Getenv("DIO_VMTEST32")
	if program == "" {
		t.Fatal("DIO_VMTEST32 names no 32-bit build of these tests: scripts/guest-test makes one")
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.v", "-test.run", "^("+strings.Join(abiTests, "|")+")$")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "\n--- PASS") + strings.Count(string(out), "\n--- SKIP"); n < len(abiTests) {
		t.Errorf("%d of %d tests ran:\n%s", n, len(abiTests), out)
	}
}
