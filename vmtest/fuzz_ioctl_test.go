// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// fuzzCommand is an ioctl, and how a good struct of it is made.
type fuzzCommand struct {
	nr    uint32
	size  int
	admin bool
	fill  func(f *fuzzThread, b []byte)
}

func u32(b []byte, at int, v uint32) { binary.NativeEndian.PutUint32(b[at:], v) }
func u64(b []byte, at int, v uint64) { binary.NativeEndian.PutUint64(b[at:], v) }

// sizeOf is the size of today's struct.
func sizeOf[T any]() int { var v T; return int(unsafe.Sizeof(v)) }

// Offsets in struct dio_config, by which what would take too long is left out.
const (
	configFields, configLatency, configStoreLimit, configBandwidth = 8, 32, 48, 72
	configJitter, configReposition                                 = 80, 88
)

var fuzzCommands = []fuzzCommand{
	{nrInfo, sizeOf[ioctlapi.Info](), false, nil},
	{nrGetConfig, sizeOf[ioctlapi.Config](), false, nil},
	{nrSetConfig, sizeOf[ioctlapi.Config](), true, fillConfig},
	{nrStats, sizeOf[ioctlapi.Stats](), false, func(f *fuzzThread, b []byte) { u32(b, 4, pick[uint32](f.Rand, 0, 0, 0, 1)) }},
	{nrTransfer, sizeOf[ioctlapi.Transfer](), false, func(f *fuzzThread, b []byte) {
		n := pick(f.Rand, 1, 512, 4096, 4097, 64<<10, 200<<10)
		u32(b, 4, pick[uint32](f.Rand, 0, ioctlapi.TransferWrite))
		u64(b, 8, f.address(n))
		u64(b, 16, uint64(n))
		u64(b, 24, f.place())
	}},
	{nrTransfer, sizeOf[ioctlapi.Transfer](), false, func(f *fuzzThread, b []byte) {
		u32(b, 4, ioctlapi.TransferBuffer|pick[uint32](f.Rand, 0, ioctlapi.TransferWrite))
		u64(b, 8, pick(f.Rand, 0, 1, 4095, uint64(f.IntN(1<<18)), f.number()))
		u64(b, 16, pick[uint64](f.Rand, 1, 512, 4097, 64<<10))
		u64(b, 24, f.place())
		u32(b, 40, fuzzBuffer(f))
	}},
	{nrBufferRegister, sizeOf[ioctlapi.BufferRegister](), false, func(f *fuzzThread, b []byte) {
		n := pick(f.Rand, 1, 512, 4096, 4097, 64<<10, 200<<10)
		u32(b, 4, pick[uint32](f.Rand, 0, ioctlapi.BufferWritable))
		u64(b, 8, f.address(n))
		u64(b, 16, pick(f.Rand, uint64(n), uint64(n), uint64(n), f.number()))
	}},
	{nrBufferUnregister, sizeOf[ioctlapi.BufferUnregister](), false, func(f *fuzzThread, b []byte) { u32(b, 8, fuzzBuffer(f)) }},
	{nrDiscard, sizeOf[ioctlapi.Discard](), false, func(f *fuzzThread, b []byte) {
		u64(b, 8, f.place())
		u64(b, 16, pick(f.Rand, 1, 512, 4096, 1<<20, f.number()))
	}},
	{nrFaultArm, sizeOf[ioctlapi.Fault](), true, func(f *fuzzThread, b []byte) {
		id := pick(f.Rand, f.faults...)
		u32(b, 4, uint32(id))
		u32(b, 8, 1+uint32(f.IntN(5)))
		u64(b, 16, uint64(f.IntN(4)))
		if id.Holds() || f.IntN(32) == 0 {
			u32(b, 24, pick[uint32](f.Rand, 0, 1, 20, 600_000, 600_001))
		}
	}},
	{nrFaultGet, sizeOf[ioctlapi.Fault](), false, func(f *fuzzThread, b []byte) { u32(b, 4, uint32(pick(f.Rand, f.faults...))) }},
	{nrFaultClear, sizeOf[ioctlapi.Fault](), true, func(f *fuzzThread, b []byte) { u32(b, 4, uint32(pick(f.Rand, f.faults...))) }},
	{nrDrain, sizeOf[ioctlapi.Drain](), true, nil},
	{nrInject, sizeOf[ioctlapi.Inject](), true, func(f *fuzzThread, b []byte) {
		u32(b, 4, uint32(f.IntN(6)))
		u32(b, 8, uint32(f.IntN(4)))
		u32(b, 12, 1+uint32(f.IntN(5)))
		u64(b, 16, uint64(f.IntN(3)))
		u64(b, 24, f.place())
		u64(b, 32, pick[uint64](f.Rand, 0, 512, 1<<20))
		u64(b, 40, uint64(f.IntN(4)))
		u64(b, 48, pick[uint64](f.Rand, 0, 0, 1, 500_000))
	}},
	{nrInjectGet, sizeOf[ioctlapi.Inject](), false, func(f *fuzzThread, b []byte) { u32(b, 4, uint32(f.IntN(6))) }},
	{nrInjectClear, sizeOf[ioctlapi.Inject](), true, func(f *fuzzThread, b []byte) { u32(b, 4, uint32(f.IntN(6))) }},
}

// fuzzBuffer is the id of a buffer, that there mostly is.
func fuzzBuffer(f *fuzzThread) uint32 {
	return pick(f.Rand, uint32(1+f.IntN(8)), uint32(1+f.IntN(8)), uint32(f.IntN(40)), uint32(f.number()))
}

func fillConfig(f *fuzzThread, b []byte) {
	fields := f.Uint64() & 0x7fff
	if f.hardware && f.IntN(2) == 0 { // what can be set there
		fields &= uint64(ioctlapi.ConfigFamily | ioctlapi.ConfigMaxRequest | ioctlapi.ConfigMaxInFlightFile | ioctlapi.ConfigMaxInFlight)
	}
	u64(b, configFields, fields)
	u32(b, 16, uint32(f.IntN(5)))
	u32(b, 20, uint32(f.IntN(3)))
	u32(b, 24, uint32(f.IntN(5)))
	u64(b, configLatency, pick[uint64](f.Rand, 0, 0, 10_000, 500_000))
	u64(b, 40, pick[uint64](f.Rand, 1<<30, 1<<30, 1<<30+4096, 4096)) // capacity
	u64(b, configStoreLimit, 64<<20)
	u64(b, 56, pick[uint64](f.Rand, 4096, 1<<16, 1<<20, 1<<30)) // max_request
	u32(b, 64, pick[uint32](f.Rand, 1, 2, 64, 65536))
	u32(b, 68, pick[uint32](f.Rand, 1, 2, 64, 65536))
	u64(b, 96, f.Uint64())
	u32(b, 104, uint32(f.IntN(3)))
	u32(b, 108, pick[uint32](f.Rand, 1, 8, 1024, 1025))
}

// tameConfig takes out what is right but takes minutes: long times, low rates,
// all of the guest's memory. What is wrong stays.
func tameConfig(part []byte) {
	// What a shorter struct cuts off is zero.
	b := make([]byte, max(len(part), sizeOf[ioctlapi.Config]()))
	copy(b, part)
	at := func(i int) uint64 { return binary.NativeEndian.Uint64(b[i:]) }
	for _, i := range []int{configLatency, configJitter, configReposition} {
		if v := at(i); v > 1_000_000 && v <= ioctlapi.LatencyMaxNS {
			u64(b, i, 1_000_000)
		}
	}
	if v := at(configBandwidth); v >= ioctlapi.BandwidthMin && v < 1<<30 {
		u64(b, configBandwidth, 1<<30)
	}
	if v := at(configStoreLimit); v > 256<<20 && v%4096 == 0 {
		u64(b, configStoreLimit, 256<<20)
	}
	copy(part, b)
}

// tameInject does the same for a delay.
func tameInject(b []byte) {
	const delay = 48
	if len(b) >= delay+8 && binary.NativeEndian.Uint64(b[delay:]) > 1_000_000 && binary.NativeEndian.Uint64(b[delay:]) <= ioctlapi.LatencyMaxNS {
		u64(b, delay, 1_000_000)
	}
}

// tameAddress moves a buffer that a number put into this program, which the device
// would write to, to where there is nothing.
func tameAddress(b []byte) {
	const at = 8
	if len(b) < at+8 {
		return
	}
	if v := binary.NativeEndian.Uint64(b[at:]); v >= 1<<16 && v < 1<<32 { // linked to 4 MiB
		u64(b, at, v|1<<36)
	}
}

// Errors that an ioctl may give: any other is a finding. EIO is injected, EOPNOTSUPP
// of a fault, or of hardware.
var ioctlErrors = []error{nil, unix.EINVAL, unix.EFAULT, unix.E2BIG, unix.ENOTTY, unix.EPERM, unix.EBADF, unix.ENOSPC, unix.EAGAIN, unix.EBUSY, unix.EIO,
	unix.ENOENT, unix.EACCES, unix.ENOMEM, unix.EOPNOTSUPP}

// fuzzIoctl makes ioctls: known commands with good structs, spoilt a little or a
// lot, commands that are nearly right, and any.
func fuzzIoctl(f *fuzzThread) (call, end func() error) {
	page := f.mem.page
	// Two pages of this thread's own for the struct, so that its end can be
	// at an edge, and what is behind it watched.
	room, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		err = unix.Mprotect(room[2*page:], unix.PROT_NONE)
	}
	if err != nil {
		return func() error { return err }, func() error { return nil }
	}
	room = room[:2*page]
	image := make([]byte, 2*page)
	call = func() error {
		c := pick(f.Rand, fuzzCommands...)
		size := c.size
		if f.IntN(6) == 0 {
			size = max(4, pick(f.Rand, c.size-8, c.size-4, c.size+8, c.size+4, 72, 160, 256, f.IntN(400), page, page+8))
		}
		clear(image)
		if c.fill != nil { // a shorter struct is the beginning of today's
			c.fill(f, image[:c.size])
			clear(image[min(size, c.size):])
		}
		b := image[:size]
		u32(b, 0, uint32(size))
		if f.IntN(3) == 0 {
			for range 1 + f.IntN(3) {
				if at := f.IntN(size); f.IntN(2) == 0 && at+8 <= size {
					u64(b, at&^7, f.number())
				} else {
					b[at] ^= 1 << f.IntN(8)
				}
			}
		}
		switch c.nr {
		case nrSetConfig:
			tameConfig(b)
		case nrInject, nrInjectGet, nrInjectClear: // a bit away from each other
			tameInject(b)
		}
		cmd := 3<<30 | uint32(size)<<16 | 0xD1<<8 | c.nr
		known := true
		switch f.IntN(20) {
		case 0: // one bit away: another number, direction or magic, or a size that isn't the struct's
			flipped := cmd ^ 1<<f.IntN(32)
			known = (flipped^cmd)&^(0x3fff<<16) == 0
			cmd = flipped
		case 1:
			cmd, known = f.Uint32(), false
			if cmd>>8&0xff == 0xD1 {
				return nil // may be right by chance
			}
		}
		switch cmd & 0xff {
		case nrTransfer:
			if size < 8 || binary.NativeEndian.Uint32(b[4:])&ioctlapi.TransferBuffer == 0 { // else it's an offset
				tameAddress(b)
			}
		case nrBufferRegister:
			tameAddress(b)
		}
		if n := binary.NativeEndian.Uint32(b); n != uint32(size) && n == cmd>>16&0x3fff {
			return nil // both bent alike: right by chance, for a longer struct
		}
		at := 2*page - size // its end at the edge
		if f.IntN(2) == 0 {
			at = f.IntN(at + 1)
		}
		clear(room)
		copy(room[at:], b)
		copy(image, room)
		where := address(room[at:])
		ours := true
		if f.IntN(16) == 0 {
			where, ours = f.address(size), false
			if where >= address(f.mem.all) && where < address(f.mem.all)+uint64(len(f.mem.all)) && c.admin {
				return nil // others write there: it may turn into any configuration
			}
		} else if f.IntN(20) == 0 {
			where, ours = address(room)+uint64(2*page-f.IntN(size+1)), false // cut by the edge
		}
		fd := pick(f.Rand, f.files...)
		// A reset would part the counts of what is taken and given back: of requests
		// under way, and of what faults have put aside.
		lock, unlock := f.resets.RLock, f.resets.RUnlock
		reset := cmd&0xff == nrStats && size >= 8 && room[at+4]&1 != 0
		if reset {
			lock, unlock = f.resets.Lock, f.resets.Unlock
		}
		lock()
		if reset && f.root {
			if _, err := ioctlapi.FromFD(ioctlapi.Linux{}, f.files[0], "").Drain(); err != nil {
				unlock()
				return err
			}
		}
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(where))
		unlock()
		var told error
		if e != 0 {
			told = e
		}
		f.told[told]++

		what := func(format string, args ...any) error {
			return fmt.Errorf("ioctl %#x on file %d at %#x, % x: %v: %s", cmd, slices.Index(f.files, fd), where, room[at:at+size], told, fmt.Sprintf(format, args...))
		}
		if !slices.Contains(ioctlErrors, told) || told == unix.EOPNOTSUPP && c.nr != nrFaultArm && known && !f.hardware {
			return what("not an error of the ABI")
		}
		if known && c.admin && !f.root && told != unix.EPERM {
			return what("nobody may do that")
		}
		if !ours {
			return nil
		}
		// A failed call changes nothing; one that didn't, nothing but the struct.
		end := at + size
		if told == nil {
			if !bytes.Equal(room[:at], image[:at]) || !bytes.Equal(room[end:], image[end:]) {
				return what("bytes beside the struct changed")
			}
			if n := binary.NativeEndian.Uint32(room[at:]); n != uint32(size) {
				return what("the size came back as %d", n)
			}
		} else if told != unix.EFAULT && !bytes.Equal(room, image[:2*page]) {
			return what("the struct changed")
		}
		return nil
	}
	return call, func() error { return nil }
}
