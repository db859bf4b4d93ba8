// SPDX-License-Identifier: GPL-2.0-only

package ioctlapi

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DefaultPath is the first device.
const DefaultPath = "/dev/dio0"

// System is what this package asks of the operating system. Tests put their
// own in its place; errors are plain errnos.
type System interface {
	Open(path string, flags int) (fd int, err error)
	Close(fd int) error
	Ioctl(fd int, cmd uint32, arg unsafe.Pointer) error
}

// Linux is the real System.
type Linux struct{}

// Open is open(2), close-on-exec, retried when a signal comes.
func (Linux) Open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// Close is close(2).
func (Linux) Close(fd int) error { return unix.Close(fd) }

// Ioctl is ioctl(2).
func (Linux) Ioctl(fd int, cmd uint32, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// Error is a failed call: what was tried, on which device, and the errno.
type Error struct {
	Op   string // "set the configuration"
	Path string
	Err  error // a unix.Errno
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Path, e.Op, e.Err) }

// Unwrap gives the errno, so that errors.Is knows it and what it stands for
// (os.ErrNotExist, os.ErrPermission).
func (e *Error) Unwrap() error { return e.Err }

// Device is an open dio device. Its calls may be made from several goroutines
// at once; Close is to come after the last of them.
type Device struct {
	sys  System
	fd   int
	path string
	own  bool // Close closes fd
}

// Open opens the device at path for reading and writing, or only for reading
// where the node doesn't allow more. Transfers need the matching direction.
func Open(path string) (*Device, error) { return OpenWith(Linux{}, path) }

// OpenWith is Open on a System of the caller's.
func OpenWith(sys System, path string) (*Device, error) {
	fd, err := sys.Open(path, unix.O_RDWR)
	if err == unix.EACCES {
		fd, err = sys.Open(path, unix.O_RDONLY)
	}
	if err != nil {
		return nil, &Error{Op: "open", Path: path, Err: err}
	}
	return &Device{sys: sys, fd: fd, path: path, own: true}, nil
}

// FromFD makes a Device of a descriptor that the caller owns and keeps open.
// Nothing is asked of it: Info tells whether it is a dio device (ENOTTY if not).
func FromFD(sys System, fd int, path string) *Device {
	return &Device{sys: sys, fd: fd, path: path}
}

// Path is the path that the device was opened by.
func (d *Device) Path() string { return d.path }

// FD is the open descriptor; it stays the Device's.
func (d *Device) FD() int { return d.fd }

// Close closes the descriptor if Open opened it.
func (d *Device) Close() error {
	if !d.own || d.fd < 0 {
		return nil
	}
	fd := d.fd
	d.fd = -1
	if err := d.sys.Close(fd); err != nil {
		return &Error{Op: "close", Path: d.path, Err: err}
	}
	return nil
}

func (d *Device) call(op string, cmd uint32, arg unsafe.Pointer) error {
	if err := d.sys.Ioctl(d.fd, cmd, arg); err != nil {
		return &Error{Op: op, Path: d.path, Err: err}
	}
	return nil
}

// Info asks what the device is. ENOTTY: not a dio device.
func (d *Device) Info() (Info, error) {
	i := Info{Size: uint32(unsafe.Sizeof(Info{}))}
	err := d.call("read the device's description", cmdInfo, unsafe.Pointer(&i))
	return i, err
}

// Config reads the configuration in force.
func (d *Device) Config() (Config, error) {
	c := Config{Size: uint32(unsafe.Sizeof(Config{}))}
	err := d.call("read the configuration", cmdGetConfig, unsafe.Pointer(&c))
	return c, err
}

// SetConfig applies the fields of c that c.Fields names, all or none. EPERM:
// needs CAP_SYS_ADMIN. EINVAL: a value is out of its range, CompletionInline
// doesn't go with a latency, a disk or a tape, or hardware can't be set to it.
// EBUSY: the capacity can't shrink while the device is mapped or requests are
// in flight.
func (d *Device) SetConfig(c Config) error {
	c.Size = uint32(unsafe.Sizeof(c))
	return d.call("set the configuration", cmdSetConfig, unsafe.Pointer(&c))
}

// Stats reads the counters.
func (d *Device) Stats() (Stats, error) {
	s := Stats{Size: uint32(unsafe.Sizeof(Stats{}))}
	err := d.call("read the statistics", cmdStats, unsafe.Pointer(&s))
	return s, err
}

// ResetStats reads the counters and sets them to zero; gauges stay. EPERM:
// needs CAP_SYS_ADMIN.
func (d *Device) ResetStats() (Stats, error) {
	s := Stats{Size: uint32(unsafe.Sizeof(Stats{})), Flags: statsReset}
	err := d.call("reset the statistics", cmdStats, unsafe.Pointer(&s))
	return s, err
}

// Transfer makes the transfer that t describes and sets t.Done, which is less
// than t.Length at the capacity, or when only some pages of the buffer can be
// had. See Transfer's type about t.Addr.
//
// EBADF: not open for that direction. EINVAL: t.Length is 0 or over
// Config.MaxRequest, or a range wraps. EFAULT: no page of the buffer can be
// pinned. ENOSPC: a write at or past the capacity, or the store is full. EAGAIN:
// too many requests are in flight. EINTR: killed while it waited. EIO: injected,
// or hardware failed. With TransferBuffer also ENOENT: no such buffer is
// registered; EACCES: the buffer isn't BufferWritable, and the device is read;
// EFAULT: the range isn't within the buffer.
func (d *Device) Transfer(t *Transfer) error {
	t.Size = uint32(unsafe.Sizeof(*t))
	t.Done = 0
	op := "transfer from the device"
	if t.Flags&TransferWrite != 0 {
		op = "transfer to the device"
	}
	return d.call(op, cmdTransfer, unsafe.Pointer(t))
}

// ReadAt fills p, of 1 to Config.MaxRequest bytes, from the store at off by one
// transfer and returns how many bytes came; fewer than len(p) at the capacity,
// and 0 past it. Errors are Transfer's, without a registered buffer.
func (d *Device) ReadAt(p []byte, off uint64) (int, error) { return d.transferAt(p, off, 0) }

// WriteAt writes p, of 1 to Config.MaxRequest bytes, to the store at off by one
// transfer and returns how many bytes went; fewer than len(p) at the capacity.
// Errors are Transfer's, without a registered buffer.
func (d *Device) WriteAt(p []byte, off uint64) (int, error) {
	return d.transferAt(p, off, TransferWrite)
}

func (d *Device) transferAt(p []byte, off uint64, flags uint32) (int, error) {
	// The address goes to the kernel as a number, which keeps nothing in
	// place: pin the buffer, so that it isn't on a stack that may move.
	var pin runtime.Pinner
	defer pin.Unpin()
	t := Transfer{Flags: flags, Length: uint64(len(p)), Offset: off}
	if len(p) > 0 {
		pin.Pin(&p[0])
		t.Addr = uint64(uintptr(unsafe.Pointer(&p[0])))
	}
	err := d.Transfer(&t)
	return int(t.Done), err
}

// Discard makes n bytes at off read as zero, and returns how many it did; fewer
// at the capacity. EBADF: not open for writing. EINVAL: n is 0 or the range
// wraps. ENOSPC: off is at or past the capacity. EOPNOTSUPP: hardware. EINTR:
// killed; part of the range may be zero.
func (d *Device) Discard(off, n uint64) (uint64, error) {
	r := Discard{Size: uint32(unsafe.Sizeof(Discard{})), Offset: off, Length: n}
	err := d.call("discard", cmdDiscard, unsafe.Pointer(&r))
	return r.Done, err
}

// ArmFault makes the driver commit f.Fault. EPERM: needs CAP_SYS_ADMIN.
// EINVAL: f.Fault is FaultNone or unknown, Every is 0, or HoldMS is over
// HoldMaxMS or set for a fault that doesn't hold. EOPNOTSUPP: this kernel
// wouldn't survive the fault, or refuses it.
func (d *Device) ArmFault(f Fault) error {
	f.Size = uint32(unsafe.Sizeof(f))
	return d.call("arm fault "+f.Fault.String(), cmdFaultArm, unsafe.Pointer(&f))
}

// Fault reads how a fault is armed and how often it was committed. EINVAL: id is
// FaultNone or unknown.
func (d *Device) Fault(id FaultID) (Fault, error) {
	f := Fault{Size: uint32(unsafe.Sizeof(Fault{})), Fault: id}
	err := d.call("read fault "+id.String(), cmdFaultGet, unsafe.Pointer(&f))
	return f, err
}

// ClearFault disarms a fault, or all of them with FaultNone, and gives back
// what faults put aside. EPERM: needs CAP_SYS_ADMIN. EINVAL: id is unknown.
func (d *Device) ClearFault(id FaultID) error {
	f := Fault{Size: uint32(unsafe.Sizeof(Fault{})), Fault: id}
	op := "clear fault " + id.String()
	if id == FaultNone {
		op = "clear all faults"
	}
	return d.call(op, cmdFaultClear, unsafe.Pointer(&f))
}

// Drain gives back all that faults put aside. EPERM: needs CAP_SYS_ADMIN.
func (d *Device) Drain() (Drain, error) {
	r := Drain{Size: uint32(unsafe.Sizeof(Drain{}))}
	err := d.call("drain the quarantine", cmdDrain, unsafe.Pointer(&r))
	return r, err
}
