// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// readOnly is b where nobody can write.
func readOnly(t *testing.T, b []byte) unsafe.Pointer {
	t.Helper()
	mem := anonymous(t, 1)
	copy(mem, b)
	if err := unix.Mprotect(mem, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	return unsafe.Pointer(unsafe.SliceData(mem))
}

// put returns b with v at offset at.
func put(b []byte, at int, v uint64) []byte {
	binary.LittleEndian.PutUint64(b[at:], v)
	return b
}

// Whose struct can't be written is told EFAULT by every command; what it asked for
// is done all the same, but for a registration, which is undone.
func TestDriverAnswerLost(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	noBuffers(t, d)
	setConfig(t, d, func(*ioctlapi.Config) {}) // whatever is set here goes in the end
	const pos = scratch + 23<<20
	fd, mem := openRaw(t, unix.O_DIRECT), fill(anonymous(t, 1), 3)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	stats := func() ioctlapi.Stats {
		t.Helper()
		s, err := d.Stats()
		must(err)
		return s
	}
	stored := func() []byte {
		t.Helper()
		in := anonymous(t, 1)
		pread(t, fd, in, pos)
		return in
	}
	fault := func() ioctlapi.Fault {
		t.Helper()
		f, err := d.Fault(ioctlapi.FaultPinLeak)
		must(err)
		return f
	}
	rule := func() ioctlapi.Inject {
		t.Helper()
		i, err := d.Injection(ioctlapi.InjectEIO)
		must(err)
		return i
	}
	t.Cleanup(func() {
		if err := errors.Join(d.ClearFault(ioctlapi.FaultPinLeak), d.ClearInject(ioctlapi.InjectEIO)); err != nil {
			t.Error(err)
		}
	})
	var id uint32
	var same func() bool
	unchanged := func() {
		before, err := d.Config()
		must(err)
		same = func() bool { after, err := d.Config(); return err == nil && after == before }
	}
	kept := func() bool { return same() }

	// In this order: some undo what others did.
	for _, c := range []struct {
		name   string
		nr     uint32
		before func()
		arg    func() []byte
		done   func() bool
	}{
		{"info", nrInfo, unchanged, func() []byte { return sized(56) }, kept},
		{"get config", nrGetConfig, unchanged, func() []byte { return sized(112) }, kept},
		{"set config", nrSetConfig, nil,
			func() []byte { return put(poke(sized(112), 8, 1<<6), 56, 12<<12) }, // max_request
			func() bool { config, err := d.Config(); return err == nil && config.MaxRequest == 12<<12 }},
		{"transfer", nrTransfer, func() { hole(t, d, pos, 4096) },
			func() []byte { return put(put(put(poke(sized(48), 4, 1), 8, address(mem)), 16, 4096), 24, pos) },
			func() bool { return bytes.Equal(stored(), mem) }},
		{"discard", nrDiscard, func() { pwrite(t, fd, mem, pos) },
			func() []byte { return put(put(sized(40), 8, pos), 16, 4096) },
			func() bool { return bytes.Equal(stored(), make([]byte, 4096)) }},
		{"stats", nrStats, func() { pread(t, fd, mem, pos) },
			func() []byte { return sized(288) },
			func() bool { return stats().Reads != 0 }},
		{"stats, reset", nrStats, nil,
			func() []byte { return poke(sized(288), 4, 1) },
			func() bool { return stats().Reads == 0 }},
		{"fault arm", nrFaultArm, nil,
			func() []byte { return poke(poke(sized(48), 4, uint32(ioctlapi.FaultPinLeak)), 8, 1) },
			func() bool { return fault().Armed == 1 }},
		{"fault get", nrFaultGet, nil,
			func() []byte { return poke(sized(48), 4, uint32(ioctlapi.FaultPinLeak)) },
			func() bool { return fault().Armed == 1 }},
		{"drain", nrDrain, func() {
			pwrite(t, fd, mem, pos)
			if n := stats().QuarantinedPages; n != 1 {
				t.Errorf("%d pages put aside, want 1", n)
			}
		}, func() []byte { return sized(24) }, func() bool { return stats().QuarantinedPages == 0 }},
		{"fault clear", nrFaultClear, nil,
			func() []byte { return poke(sized(48), 4, uint32(ioctlapi.FaultPinLeak)) },
			func() bool { return fault().Every == 0 }},
		{"inject", nrInject, nil,
			func() []byte { return poke(poke(sized(80), 4, uint32(ioctlapi.InjectEIO)), 12, 1<<20) },
			func() bool { return rule().Armed == 1 }},
		{"inject get", nrInjectGet, nil,
			func() []byte { return poke(sized(80), 4, uint32(ioctlapi.InjectEIO)) },
			func() bool { return rule().Armed == 1 }},
		{"inject clear", nrInjectClear, nil,
			func() []byte { return poke(sized(80), 4, uint32(ioctlapi.InjectEIO)) },
			func() bool { return rule().Every == 0 }},
		{"buffer register", nrBufferRegister, nil,
			func() []byte { return put(put(sized(32), 8, address(mem)), 16, 4096) },
			func() bool { return bufferStats(t, d) == [2]uint64{} }},
		{"buffer unregister", nrBufferUnregister, func() { id = register(t, d, mem, false) },
			func() []byte { return poke(sized(16), 8, id) },
			func() bool { return bufferStats(t, d) == [2]uint64{} }},
	} {
		if c.before != nil {
			c.before()
		}
		b := c.arg()
		cmd := 3<<30 | uint32(len(b))<<16 | 0xD1<<8 | c.nr
		if err := rawCommand(d.FD(), cmd, readOnly(t, b)); !errors.Is(err, unix.EFAULT) {
			t.Errorf("%s: %v, want EFAULT", c.name, err)
		}
		if !c.done() {
			t.Errorf("%s: it isn't as the manual has it afterwards", c.name)
		}
	}
}
