// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// errnoCall is a read or write that is going to be refused.
type errnoCall struct {
	fd     int
	status int // of the open file, beside O_DIRECT
	write  bool
	vec    [][]byte // several only where the path takes a vector
	pos    int64
	flags  int    // RWF_*
	buffer uint32 // a registered one that isn't there; 0: the path's own
}

func (c *errnoCall) bytes() (n int) {
	for _, s := range c.vec {
		n += len(s)
	}
	return n
}

// errnoDo makes the call, and gives what came of it.
type errnoDo func(c *errnoCall) (int, error)

// errnoAccess is whether the file has O_DIRECT.
type errnoAccess string

const (
	errnoDirect errnoAccess = "direct"
	errnoCopied errnoAccess = "copied"
	errnoEither errnoAccess = "either" // the path doesn't mind, so it's tried once
)

func (a errnoAccess) flag() int { return map[errnoAccess]int{errnoDirect: unix.O_DIRECT}[a] }

// errnoPath is a way to the device.
type errnoPath struct {
	name   string
	access []errnoAccess
	make   func(k *errnoKit) errnoDo
}

func (p errnoPath) isCommand() bool { return strings.HasPrefix(p.name, "command") }

// The paths, by what they have in common.
const (
	errnoCalls     = "preadv preadv2 aio aio-vector"
	errnoRings     = "uring uring-vector polled polled-vector"
	errnoFixed     = "uring-fixed polled-fixed"
	errnoPlain     = "command command-polled"
	errnoCommand   = "command-fixed command-polled-fixed"
	errnoReadWrite = errnoCalls + " " + errnoRings + " " + errnoFixed
	errnoOwn       = errnoPlain + " " + errnoCommand
	errnoTransfers = "transfer transfer-buffer"
	errnoVectors   = "preadv preadv2 aio-vector uring-vector polled-vector"
	errnoBuffers   = "aio uring polled " + errnoFixed + " " + errnoOwn + " " + errnoTransfers
)

var errnoPaths = []errnoPath{
	{"preadv", []errnoAccess{errnoDirect, errnoCopied}, func(k *errnoKit) errnoDo { return k.calls(unix.SYS_PREADV, unix.SYS_PWRITEV) }},
	{"preadv2", []errnoAccess{errnoDirect, errnoCopied}, func(k *errnoKit) errnoDo { return k.calls(unix.SYS_PREADV2, unix.SYS_PWRITEV2) }},
	{"aio", []errnoAccess{errnoDirect, errnoCopied}, func(k *errnoKit) errnoDo { return k.native(aioRead, aioWrite) }},
	{"aio-vector", []errnoAccess{errnoDirect, errnoCopied}, func(k *errnoKit) errnoDo { return k.native(aioReadv, aioWritev) }},
	{"uring", []errnoAccess{errnoDirect, errnoCopied}, func(k *errnoKit) errnoDo { return k.ring(0, uringRead, uringWrite) }},
	{"uring-vector", []errnoAccess{errnoDirect, errnoCopied}, func(k *errnoKit) errnoDo { return k.ring(0, uringReadv, uringWritev) }},
	{"uring-fixed", []errnoAccess{errnoDirect, errnoCopied}, func(k *errnoKit) errnoDo { return k.ring(0, uringReadFixed, uringWriteFixed) }},
	// Without O_DIRECT these are EOPNOTSUPP, whatever else: see TestDriverPolled.
	{"polled", []errnoAccess{errnoDirect}, func(k *errnoKit) errnoDo { return k.ring(uringIOPoll, uringRead, uringWrite) }},
	{"polled-vector", []errnoAccess{errnoDirect}, func(k *errnoKit) errnoDo { return k.ring(uringIOPoll, uringReadv, uringWritev) }},
	{"polled-fixed", []errnoAccess{errnoDirect}, func(k *errnoKit) errnoDo { return k.ring(uringIOPoll, uringReadFixed, uringWriteFixed) }},
	{"command", []errnoAccess{errnoEither}, func(k *errnoKit) errnoDo { return k.command(0, 0) }},
	{"command-fixed", []errnoAccess{errnoEither}, func(k *errnoKit) errnoDo { return k.command(0, uringCommandFixed) }},
	{"command-polled", []errnoAccess{errnoEither}, func(k *errnoKit) errnoDo { return k.command(uringIOPoll, 0) }},
	{"command-polled-fixed", []errnoAccess{errnoEither}, func(k *errnoKit) errnoDo { return k.command(uringIOPoll, uringCommandFixed) }},
	{"splice", []errnoAccess{errnoDirect, errnoCopied}, func(k *errnoKit) errnoDo { return k.splice() }},
	{"transfer", []errnoAccess{errnoEither}, func(k *errnoKit) errnoDo { return k.transfer }},
	{"transfer-buffer", []errnoAccess{errnoEither}, func(k *errnoKit) errnoDo { return k.transferBuffer() }},
	{"mmap", []errnoAccess{errnoEither}, func(k *errnoKit) errnoDo { return k.mapped }},
}

// Native AIO's operations on vectors.
const aioReadv, aioWritev = 7, 8

// The pages of a kit's memory: the first are registered where a path wants that,
// up to those that are left out, one that can't be touched, one that can't be written.
const (
	errnoRegistered = 16
	errnoNowhere    = 18
	errnoConstant   = 19
	errnoPages      = 20
)

// errnoKit is what the calls of a path are made with.
type errnoKit struct {
	t    *testing.T
	d    *ioctlapi.Device
	fd   int // of the calls
	mem  []byte
	page int
}

func newErrnoKit(t *testing.T, d *ioctlapi.Device) *errnoKit {
	t.Helper()
	k := &errnoKit{t: t, d: d, page: os.Getpagesize(), fd: openRaw(t, unix.O_DIRECT), mem: anonymous(t, errnoPages)}
	fill(k.pages(errnoConstant, errnoPages), 0x5a)
	if err := errors.Join(unix.Mprotect(k.pages(errnoNowhere, errnoConstant), unix.PROT_NONE),
		unix.Mprotect(k.pages(errnoConstant, errnoPages), unix.PROT_READ)); err != nil {
		t.Fatal(err)
	}
	return k
}

// pages are some of the kit's, in bytes.
func (k *errnoKit) pages(from, to int) []byte { return k.mem[from*k.page : to*k.page] }

// which is that of a call's direction.
func which[T any](c *errnoCall, read, write T) T {
	if c.write {
		return write
	}
	return read
}

func (k *errnoKit) calls(read, write uintptr) errnoDo {
	return func(c *errnoCall) (int, error) {
		return vectored(which(c, read, write), c.fd, iovecs(c.vec...), c.pos, c.flags)
	}
}

func (k *errnoKit) native(read, write uint16) errnoDo {
	aio := newAIO(k.t, 1)
	return func(c *errnoCall) (int, error) {
		one, v := control(which(c, read, write), c.fd, c.vec[0], c.pos), iovecs(c.vec...)
		one.rwFlags = uint32(c.flags)
		if read == aioReadv {
			one.buf, one.n = uint64(uintptr(unsafe.Pointer(&v[0]))), uint64(len(v))
		}
		err := aio.submit(one)
		if err != nil {
			return 0, err
		}
		n, err := result(aio.wait(20 * time.Second).res)
		runtime.KeepAlive(v)
		return n, err
	}
}

// registered is a ring that knows the kit's first pages.
func (k *errnoKit) registered(flags uint32) *uring {
	r, v := newUring(k.t, 4, flags), iovecs(k.pages(0, errnoRegistered))
	if err := r.register(uringRegisterBuffers, unsafe.Pointer(&v[0]), 1); err != nil {
		k.t.Fatal("register the buffer:", err)
	}
	// Closing the ring would do, but only some time later.
	k.t.Cleanup(func() {
		r.none()
		if err := r.register(uringUnregisterBuffers, nil, 0); err != nil {
			k.t.Error("unregister the buffer:", err)
		}
	})
	return r
}

func (k *errnoKit) ring(flags uint32, read, write uint8) errnoDo {
	r := k.registered(flags)
	return func(c *errnoCall) (int, error) {
		e, v := entry(which(c, read, write), c.fd, c.vec[0], c.pos), iovecs(c.vec...)
		e.opFlags, e.buffer = uint32(c.flags), uint16(c.buffer)
		if read == uringReadv {
			e.addr, e.n = uint64(uintptr(unsafe.Pointer(&v[0]))), uint32(len(v))
		}
		r.submit(e)
		n, err := result(int64(r.wait(20 * time.Second).res))
		runtime.KeepAlive(v)
		return n, err
	}
}

func (k *errnoKit) command(flags, opFlags uint32) errnoDo {
	r := k.registered(flags)
	return func(c *errnoCall) (int, error) {
		e := command(which(c, uint32(ioctlapi.URingRead), ioctlapi.URingWrite), c.fd, c.vec[0], c.pos)
		e.opFlags, e.buffer = opFlags, uint16(c.buffer)
		r.submit(e)
		return result(int64(r.wait(20 * time.Second).res))
	}
}

// splice reads by splicing out, to a pipe, and writes by splicing in what the pipe
// has of the caller's pages. The refused bytes stay where they are.
func (k *errnoKit) splice() errnoDo {
	r, w := pipe(k.t, errnoRegistered*k.page)
	return func(c *errnoCall) (int, error) {
		pos, had, n := c.pos, 0, 0
		var err error
		if c.write {
			if had, err = unix.Vmsplice(w, iovecs(c.vec...), 0); had != c.bytes() || err != nil {
				k.t.Fatalf("vmsplice: %d, %v", had, err)
			}
			moved, e := unix.Splice(r, nil, c.fd, &pos, had, 0)
			n, err = int(moved), e
		} else {
			moved, e := unix.Splice(c.fd, &pos, w, nil, c.bytes(), 0)
			n, err = int(moved), e
		}
		left, e := io.Copy(io.Discard, fdReader(r))
		if !errors.Is(e, unix.EAGAIN) {
			k.t.Error("drain the pipe:", e)
		}
		if err != nil && (left != int64(had) || pos != c.pos) {
			k.t.Errorf("of a pipe of %d bytes %d are left, and the position is %d, it was %d", had, left, pos, c.pos)
		}
		return max(n, 0), err
	}
}

func (k *errnoKit) transfer(c *errnoCall) (int, error) {
	tr := ioctlapi.Transfer{Addr: address(c.vec[0]), Length: uint64(len(c.vec[0])), Offset: uint64(c.pos), Flags: which(c, 0, uint32(ioctlapi.TransferWrite))}
	err := ioctlapi.FromFD(ioctlapi.Linux{}, c.fd, "").Transfer(&tr)
	return int(tr.Done), err
}

// transferBuffer has two buffers, that go with the kit's file.
func (k *errnoKit) transferBuffer() errnoDo {
	own := ioctlapi.FromFD(ioctlapi.Linux{}, k.fd, "")
	constant := k.pages(errnoConstant, errnoPages)
	whole, readOnly := register(k.t, own, k.pages(0, errnoRegistered), true), register(k.t, own, constant, false)
	return func(c *errnoCall) (int, error) {
		id, from := whole, address(k.mem)
		if address(c.vec[0]) == address(constant) {
			id, from = readOnly, address(constant)
		}
		if c.buffer != 0 {
			id = c.buffer
		}
		return move(ioctlapi.FromFD(ioctlapi.Linux{}, c.fd, ""), id, int(address(c.vec[0])-from), len(c.vec[0]), uint64(c.pos),
			which(c, 0, uint32(ioctlapi.TransferWrite)))
	}
}

// errSIGBUS is what a touch of a mapping may come to.
var errSIGBUS = errors.New("SIGBUS")

func (k *errnoKit) mapped(c *errnoCall) (n int, err error) {
	m, err := unix.Mmap(c.fd, c.pos, len(c.vec[0]), which(c, unix.PROT_READ, unix.PROT_WRITE), unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(m)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			n, err = 0, errSIGBUS
		}
	}()
	return copy(which(c, c.vec[0], m), which(c, m, c.vec[0])), nil
}
