// SPDX-License-Identifier: GPL-2.0-only

// Package ioctlapi is the ABI of the dio driver in Go: the structs of
// kmod/uapi/dio.h, the calls on an open device, and their errors.
//
// The structs have the layout of their C originals on every architecture,
// 32-bit ones too, for every field has a fixed size and stands at a multiple
// of it. Their json tags are the names of the C fields; the tests hold both
// against the header and against the BTF of the loaded module.
//
// A failed call gives an *Error with the errno; each call names those of its
// own. Any of them may give ENOTTY (not a dio device), EFAULT and ENOMEM, and all
// but Info, Stats and ResetStats give ENODEV once the device was removed.
package ioctlapi

import (
	"strings"
	"unsafe"
)

// ABIVersion is the version of the ABI that this package was written for.
const ABIVersion = 1

// Limits of Config's fields.
const (
	LatencyMaxNS = 60_000_000_000 // nanoseconds
	CapacityMax  = 1 << 40        // bytes
	RequestMax   = 1 << 30        // bytes
	InFlightMax  = 1 << 20        // requests

	BandwidthMin  = 1 << 16 // bytes a second
	BandwidthMax  = 1 << 50 // bytes a second
	QueueDepthMax = 1024    // requests
)

// HoldMaxMS is the longest time, in milliseconds, that Fault.HoldMS can ask for.
const HoldMaxMS = 600_000

// Info says what a device is and can do (struct dio_info).
type Info struct {
	Size        uint32   `json:"size"` // set by the call
	ABIVersion  uint32   `json:"abi_version"`
	Features    Features `json:"features"`
	Capacity    uint64   `json:"capacity"`     // bytes
	MemAlign    uint32   `json:"mem_align"`    // bytes, power of two: addresses and lengths for O_DIRECT
	OffsetAlign uint32   `json:"offset_align"` // bytes, power of two: file offsets for O_DIRECT
	PageSize    uint32   `json:"page_size"`    // bytes
	Index       uint32   `json:"index"`        // the N of /dev/dioN
	Driver      [16]byte `json:"driver"`       // NUL-terminated
}

// DriverName is Driver as a string.
func (i *Info) DriverName() string {
	for n, c := range i.Driver {
		if c == 0 {
			return string(i.Driver[:n])
		}
	}
	return string(i.Driver[:])
}

// IsDio tells a device of this driver, of software ("dio") or hardware
// ("dio-edu"), from another that happens to know the command.
func (i *Info) IsDio() bool {
	name := i.DriverName()
	return name == "dio" || strings.HasPrefix(name, "dio-")
}

// Config is a device's configuration (struct dio_config). SetConfig applies
// the fields whose bits are set in Fields, all of them or none.
type Config struct {
	Size            uint32       `json:"size"`  // set by the call
	Flags           uint32       `json:"flags"` // none yet: 0
	Fields          ConfigFields `json:"fields"`
	Model           Model        `json:"model"`
	Family          Family       `json:"family"`
	Completion      Completion   `json:"completion"`
	Reserved        uint32       `json:"reserved"`           // 0
	LatencyNS       uint64       `json:"latency_ns"`         // nanoseconds, 0 to LatencyMaxNS
	Capacity        uint64       `json:"capacity"`           // bytes, whole pages, 1 page to CapacityMax
	StoreLimit      uint64       `json:"store_limit"`        // bytes of memory, whole pages, 1 page or more
	MaxRequest      uint64       `json:"max_request"`        // bytes, whole pages, 1 page to RequestMax
	MaxInFlightFile uint32       `json:"max_in_flight_file"` // requests of one open file, 1 to InFlightMax
	MaxInFlight     uint32       `json:"max_in_flight"`      // requests of the device, 1 to InFlightMax

	// For ModelDisk and ModelTape.
	Bandwidth    uint64       `json:"bandwidth"`     // bytes a second, BandwidthMin to BandwidthMax; 0: no limit
	JitterNS     uint64       `json:"jitter_ns"`     // disk: nanoseconds, 0 to LatencyMaxNS
	RepositionNS uint64       `json:"reposition_ns"` // tape: nanoseconds, 0 to LatencyMaxNS
	Seed         uint64       `json:"seed"`          // of what is random
	Distribution Distribution `json:"distribution"`  // disk: of the random part of the latency
	QueueDepth   uint32       `json:"queue_depth"`   // disk: requests worked on at a time, 1 to QueueDepthMax
}

// Stats are a device's counters since binding or reset (struct dio_stats). Pages
// are of Info.PageSize bytes. InFlight, StorePages, Quarantined*, Head and
// Buffer* are gauges.
type Stats struct {
	Size                uint32 `json:"size"`                 // set by the call
	Flags               uint32 `json:"flags"`                // set by the call
	Reads               uint64 `json:"reads"`                // requests begun
	Writes              uint64 `json:"writes"`               // requests begun
	BytesRead           uint64 `json:"bytes_read"`           // bytes moved out of the store
	BytesWritten        uint64 `json:"bytes_written"`        // bytes moved into it
	BytesCopied         uint64 `json:"bytes_copied"`         // bytes of both: by copying, without O_DIRECT
	PagesPinned         uint64 `json:"pages_pinned"`         // pages taken by requests, either family
	PagesReleased       uint64 `json:"pages_released"`       // pages
	PagesDirtied        uint64 `json:"pages_dirtied"`        // pages
	Submitted           uint64 `json:"submitted"`            // asynchronous requests
	Queued              uint64 `json:"queued"`               // requests, of either kind, that had to wait
	Completed           uint64 `json:"completed"`            // asynchronous requests that were told to be done
	Cancelled           uint64 `json:"cancelled"`            // requests, those of killed callers too
	Failed              uint64 `json:"failed"`               // requests that ended with an error
	InFlight            uint64 `json:"in_flight"`            // requests now
	InFlightPeak        uint64 `json:"in_flight_peak"`       // requests: the most of InFlight
	StorePages          uint64 `json:"store_pages"`          // pages of memory in use now
	QuarantinedPages    uint64 `json:"quarantined_pages"`    // pages put aside by faults now
	QuarantinedRequests uint64 `json:"quarantined_requests"` // requests put aside by faults now
	FaultsCommitted     uint64 `json:"faults_committed"`     // times, of all faults
	DepthWaits          uint64 `json:"depth_waits"`          // disk: requests that found its queue full
	Stalls              uint64 `json:"stalls"`               // tape: requests that came after it had run dry
	Seeks               uint64 `json:"seeks"`                // tape: requests that weren't where the head was
	Head                uint64 `json:"head"`                 // tape: the head's position, bytes
	InjectedErrors      uint64 `json:"injected_errors"`      // requests hit by InjectEIO
	InjectedShorts      uint64 `json:"injected_shorts"`      // requests hit by InjectShort
	InjectedDelays      uint64 `json:"injected_delays"`      // requests hit by InjectDelay
	InjectedReorders    uint64 `json:"injected_reorders"`    // requests hit by InjectReorder
	Discards            uint64 `json:"discards"`             // calls and commands that succeeded
	BytesDiscarded      uint64 `json:"bytes_discarded"`      // bytes
	Buffers             uint64 `json:"buffers"`              // registered now, or unregistered and still in use
	BufferPages         uint64 `json:"buffer_pages"`         // pinned by them now
	DMASegments         uint64 `json:"dma_segments"`         // hardware: stretches of memory that it moved
	DMABounced          uint64 `json:"dma_bounced"`          // requests whose pages were out of its reach
	DMATimeouts         uint64 `json:"dma_timeouts"`         // transfers that were given up
	Interrupts          uint64 `json:"interrupts"`           // that ended a transfer
}

// TransferWrite moves from the buffer to the device; without it a Transfer
// moves from the device to the buffer.
const TransferWrite = 1 << 0

// TransferBuffer says that the buffer is a registered one.
const TransferBuffer = 1 << 1

// Transfer is one classic transfer (struct dio_transfer). Addr must be memory
// that stays where it is while the call runs: memory outside Go's heap, or
// heap memory that the caller keeps alive. ReadAt and WriteAt see to that.
type Transfer struct {
	Size   uint32 `json:"size"`   // set by the call
	Flags  uint32 `json:"flags"`  // TransferWrite, TransferBuffer
	Addr   uint64 `json:"addr"`   // the buffer's address; TransferBuffer: offset in it, bytes
	Length uint64 `json:"length"` // bytes, 1 to Config.MaxRequest
	Offset uint64 `json:"offset"` // bytes, position in the store
	Done   uint64 `json:"done"`   // out: bytes moved

	Buffer   uint32 `json:"buffer"`   // TransferBuffer: its id; else 0
	Reserved uint32 `json:"reserved"` // 0
}

// Fault is how a fault is to be armed, or is armed (struct dio_fault).
type Fault struct {
	Size      uint32  `json:"size"` // set by the call
	Fault     FaultID `json:"fault"`
	Every     uint32  `json:"every"`     // commit at every Nth occasion, 1 or more
	Flags     uint32  `json:"flags"`     // none yet: 0
	Count     uint64  `json:"count"`     // times at most, 0: no limit; out: what remains
	HoldMS    uint32  `json:"hold_ms"`   // milliseconds; where FaultID.Holds; 0: 5,000; at most HoldMaxMS
	Armed     uint32  `json:"armed"`     // out: 1 when armed
	Occasions uint64  `json:"occasions"` // out: since it was armed
	Committed uint64  `json:"committed"` // out: since the device was bound
}

// Drain is what a drain gave back (struct dio_drain).
type Drain struct {
	Size     uint32 `json:"size"`  // set by the call
	Flags    uint32 `json:"flags"` // none yet: 0
	Pages    uint64 `json:"pages"`
	Requests uint64 `json:"requests"`
}

// Discard is a range to be discarded (struct dio_discard).
type Discard struct {
	Size     uint32 `json:"size"`     // set by the call
	Flags    uint32 `json:"flags"`    // none yet: 0
	Offset   uint64 `json:"offset"`   // bytes
	Length   uint64 `json:"length"`   // bytes, 1 or more
	Done     uint64 `json:"done"`     // out: bytes discarded, fewer at the capacity
	Reserved uint64 `json:"reserved"` // 0
}

const (
	iocMagic    = 0xD1
	statsReset  = 1 << 0
	iocRead     = 2
	iocWrite    = 1
	iocDirShift = 30
	iocSzShift  = 16
	iocTyShift  = 8
)

// iowr is the kernel's _IOWR(iocMagic, nr, T) for a T of size bytes.
func iowr(nr, size uintptr) uint32 {
	return uint32((iocRead|iocWrite)<<iocDirShift | size<<iocSzShift | iocMagic<<iocTyShift | nr)
}

// The ioctl commands.
var (
	cmdInfo       = iowr(0x00, unsafe.Sizeof(Info{}))
	cmdGetConfig  = iowr(0x01, unsafe.Sizeof(Config{}))
	cmdSetConfig  = iowr(0x02, unsafe.Sizeof(Config{}))
	cmdStats      = iowr(0x03, unsafe.Sizeof(Stats{}))
	cmdTransfer   = iowr(0x04, unsafe.Sizeof(Transfer{}))
	cmdFaultArm   = iowr(0x10, unsafe.Sizeof(Fault{}))
	cmdFaultGet   = iowr(0x11, unsafe.Sizeof(Fault{}))
	cmdFaultClear = iowr(0x12, unsafe.Sizeof(Fault{}))
	cmdDrain      = iowr(0x13, unsafe.Sizeof(Drain{}))

	cmdBufferRegister   = iowr(0x06, unsafe.Sizeof(BufferRegister{}))
	cmdBufferUnregister = iowr(0x07, unsafe.Sizeof(BufferUnregister{}))

	cmdDiscard     = iowr(0x05, unsafe.Sizeof(Discard{}))
	cmdInject      = iowr(0x20, unsafe.Sizeof(Inject{}))
	cmdInjectGet   = iowr(0x21, unsafe.Sizeof(Inject{}))
	cmdInjectClear = iowr(0x22, unsafe.Sizeof(Inject{}))
)
