// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Each way to be refused has its errno, and leaves nothing pinned or charged.
func TestBufferErrors(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	hole := anonymous(t, 5) // its third page can't be touched, its fourth not written
	if err := errors.Join(unix.Mprotect(hole[2*page:3*page], unix.PROT_NONE), unix.Mprotect(hole[3*page:4*page], unix.PROT_READ)); err != nil {
		t.Fatal(err)
	}
	addr := uint64(uintptr(unsafe.Pointer(&hole[0])))
	registration := func(addr, n uint64, flags, reserved uint32) error {
		b := poke(poke(sized(32), 4, flags), 28, reserved)
		binary.LittleEndian.PutUint64(b[8:], addr)
		binary.LittleEndian.PutUint64(b[16:], n)
		return rawIoctl(d.FD(), nrBufferRegister, b)
	}
	for name, c := range map[string]struct{ err, want error }{
		"length 0":             {registration(addr, 0, 0, 0), unix.EINVAL},
		"over 1 GiB":           {registration(addr, 1<<30+1, 0, 0), unix.EINVAL},
		"wraps":                {registration(1<<64-4096, 4096, 0, 0), unix.EINVAL},
		"flags":                {registration(addr, 4096, 2, 0), unix.EINVAL},
		"reserved":             {registration(addr, 4096, 0, 1), unix.EINVAL},
		"no memory there":      {registration(addr+2*uint64(page), 1, 0, 0), unix.EFAULT},
		"kernel's memory":      {registration(1<<63, 4096, 0, 0), unix.EFAULT},
		"the last page of all": {registration(1<<64-8, 1, 0, 0), unix.EFAULT},
		"a hole in the middle": {registration(addr, 4*uint64(page), 1, 0), unix.EFAULT},
		"a hole at the end":    {registration(addr, 2*uint64(page)+1, 1, 0), unix.EFAULT},
		"not to be written":    {registration(addr+3*uint64(page), 1, 1, 0), unix.EFAULT},
		"unregister 0":         {d.UnregisterBuffer(0), unix.ENOENT},
		"unregister nothing":   {d.UnregisterBuffer(1), unix.ENOENT},
		"unregister, far off":  {d.UnregisterBuffer(1<<32 - 1), unix.ENOENT},
		"unregister, flags":    {rawIoctl(d.FD(), nrBufferUnregister, poke(sized(16), 4, 1)), unix.EINVAL},
		"unregister, reserved": {rawIoctl(d.FD(), nrBufferUnregister, poke(sized(16), 12, 1)), unix.EINVAL},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	if s := bufferStats(t, d); s != [2]uint64{} {
		t.Fatalf("refused registrations left %v", s)
	}
	if err := registration(addr+3*uint64(page), 1, 0, 0); err != nil {
		t.Errorf("memory that is only read needn't be writable: %v", err)
	} else if err := d.UnregisterBuffer(1); err != nil {
		t.Error(err)
	}

	mem := anonymous(t, 2)
	read, write := register(t, d, mem[:page+100], true), register(t, d, mem[page:], false)
	other := openDevice(t)
	readOnly, writeOnly := openOneWay(t, unix.O_RDONLY), openOneWay(t, unix.O_WRONLY)
	for name, c := range map[string]struct {
		d    *ioctlapi.Device
		tr   ioctlapi.Transfer
		want error
	}{
		"good":                    {d, ioctlapi.Transfer{Flags: 2, Addr: 99, Length: uint64(page) + 1, Buffer: read}, nil},
		"past the end":            {d, ioctlapi.Transfer{Flags: 2, Addr: 99, Length: uint64(page) + 2, Buffer: read}, unix.EFAULT},
		"from the end":            {d, ioctlapi.Transfer{Flags: 2, Addr: uint64(page) + 100, Length: 1, Buffer: read}, unix.EFAULT},
		"far past the end":        {d, ioctlapi.Transfer{Flags: 2, Addr: 1 << 62, Length: 1, Buffer: read}, unix.EFAULT},
		"wraps":                   {d, ioctlapi.Transfer{Flags: 2, Addr: 1<<64 - 1, Length: 1, Buffer: read}, unix.EINVAL},
		"length 0":                {d, ioctlapi.Transfer{Flags: 2, Buffer: read}, unix.EINVAL},
		"offset wraps":            {d, ioctlapi.Transfer{Flags: 2, Length: 4, Offset: 1<<64 - 2, Buffer: read}, unix.EINVAL},
		"unknown flag":            {d, ioctlapi.Transfer{Flags: 4, Addr: 0, Length: 1, Buffer: read}, unix.EINVAL},
		"an id without the flag":  {d, ioctlapi.Transfer{Addr: uint64(uintptr(unsafe.Pointer(&mem[0]))), Length: 1, Buffer: read}, unix.EINVAL},
		"reserved":                {d, ioctlapi.Transfer{Flags: 2, Length: 1, Buffer: read, Reserved: 1}, unix.EINVAL},
		"no id":                   {d, ioctlapi.Transfer{Flags: 2, Length: 1}, unix.ENOENT},
		"another id":              {d, ioctlapi.Transfer{Flags: 2, Length: 1, Buffer: 77}, unix.ENOENT},
		"an id of no file":        {d, ioctlapi.Transfer{Flags: 2, Length: 1, Buffer: 1<<32 - 1}, unix.ENOENT},
		"another file's":          {other, ioctlapi.Transfer{Flags: 2, Length: 1, Buffer: read}, unix.ENOENT},
		"not writable":            {d, ioctlapi.Transfer{Flags: 2, Length: 1, Buffer: write}, unix.EACCES},
		"a read-only file":        {readOnly, ioctlapi.Transfer{Flags: 3, Length: 1, Buffer: read}, unix.EBADF},
		"a write-only file":       {writeOnly, ioctlapi.Transfer{Flags: 2, Length: 1, Buffer: read}, unix.EBADF},
		"write from not writable": {d, ioctlapi.Transfer{Flags: 3, Length: uint64(page), Offset: scratch, Buffer: write}, nil},
	} {
		tr := c.tr
		if err := c.d.Transfer(&tr); !errors.Is(err, c.want) || err != nil && tr.Done != 0 {
			t.Errorf("%s: %d, %v, want %v", name, tr.Done, err, c.want)
		}
	}
	// An older caller's struct knows no buffers.
	if err := rawIoctl(d.FD(), nrTransfer, poke(poke(sized(40), 4, 2), 16, 1)); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the flag in the first version's struct: %v, want ENOENT", err)
	}
	classic := sized(40)
	binary.LittleEndian.PutUint64(classic[8:], uint64(uintptr(unsafe.Pointer(&mem[5]))))
	binary.LittleEndian.PutUint64(classic[16:], 77)
	if err := rawIoctl(d.FD(), nrTransfer, classic); err != nil || binary.LittleEndian.Uint64(classic[32:]) != 77 {
		t.Errorf("the first version's struct: %v, % x", err, classic)
	}
	if err := errors.Join(d.UnregisterBuffer(read), d.UnregisterBuffer(write)); err != nil {
		t.Error(err)
	}
	if err := d.UnregisterBuffer(read); !errors.Is(err, unix.ENOENT) {
		t.Errorf("unregistered twice: %v, want ENOENT", err)
	}
}

// openOneWay opens the device in one direction.
func openOneWay(t *testing.T, mode int) *ioctlapi.Device {
	t.Helper()
	fd, err := unix.Open(ioctlapi.DefaultPath, mode|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return ioctlapi.FromFD(ioctlapi.Linux{}, fd, ioctlapi.DefaultPath)
}

// An answer that can't be told undoes the registration.
func TestBufferAnswerLost(t *testing.T) {
	d, mem := openDevice(t), anonymous(t, 2)
	noBuffers(t, d)
	b := mem[os.Getpagesize():]
	binary.LittleEndian.PutUint32(b, 32)
	binary.LittleEndian.PutUint64(b[8:], uint64(uintptr(unsafe.Pointer(&mem[0]))))
	binary.LittleEndian.PutUint64(b[16:], 100)
	if err := unix.Mprotect(b, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	if err := rawIoctl(d.FD(), nrBufferRegister, b[:32]); !errors.Is(err, unix.EFAULT) {
		t.Errorf("%v, want EFAULT", err)
	}
	if s := bufferStats(t, d); s != [2]uint64{} {
		t.Errorf("the buffer stayed: %v", s)
	}
}

// The number of buffers of a file is limited, its ids are the lowest free ones,
// and all go with the file.
func TestBufferLimit(t *testing.T) {
	d, other, mem := openDevice(t), openDevice(t), anonymous(t, 1)
	noBuffers(t, other)
	for want := uint32(1); want <= ioctlapi.BuffersMax; want++ {
		if id := register(t, d, mem, true); id != want {
			t.Fatalf("id %d, want %d", id, want)
		}
	}
	if id, err := d.RegisterBuffer(mem, true); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("one more than there may be: %d, %v, want ENOSPC", id, err)
	}
	// The same page, pinned and charged each time.
	if s, kb := bufferStats(t, d), pinnedKB(t, "self"); s != [2]uint64{1024, 1024} || kb != 1024*os.Getpagesize()/1024 {
		t.Errorf("%v buffers and pages, VmPin %d kB", s, kb)
	}
	if id := register(t, other, mem, true); id != 1 {
		t.Errorf("another file's first id is %d", id)
	}
	if err := errors.Join(d.UnregisterBuffer(500), d.UnregisterBuffer(9)); err != nil {
		t.Error(err)
	}
	if a, b := register(t, d, mem, true), register(t, d, mem, true); a != 9 || b != 500 {
		t.Errorf("ids %d and %d, want the free 9 and 500", a, b)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	waitBuffers(t, other, 1)
	if err := other.UnregisterBuffer(1); err != nil {
		t.Error(err)
	}
}
