// SPDX-License-Identifier: GPL-2.0-only

package ioctlapi

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fakeSystem is a System without a kernel.
type fakeSystem struct {
	openErr map[int]error // by access mode
	opened  []int
	closed  []int
	ioctl   func(cmd uint32, arg unsafe.Pointer) error
}

func (f *fakeSystem) Open(_ string, flags int) (int, error) {
	f.opened = append(f.opened, flags)
	if err := f.openErr[flags&unix.O_ACCMODE]; err != nil {
		return -1, err
	}
	return 7, nil
}
func (f *fakeSystem) Close(fd int) error { f.closed = append(f.closed, fd); return nil }
func (f *fakeSystem) Ioctl(fd int, cmd uint32, arg unsafe.Pointer) error {
	if fd != 7 {
		return unix.EBADF
	}
	return f.ioctl(cmd, arg)
}

func openFake(t *testing.T, f *fakeSystem) *Device {
	t.Helper()
	d, err := OpenWith(f, "/dev/dio0")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenFallsBackToReadOnly(t *testing.T) {
	f := &fakeSystem{openErr: map[int]error{unix.O_RDWR: unix.EACCES}}
	d := openFake(t, f)
	if len(f.opened) != 2 || f.opened[1]&unix.O_ACCMODE != unix.O_RDONLY {
		t.Errorf("opened with %v", f.opened)
	}
	if err := d.Close(); err != nil || len(f.closed) != 1 {
		t.Errorf("close: %v, %v", err, f.closed)
	}
	if err := d.Close(); err != nil || len(f.closed) != 1 {
		t.Errorf("a second close: %v, %v", err, f.closed)
	}
}

func TestErrorsNameOperationAndDevice(t *testing.T) {
	f := &fakeSystem{openErr: map[int]error{unix.O_RDWR: unix.ENOENT}}
	_, err := OpenWith(f, "/dev/dio0")
	if !errors.Is(err, os.ErrNotExist) || !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "/dev/dio0: open") {
		t.Errorf("open: %v", err)
	}

	d := openFake(t, &fakeSystem{ioctl: func(uint32, unsafe.Pointer) error { return unix.EPERM }})
	calls := map[string]func() error{
		"read the device's description": func() error { _, err := d.Info(); return err },
		"read the configuration":        func() error { _, err := d.Config(); return err },
		"set the configuration":         func() error { return d.SetConfig(Config{}) },
		"read the statistics":           func() error { _, err := d.Stats(); return err },
		"reset the statistics":          func() error { _, err := d.ResetStats(); return err },
		"transfer from the device":      func() error { _, err := d.ReadAt(make([]byte, 1), 0); return err },
		"transfer to the device":        func() error { _, err := d.WriteAt(make([]byte, 1), 0); return err },
		"arm fault pin-leak":            func() error { return d.ArmFault(Fault{Fault: FaultPinLeak}) },
		"read fault sync-as-async":      func() error { _, err := d.Fault(FaultSyncAsAsync); return err },
		"clear all faults":              func() error { return d.ClearFault(FaultNone) },
		"drain the quarantine":          func() error { _, err := d.Drain(); return err },
		"register a buffer":             func() error { _, err := d.RegisterBuffer(make([]byte, 1), true); return err },
		"unregister a buffer":           func() error { return d.UnregisterBuffer(1) },
	}
	for op, call := range calls {
		err := call()
		var e *Error
		if !errors.As(err, &e) || e.Op != op || e.Path != "/dev/dio0" || !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: got %v", op, err)
		}
	}
}

func TestCallsFillTheirStructs(t *testing.T) {
	var cmd uint32
	f := &fakeSystem{}
	d := openFake(t, f)

	f.ioctl = func(c uint32, arg unsafe.Pointer) error {
		cmd = c
		i := (*Info)(arg)
		if i.Size != 56 {
			t.Errorf("info: size %d", i.Size)
		}
		copy(i.Driver[:], "dio")
		i.Features = FeaturePin | FeatureCancel | 1<<40
		return nil
	}
	i, err := d.Info()
	if err != nil || cmd != cmdInfo || i.DriverName() != "dio" || i.Features.String() != "pin cancel bit40" {
		t.Errorf("info: %+v, %v, %#x", i, err, cmd)
	}

	f.ioctl = func(c uint32, arg unsafe.Pointer) error {
		cmd = c
		if s := (*Stats)(arg); s.Size != 288 || s.Flags != statsReset {
			t.Errorf("reset: size %d, flags %#x", s.Size, s.Flags)
		}
		return nil
	}
	if _, err := d.ResetStats(); err != nil || cmd != cmdStats {
		t.Errorf("reset: %v, %#x", err, cmd)
	}

	f.ioctl = func(c uint32, arg unsafe.Pointer) error {
		cmd = c
		cf := (*Config)(arg)
		if cf.Size != 112 || cf.Fields != ConfigLatency || cf.LatencyNS != 5 {
			t.Errorf("set: %+v", cf)
		}
		return nil
	}
	if err := d.SetConfig(Config{Fields: ConfigLatency, LatencyNS: 5}); err != nil || cmd != cmdSetConfig {
		t.Errorf("set: %v, %#x", err, cmd)
	}

	buf := []byte{1, 2, 3}
	f.ioctl = func(c uint32, arg unsafe.Pointer) error {
		cmd = c
		tr := (*Transfer)(arg)
		if tr.Size != 48 || tr.Flags != TransferWrite || tr.Length != 3 || tr.Offset != 99 ||
			tr.Addr != uint64(uintptr(unsafe.Pointer(&buf[0]))) {
			t.Errorf("transfer: %+v", tr)
		}
		tr.Done = 2
		return nil
	}
	if n, err := d.WriteAt(buf, 99); n != 2 || err != nil || cmd != cmdTransfer {
		t.Errorf("transfer: %d, %v, %#x", n, err, cmd)
	}

	f.ioctl = func(c uint32, arg unsafe.Pointer) error {
		cmd = c
		r := (*BufferRegister)(arg)
		if r.Size != 32 || r.Flags != BufferWritable || r.Length != 3 || r.Addr != uint64(uintptr(unsafe.Pointer(&buf[0]))) {
			t.Errorf("register: %+v", r)
		}
		r.ID = 77
		return nil
	}
	if id, err := d.RegisterBuffer(buf, true); id != 77 || err != nil || cmd != cmdBufferRegister {
		t.Errorf("register: %d, %v, %#x", id, err, cmd)
	}
	f.ioctl = func(c uint32, arg unsafe.Pointer) error {
		cmd = c
		if r := (*BufferUnregister)(arg); r.Size != 16 || r.Flags != 0 || r.ID != 77 {
			t.Errorf("unregister: %+v", r)
		}
		return nil
	}
	if err := d.UnregisterBuffer(77); err != nil || cmd != cmdBufferUnregister {
		t.Errorf("unregister: %v, %#x", err, cmd)
	}
}

func TestEnumsParseWhatTheyPrint(t *testing.T) {
	for _, id := range Faults() {
		if got, err := ParseFault(id.String()); err != nil || got != id {
			t.Errorf("fault %v: %v, %v", id, got, err)
		}
	}
	if len(Faults()) != len(faultNames)-1 {
		t.Errorf("%d faults, %d names", len(Faults()), len(faultNames)-1)
	}
	for _, c := range []Completion{CompletionAuto, CompletionInline, CompletionWorker, CompletionTimer} {
		if got, err := ParseCompletion(c.String()); err != nil || got != c {
			t.Errorf("completion %v: %v, %v", c, got, err)
		}
	}
	for _, m := range []Model{ModelRAM, ModelNull} {
		if got, err := ParseModel(m.String()); err != nil || got != m {
			t.Errorf("model %v: %v, %v", m, got, err)
		}
	}
	for _, m := range []Family{FamilyPin, FamilyGet} {
		if got, err := ParseFamily(m.String()); err != nil || got != m {
			t.Errorf("family %v: %v, %v", m, got, err)
		}
	}
	for _, bad := range []string{"none", "", "Pin-Leak"} {
		if _, err := ParseFault(bad); err == nil {
			t.Errorf("ParseFault(%q) took it", bad)
		}
	}
	if _, err := ParseFamily("hold"); err == nil || !strings.Contains(err.Error(), "pin, get") {
		t.Errorf("ParseFamily: %v", err)
	}
	if s := Model(9).String(); s != "model(9)" {
		t.Errorf("an unknown model prints %q", s)
	}
}
