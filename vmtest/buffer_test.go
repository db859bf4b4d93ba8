// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// register pins mem for the test, or fails it.
func register(t *testing.T, d *ioctlapi.Device, mem []byte, writable bool) uint32 {
	t.Helper()
	id, err := d.RegisterBuffer(mem, writable)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// move is one transfer between a registered buffer, at, and the store.
func move(d *ioctlapi.Device, id uint32, at, n int, pos uint64, flags uint32) (int, error) {
	tr := ioctlapi.Transfer{Flags: ioctlapi.TransferBuffer | flags, Addr: uint64(at), Length: uint64(n), Offset: pos, Buffer: id}
	err := d.Transfer(&tr)
	return int(tr.Done), err
}

// noBuffers fails the test when it leaves a buffer or a page pinned behind, by
// the driver's count and by the kernel's, or its own process charged.
func noBuffers(t *testing.T, d *ioctlapi.Device) {
	t.Helper()
	noPins(t, d)
	before, charged := bufferStats(t, d), pinnedKB(t, "self")
	t.Cleanup(func() {
		if after := bufferStats(t, d); after != before {
			t.Errorf("buffers and their pages: %v, it was %v", after, before)
		}
		if after := pinnedKB(t, "self"); after != charged {
			t.Errorf("VmPin %d kB, it was %d", after, charged)
		}
	})
}

// bufferStats are the device's buffers and their pages.
func bufferStats(t *testing.T, d *ioctlapi.Device) [2]uint64 {
	t.Helper()
	s, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return [2]uint64{s.Buffers, s.BufferPages}
}

// waitBuffers waits until the device has want buffers.
func waitBuffers(t *testing.T, d *ioctlapi.Device, want uint64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); bufferStats(t, d)[0] != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v buffers and pages, want %d buffers", bufferStats(t, d), want)
		}
	}
}

// pinnedKB is what a process is charged for pinned pages.
func pinnedKB(t *testing.T, pid string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmPin:")
	n, err := strconv.Atoi(strings.Fields(rest + " none")[0])
	if err != nil {
		t.Fatalf("no VmPin of %s in %s", pid, status)
	}
	return n
}

// Bytes go where they should, from and to any place of a buffer of any
// alignment, at once and queued, and nothing is pinned for it.
func TestBufferTransfers(t *testing.T) {
	d := openDevice(t)
	noBuffers(t, d)
	for _, c := range []struct {
		completion ioctlapi.Completion
		latency    time.Duration
	}{
		{ioctlapi.CompletionAuto, 0}, {ioctlapi.CompletionWorker, 0},
		{ioctlapi.CompletionTimer, time.Millisecond}, {ioctlapi.CompletionAuto, time.Millisecond},
	} {
		t.Run(fmt.Sprint(c.completion, c.latency), func(t *testing.T) {
			setConfig(t, d, func(f *ioctlapi.Config) { f.Completion, f.LatencyNS = c.completion, uint64(c.latency) })
			out, in := fill(anonymous(t, 70), 33), anonymous(t, 70)
			from, to := register(t, d, out[123:69*4096+7], false), register(t, d, in[77:], true)
			pinned, err := d.Stats()
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range []struct{ at, n int }{{0, 1}, {4096 - 123, 4096}, {4000, 97}, {1, 8 * 4096}, {5000, 60*4096 + 3}, {0, 69*4096 + 7 - 123}} {
				const gap = 40
				clear(in)
				pos := uint64(scratch + 1<<24 + 511*i)
				if n, err := move(d, from, r.at, r.n, pos, ioctlapi.TransferWrite); n != r.n || err != nil {
					t.Fatalf("%+v to the device: %d, %v", r, n, err)
				}
				if n, err := move(d, to, gap+r.at, r.n, pos, 0); n != r.n || err != nil {
					t.Fatalf("%+v from the device: %d, %v", r, n, err)
				}
				sent, got := out[123+r.at:][:r.n], in[77+gap+r.at:][:r.n]
				if sha256.Sum256(sent) != sha256.Sum256(got) {
					t.Errorf("%+v: what came back isn't what was sent", r)
				}
				clear(got)
				if !bytes.Equal(in, make([]byte, len(in))) {
					t.Errorf("%+v: a byte beside the range was written", r)
				}
			}
			after, err := d.Stats()
			if err != nil || after.PagesPinned != pinned.PagesPinned || after.PagesReleased != pinned.PagesReleased || after.InFlight != 0 {
				t.Errorf("after the transfers %+v, before %+v, %v", after, pinned, err)
			}
			if err := errors.Join(d.UnregisterBuffer(from), d.UnregisterBuffer(to)); err != nil {
				t.Error(err)
			}
		})
	}
}

// At the end of the store, and what a device that fails does with a buffer.
func TestBufferShort(t *testing.T) {
	d := openDevice(t)
	noBuffers(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	mem := fill(anonymous(t, 4), 5)
	id := register(t, d, mem, true)
	defer d.UnregisterBuffer(id)
	for _, latency := range []time.Duration{0, time.Millisecond} {
		slow(t, d, latency)
		if n, err := move(d, id, 9, 8192, config.Capacity-700, ioctlapi.TransferWrite); n != 700 || err != nil {
			t.Errorf("across the capacity: %d, %v", n, err)
		}
		if n, err := move(d, id, 9, 8192, config.Capacity, ioctlapi.TransferWrite); n != 0 || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("at the capacity: %d, %v, want ENOSPC", n, err)
		}
		if n, err := move(d, id, 9, 8192, config.Capacity, 0); n != 0 || err != nil {
			t.Errorf("a read at the capacity: %d, %v", n, err)
		}
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectShort, Every: 1})
		if n, err := move(d, id, 0, 8192, scratch, 0); n != 4096 || err != nil {
			t.Errorf("a short read: %d, %v, want 4096", n, err)
		}
		if err := d.ClearInject(ioctlapi.InjectNone); err != nil {
			t.Fatal(err)
		}
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1})
		if n, err := move(d, id, 0, 8192, scratch, 0); n != 0 || !errors.Is(err, unix.EIO) {
			t.Errorf("a failing read: %d, %v, want EIO", n, err)
		}
		if err := d.ClearInject(ioctlapi.InjectNone); err != nil {
			t.Fatal(err)
		}
	}
}

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

// Pages that the device wrote are dirty at the end of the transfer, and only
// they, then and after the buffer is gone.
func TestBufferDirty(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	for _, latency := range []time.Duration{0, time.Millisecond} {
		slow(t, d, latency)
		mem := fill(anonymous(t, 8), 1)
		id := register(t, d, mem, true)
		check := func(when string, want ...bool) {
			t.Helper()
			for i, dirty := range want {
				if got := pageIsDirty(t, &mem[i*page]); got != dirty {
					t.Errorf("latency %v, %s: page %d dirty: %v", latency, when, i, got)
				}
			}
		}
		check("registered", make([]bool, 8)...)
		if _, err := move(d, id, 0, 8*page, scratch, ioctlapi.TransferWrite); err != nil {
			t.Fatal(err)
		}
		check("read by the device", make([]bool, 8)...)
		if _, err := move(d, id, 3*page+5, page, scratch, 0); err != nil {
			t.Fatal(err)
		}
		want := []bool{3: true, 4: true, 7: false}
		check("two pages written by the device", want...)
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectShort, Every: 1})
		if n, err := move(d, id, 5*page, 2*page, scratch, 0); n != page || err != nil {
			t.Fatal(n, err)
		}
		if err := d.ClearInject(ioctlapi.InjectNone); err != nil {
			t.Fatal(err)
		}
		want[5] = true
		check("and half of two", want...)
		if err := d.UnregisterBuffer(id); err != nil {
			t.Fatal(err)
		}
		check("unregistered", want...)
	}
}

// pageIsDirty asks the kernel for the dirty flag of the page at p.
func pageIsDirty(t *testing.T, p *byte) bool {
	t.Helper()
	entry := func(path string, n uint64) uint64 {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var b [8]byte
		if _, err := f.ReadAt(b[:], int64(n*8)); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(b[:])
	}
	mapped := entry("/proc/self/pagemap", uint64(uintptr(unsafe.Pointer(p)))/uint64(os.Getpagesize()))
	if mapped>>63 == 0 || mapped<<9>>9 == 0 {
		t.Fatalf("no page at %p: %#x", p, mapped)
	}
	const dirty = 4 // KPF_DIRTY
	return entry("/proc/kpageflags", mapped<<9>>9)>>dirty&1 == 1
}

// Memory of other kinds than anonymous.
func TestBufferMemory(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	want := fill(make([]byte, 3*page), 90)
	if n, err := d.WriteAt(want, scratch); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	try := func(name string, mem []byte, fails error) {
		t.Helper()
		id, err := d.RegisterBuffer(mem, true)
		if !errors.Is(err, fails) {
			t.Errorf("%s: %v, want %v", name, err, fails)
		}
		if err != nil {
			return
		}
		if n, err := move(d, id, 0, len(mem), scratch, 0); n != len(mem) || err != nil || !bytes.Equal(mem, want) {
			t.Errorf("%s: %d, %v, as expected: %v", name, n, err, bytes.Equal(mem, want))
		}
		if err := d.UnregisterBuffer(id); err != nil {
			t.Error(err)
		}
	}
	file := func(name string, fd int, pos int64, flags int, fails error) {
		t.Helper()
		mem, err := unix.Mmap(fd, pos, 3*page, unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			t.Fatal(name, err)
		}
		defer unix.Munmap(mem)
		try(name, mem, fails)
	}
	memfd, err := unix.MemfdCreate("buffer", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)
	if err := unix.Ftruncate(memfd, int64(3*page)); err != nil {
		t.Fatal(err)
	}
	file("tmpfs, shared", memfd, 0, unix.MAP_SHARED, nil)
	file("tmpfs, private", memfd, 0, unix.MAP_PRIVATE, nil)
	file("the store, mapped", openRaw(t, 0), scratch+1<<25, unix.MAP_SHARED, nil)

	// A file system that wants to know who writes to its pages.
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(3 * page)); err != nil {
		t.Fatal(err)
	}
	var refused error
	if kernelAtLeast(t, 6, 5) {
		refused = unix.EFAULT
	}
	file("a file, shared", int(f.Fd()), 0, unix.MAP_SHARED, refused)
	file("a file, private", int(f.Fd()), 0, unix.MAP_PRIVATE, nil)
}

// The id goes at once and can be given out anew, the memory with the last
// transfer; closing the file works the same.
func TestBufferInFlight(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionTimer} {
		for _, closing := range []bool{false, true} {
			t.Run(fmt.Sprint(completion, " closing=", closing), func(t *testing.T) {
				setConfig(t, d, func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = uint64(time.Second), completion })
				user, err := ioctlapi.Open(ioctlapi.DefaultPath)
				if err != nil {
					t.Fatal(err)
				}
				defer user.Close()
				out := fill(anonymous(t, 8), 77)
				id := register(t, user, out, false)
				done := make(chan error)
				go func() {
					n, err := move(user, id, 3, 5*page, scratch, ioctlapi.TransferWrite)
					if err == nil && n != 5*page {
						err = fmt.Errorf("%d bytes", n)
					}
					done <- err
				}()
				waitInFlight(t, d, 1)
				if closing {
					err = user.Close()
				} else {
					err = user.UnregisterBuffer(id)
				}
				if err != nil {
					t.Error(err)
				}
				if s := bufferStats(t, d); s != [2]uint64{1, 8} {
					t.Errorf("with the transfer in flight %v buffers and pages", s)
				}
				if !closing {
					if _, err := move(user, id, 0, 1, 0, ioctlapi.TransferWrite); !errors.Is(err, unix.ENOENT) {
						t.Errorf("a transfer on the old id: %v, want ENOENT", err)
					}
					if again := register(t, user, fill(anonymous(t, 1), 1), true); again != id {
						t.Errorf("the next id is %d, want %d", again, id)
					}
				}
				select {
				case err := <-done:
					t.Errorf("unregistering ended the transfer early: %v", err)
					return
				default:
				}
				if err := <-done; err != nil {
					t.Error("the transfer:", err)
				}
				if !closing {
					waitBuffers(t, d, 1)
					if err := user.UnregisterBuffer(id); err != nil {
						t.Error(err)
					}
				}
				waitBuffers(t, d, 0)
				back := make([]byte, 5*page)
				if _, err := d.ReadAt(back, scratch); err != nil || !bytes.Equal(back, out[3:][:5*page]) {
					t.Errorf("%v; the bytes as expected: %v", err, bytes.Equal(back, out[3:][:5*page]))
				}
			})
		}
	}
}

// What was registered stays, whatever becomes of the mapping.
func TestBufferUnmapped(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	mem, err := unix.Mmap(-1, 0, 4*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte(nil), fill(mem, 8)...)
	id := register(t, d, mem, true)
	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, 4*page)
	if n, err := move(d, id, 0, 4*page, scratch, ioctlapi.TransferWrite); n != 4*page || err != nil {
		t.Fatal(n, err)
	}
	if _, err := d.ReadAt(back, scratch); err != nil || !bytes.Equal(back, want) {
		t.Errorf("%v; the bytes as expected: %v", err, bytes.Equal(back, want))
	}
	if err := d.UnregisterBuffer(id); err != nil {
		t.Error(err)
	}
}
