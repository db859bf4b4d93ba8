// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// The commands of uapi/dio.h as a caller that isn't ioctlapi writes them.
const (
	nrInfo, nrGetConfig, nrSetConfig, nrStats, nrTransfer = 0x00, 0x01, 0x02, 0x03, 0x04
	nrFaultArm, nrFaultGet, nrFaultClear, nrDrain         = 0x10, 0x11, 0x12, 0x13
	nrInject, nrInjectGet, nrInjectClear                  = 0x20, 0x21, 0x22
	nrDiscard, nrBufferRegister, nrBufferUnregister       = 0x05, 0x06, 0x07
)

// rawIoctl sends buf, whose first four bytes are its size, as command nr.
func rawIoctl(fd int, nr uint32, buf []byte) error {
	return rawCommand(fd, 3<<30|uint32(len(buf))<<16|0xD1<<8|nr, unsafe.Pointer(unsafe.SliceData(buf)))
}

func rawCommand(fd int, cmd uint32, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// sized is a zeroed struct of n bytes that begins with its size.
func sized(n int) []byte {
	b := make([]byte, n)
	binary.LittleEndian.PutUint32(b, uint32(n))
	return b
}

// poke returns b with v at offset at.
func poke(b []byte, at int, v uint32) []byte {
	binary.LittleEndian.PutUint32(b[at:], v)
	return b
}

// setConfig changes the driver's configuration for one test.
func setConfig(t *testing.T, d *ioctlapi.Device, change func(*ioctlapi.Config)) {
	t.Helper()
	before, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	c := before
	change(&c)
	if err := d.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.SetConfig(before); err != nil {
			t.Error("restore the configuration:", err)
		}
	})
}

// unprivileged runs f on a thread that has no capability, and ends with it.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal("drop the capabilities:", err)
	}
}

// What every ioctl promises of its struct's size, its reserved fields, its flags.
func TestDriverIoctlStructs(t *testing.T) {
	d := openDevice(t)
	fd := d.FD()
	sizes := map[string]struct {
		nr        uint32
		size, min int // today's, and the first version's
	}{
		"info": {nrInfo, 56, 56}, "get config": {nrGetConfig, 112, 72}, "set config": {nrSetConfig, 112, 72}, "stats": {nrStats, 288, 160},
		"transfer": {nrTransfer, 48, 40}, "fault get": {nrFaultGet, 48, 48}, "fault arm": {nrFaultArm, 48, 48},
		"fault clear": {nrFaultClear, 48, 48}, "drain": {nrDrain, 24, 24},
		"inject": {nrInject, 80, 80}, "inject get": {nrInjectGet, 80, 80}, "inject clear": {nrInjectClear, 80, 80},
		"discard": {nrDiscard, 40, 40}, "buffer register": {nrBufferRegister, 32, 32}, "buffer unregister": {nrBufferUnregister, 16, 16},
	}
	page := os.Getpagesize()
	for name, c := range sizes {
		t.Run(name, func(t *testing.T) {
			check := func(what string, err, want error) {
				t.Helper()
				if !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", what, err, want)
				}
			}
			check("too short", rawIoctl(fd, c.nr, sized(c.min-4)), unix.EINVAL)
			check("size 0", rawIoctl(fd, c.nr, make([]byte, c.size)), unix.EINVAL)
			check("size unlike the command's", rawIoctl(fd, c.nr, poke(sized(c.size), 0, uint32(c.size+8))), unix.EINVAL)
			check("larger than a page", rawIoctl(fd, c.nr, sized(page+8)), unix.E2BIG)
			future := sized(c.size + 8)
			future[c.size+3] = 1
			check("unknown bytes set", rawIoctl(fd, c.nr, future), unix.E2BIG)
			check("no struct", rawCommand(fd, 3<<30|uint32(c.size)<<16|0xD1<<8|c.nr, nil), unix.EFAULT)
			mem, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Munmap(mem)
			if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
				t.Fatal(err)
			}
			cut := mem[page-8:]
			binary.LittleEndian.PutUint32(cut, uint32(c.size))
			check("half of the struct", rawCommand(fd, 3<<30|uint32(c.size)<<16|0xD1<<8|c.nr, unsafe.Pointer(&cut[0])), unix.EFAULT)
			for _, dir := range []uint32{0, 1, 2} {
				check("another direction", rawCommand(fd, dir<<30|uint32(c.size)<<16|0xD1<<8|c.nr, unsafe.Pointer(&mem[0])), unix.ENOTTY)
			}
			check("another magic", rawCommand(fd, 3<<30|uint32(c.size)<<16|0xD0<<8|c.nr, unsafe.Pointer(&mem[0])), unix.ENOTTY)
		})
	}
	for _, nr := range []uint32{0x08, 0x0f, 0x14, 0xff} {
		if err := rawIoctl(fd, nr, sized(64)); !errors.Is(err, unix.ENOTTY) {
			t.Errorf("command %#x: %v, want ENOTTY", nr, err)
		}
	}
	// An older caller: its shorter struct is served, and not a byte past it.
	older := append(sized(72), bytes.Repeat([]byte{0xA5}, 40)...)
	if err := rawIoctl(fd, nrGetConfig, older[:72]); err != nil || !bytes.Equal(older[72:], bytes.Repeat([]byte{0xA5}, 40)) ||
		binary.LittleEndian.Uint64(older[8:])&1 == 0 {
		t.Errorf("an older struct: %v, % x", err, older)
	}
	// A newer caller: what this driver doesn't know comes back zero, the rest is served.
	newer := sized(56 + 64)
	if err := rawIoctl(fd, nrInfo, newer); err != nil || binary.LittleEndian.Uint32(newer[4:]) != 1 ||
		!bytes.Equal(newer[56:], make([]byte, 64)) || binary.LittleEndian.Uint32(newer) != 56+64 {
		t.Errorf("a newer struct: %v, % x", err, newer)
	}
}

// Values out of range, one at a time: EINVAL, and nothing changes.
func TestDriverIoctlValues(t *testing.T) {
	d := openDevice(t)
	before, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	page := uint64(os.Getpagesize())
	for name, change := range map[string]func(*ioctlapi.Config){
		"flags":               func(c *ioctlapi.Config) { c.Flags = 1 },
		"reserved":            func(c *ioctlapi.Config) { c.Reserved = 1 },
		"unknown field":       func(c *ioctlapi.Config) { c.Fields |= 1 << 63 },
		"model":               func(c *ioctlapi.Config) { c.Model = 4 },
		"family":              func(c *ioctlapi.Config) { c.Family = 2 },
		"completion":          func(c *ioctlapi.Config) { c.Completion = 4 },
		"latency":             func(c *ioctlapi.Config) { c.LatencyNS = 60_000_000_001 },
		"latency inline":      func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = 1, ioctlapi.CompletionInline },
		"capacity 0":          func(c *ioctlapi.Config) { c.Capacity = 0 },
		"capacity no page":    func(c *ioctlapi.Config) { c.Capacity = page + 512 },
		"capacity huge":       func(c *ioctlapi.Config) { c.Capacity = 1<<40 + page },
		"store limit 0":       func(c *ioctlapi.Config) { c.StoreLimit = 0 },
		"store limit no page": func(c *ioctlapi.Config) { c.StoreLimit = 1<<64 - 1 },
		"request 0":           func(c *ioctlapi.Config) { c.MaxRequest = 0 },
		"request huge":        func(c *ioctlapi.Config) { c.MaxRequest = 1<<30 + page },
		"request no page":     func(c *ioctlapi.Config) { c.MaxRequest = page - 1 },
		"disk inline": func(c *ioctlapi.Config) {
			c.Model, c.Completion = ioctlapi.ModelDisk, ioctlapi.CompletionInline
		},
		"bandwidth low":          func(c *ioctlapi.Config) { c.Bandwidth = 1<<16 - 1 },
		"bandwidth high":         func(c *ioctlapi.Config) { c.Bandwidth = 1<<50 + 1 },
		"jitter":                 func(c *ioctlapi.Config) { c.JitterNS = 60_000_000_001 },
		"reposition":             func(c *ioctlapi.Config) { c.RepositionNS = 60_000_000_001 },
		"distribution":           func(c *ioctlapi.Config) { c.Distribution = 2 },
		"queue depth 0":          func(c *ioctlapi.Config) { c.QueueDepth = 0 },
		"queue depth huge":       func(c *ioctlapi.Config) { c.QueueDepth = 1025 },
		"in flight 0":            func(c *ioctlapi.Config) { c.MaxInFlight = 0 },
		"in flight huge":         func(c *ioctlapi.Config) { c.MaxInFlight = 1<<20 + 1 },
		"in flight of file 0":    func(c *ioctlapi.Config) { c.MaxInFlightFile = 0 },
		"in flight of file huge": func(c *ioctlapi.Config) { c.MaxInFlightFile = 1<<20 + 1 },
	} {
		c := before
		change(&c)
		if err := d.SetConfig(c); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", name, err)
		}
	}
	if got, err := d.Config(); err != nil || got != before {
		t.Errorf("refused changes left %+v, %v; it was %+v", got, err, before)
	}
	for name, f := range map[string]ioctlapi.Fault{
		"none": {Every: 1}, "unknown": {Fault: 24, Every: 1}, "every 0": {Fault: 1}, "flags": {Fault: 1, Every: 1, Flags: 1},
		"hold": {Fault: 7, Every: 1, HoldMS: 600_001}, "hold of another": {Fault: 1, Every: 1, HoldMS: 1}, "long hold of a pin": {Fault: 20, Every: 1, HoldMS: 600_001},
	} {
		if err := d.ArmFault(f); !errors.Is(err, unix.EINVAL) {
			t.Errorf("arm %s: %v, want EINVAL", name, err)
		}
	}
	good := ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1}
	for name, change := range map[string]func(*ioctlapi.Inject){
		"action none":      func(i *ioctlapi.Inject) { i.Action = 0 },
		"action unknown":   func(i *ioctlapi.Inject) { i.Action = 5 },
		"every 0":          func(i *ioctlapi.Inject) { i.Every = 0 },
		"flags":            func(i *ioctlapi.Inject) { i.Flags = 4 },
		"reserved":         func(i *ioctlapi.Inject) { i.Reserved = 1 },
		"range":            func(i *ioctlapi.Inject) { i.Offset, i.Length = 2, 1<<64-1 },
		"delay of an EIO":  func(i *ioctlapi.Inject) { i.DelayNS = 1 },
		"delay of 0":       func(i *ioctlapi.Inject) { i.Action = ioctlapi.InjectDelay },
		"delay too long":   func(i *ioctlapi.Inject) { i.Action, i.DelayNS = ioctlapi.InjectDelay, 60_000_000_001 },
		"delay of a SHORT": func(i *ioctlapi.Inject) { i.Action, i.DelayNS = ioctlapi.InjectShort, 1 },
		"held too long":    func(i *ioctlapi.Inject) { i.Action, i.DelayNS = ioctlapi.InjectReorder, 60_000_000_001 },
	} {
		i := good
		change(&i)
		if err := d.Inject(i); !errors.Is(err, unix.EINVAL) {
			t.Errorf("inject %s: %v, want EINVAL", name, err)
		}
	}
	for name, err := range map[string]error{
		"get config flags":      rawIoctl(d.FD(), nrGetConfig, poke(sized(112), 4, 1)),
		"get config reserved":   rawIoctl(d.FD(), nrGetConfig, poke(sized(112), 28, 1)),
		"discard length 0":      rawIoctl(d.FD(), nrDiscard, sized(40)),
		"discard flags":         rawIoctl(d.FD(), nrDiscard, poke(poke(sized(40), 16, 512), 4, 1)),
		"discard reserved":      rawIoctl(d.FD(), nrDiscard, poke(poke(sized(40), 16, 512), 32, 1)),
		"discard wraps":         rawIoctl(d.FD(), nrDiscard, poke(poke(poke(sized(40), 8, 512), 16, 1<<32-1), 20, 1<<32-1)),
		"inject get none":       rawIoctl(d.FD(), nrInjectGet, sized(80)),
		"inject get 5":          rawIoctl(d.FD(), nrInjectGet, poke(sized(80), 4, 5)),
		"inject get flags":      rawIoctl(d.FD(), nrInjectGet, poke(poke(sized(80), 4, 1), 8, 1)),
		"inject get reserved":   rawIoctl(d.FD(), nrInjectGet, poke(poke(sized(80), 4, 1), 76, 1)),
		"inject clear 5":        rawIoctl(d.FD(), nrInjectClear, poke(sized(80), 4, 5)),
		"inject clear flags":    rawIoctl(d.FD(), nrInjectClear, poke(sized(80), 8, 1)),
		"inject clear reserved": rawIoctl(d.FD(), nrInjectClear, poke(sized(80), 76, 1)),
		"stats flag":            rawIoctl(d.FD(), nrStats, poke(sized(160), 4, 2)),
		"drain flag":            rawIoctl(d.FD(), nrDrain, poke(sized(24), 4, 1)),
		"get none":              rawIoctl(d.FD(), nrFaultGet, sized(48)),
		"get 24":                rawIoctl(d.FD(), nrFaultGet, poke(sized(48), 4, 24)),
		"get flags":             rawIoctl(d.FD(), nrFaultGet, poke(poke(sized(48), 4, 1), 12, 1)),
		"clear flags":           rawIoctl(d.FD(), nrFaultClear, poke(sized(48), 12, 1)),
		"clear 24":              rawIoctl(d.FD(), nrFaultClear, poke(sized(48), 4, 24)),
	} {
		if !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", name, err)
		}
	}
}

// Who isn't allowed to change the device may still use an open one.
func TestDriverPermissions(t *testing.T) {
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	var inject, injectClear, set, reset, arm, clear, drain, info, stats, transfer error
	unprivileged(t, func() {
		set, arm = d.SetConfig(config), d.ArmFault(ioctlapi.Fault{Fault: 1, Every: 1})
		clear = d.ClearFault(ioctlapi.FaultNone)
		_, reset = d.ResetStats()
		_, drain = d.Drain()
		inject = d.Inject(ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1})
		injectClear = d.ClearInject(ioctlapi.InjectNone)
		_, info = d.Info()
		_, stats = d.Stats()
		_, transfer = d.WriteAt([]byte("anyone"), 0)
	})
	for name, err := range map[string]error{"set config": set, "reset": reset, "arm": arm, "clear": clear, "drain": drain,
		"inject": inject, "inject clear": injectClear} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s without CAP_SYS_ADMIN: %v, want EPERM", name, err)
		}
	}
	if err := errors.Join(info, stats, transfer); err != nil {
		t.Error("without CAP_SYS_ADMIN:", err)
	}

	for _, c := range []struct {
		name  string
		mode  int
		flags uint32
	}{{"read-only", unix.O_RDONLY, ioctlapi.TransferWrite}, {"write-only", unix.O_WRONLY, 0}} {
		fd, err := unix.Open(ioctlapi.DefaultPath, c.mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		one := ioctlapi.FromFD(ioctlapi.Linux{}, fd, ioctlapi.DefaultPath)
		if _, err := transferAt(one, make([]byte, 512), c.flags); !errors.Is(err, unix.EBADF) {
			t.Errorf("the other direction on a %s file: %v, want EBADF", c.name, err)
		}
	}
	if st, err := os.Stat(ioctlapi.DefaultPath); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v, want mode 0600", ioctlapi.DefaultPath, st, err)
	}
}
