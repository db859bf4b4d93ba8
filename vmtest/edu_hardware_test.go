// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/trace/tracefs"
)

// physical is the address of the page that b begins in, as the bus sees it without an IOMMU.
func physical(t *testing.T, b []byte) uint64 {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := uintptr(os.Getpagesize())
	var entry [8]byte
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if _, err := f.ReadAt(entry[:], int64(at/page*8)); err != nil {
		t.Fatal(err)
	}
	e := binary.LittleEndian.Uint64(entry[:])
	if e>>63 == 0 || e<<9>>9 == 0 {
		t.Fatalf("page %#x isn't there: %#x", at, e)
	}
	return e << 9 >> 9 * uint64(page)
}

// What the hardware is given is the page itself where it reaches it, and else
// a stand-in that it does reach; the bytes are right either way.
func TestEduMapping(t *testing.T) {
	edu(t, eduPath)
	edu(t, eduOpenPath)
	_, open := eduFunction(t, eduOpenPath)
	trace, err := tracefs.Open(tracefs.Options{Name: fmt.Sprintf("edu-%d", os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	defer trace.Close()
	if err := errors.Join(trace.Enable("dio/dio_dma_map"), trace.Enable("dio/dio_dma_unmap"), trace.Enable("swiotlb")); err != nil {
		t.Fatal(err)
	}
	const reach28, reach32 = 1 << 28, 1 << 32
	pages := eduPages(t, []eduRange{{0, reach28}, {reach28, reach32}, {reach32, 1 << 52}})
	near, far, beyond := pages[0], pages[1], pages[2]

	for _, c := range []struct {
		name, path string
		bits       int // 0: as it was bound
		buffer     []byte
		way        string
	}{
		{"far from 28 bits", eduPath, 0, far, "bounced"},
		{"near 28 bits", eduPath, 0, near, "direct"},
		{"above 4 GiB, 28 bits", eduPath, 0, beyond, "bounced"},
		{"far, 64 bits", eduOpenPath, 64, far, "direct"},
		{"above 4 GiB, 64 bits", eduOpenPath, 64, beyond, "direct"},
		{"far, 32 bits", eduOpenPath, 32, far, "direct"},
		{"above 4 GiB, 32 bits", eduOpenPath, 32, beyond, "remapped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.bits != 0 {
				eduRebind(t, c.bits)
			}
			d := edu(t, c.path)
			noPins(t, d)
			fd, bits := eduRaw(t, c.path, unix.O_DIRECT), c.bits
			if bits == 0 {
				bits = 28
			}
			before, err := d.Stats()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := trace.Drain(); err != nil {
				t.Fatal(err)
			}
			fill(c.buffer, byte(len(c.name)))
			want := bytes.Clone(c.buffer)
			if n, err := unix.Pwrite(fd, c.buffer, 0); n != eduSize || err != nil {
				t.Fatal(n, err)
			}
			clear(c.buffer)
			at := physical(t, c.buffer)
			if n, err := unix.Pread(fd, c.buffer, 0); n != eduSize || err != nil {
				t.Fatal(n, err)
			}
			if !bytes.Equal(c.buffer, want) {
				t.Error("other bytes came back")
			}
			after, err := d.Stats()
			if err != nil {
				t.Fatal(err)
			}
			events, err := trace.Drain()
			if err != nil {
				t.Fatal(err)
			}
			maps, swiotlb := 0, 0
			for _, e := range events {
				if e.Name == "swiotlb_bounced" {
					swiotlb++
				}
				if e.Name != "dio_dma_map" {
					continue
				}
				maps++
				address := e.Uint("address")
				if !e.Has(c.way) || (address == at) != (c.way == "direct") || bits < 64 && address+eduSize > 1<<bits {
					t.Errorf("page at %#x, %d bits: mapped %v at %#x, want %s", at, bits, e.Words, address, c.way)
				}
			}
			if maps != 2 {
				t.Errorf("%d mappings seen, want 2: %+v", maps, events)
			}
			if (swiotlb > 0) != (c.way == "remapped") {
				t.Errorf("%d swiotlb bounces", swiotlb)
			}
			if bounced := after.DMABounced - before.DMABounced; bounced != 2 && c.way == "bounced" || bounced != 0 && c.way != "bounced" {
				t.Errorf("%d requests counted as bounced", bounced)
			}
			t.Logf("page at %#x: %s, %d swiotlb bounces", at, c.way, swiotlb)
		})
	}
	for _, bits := range []string{"0", "65", "20"} {
		eduParameter(t, "edu_dma_bits", bits)
		eduWrite(t, eduFolder+"unbind", open)
		if err := os.WriteFile(eduFolder+"bind", []byte(open), 0); err == nil {
			t.Errorf("bound with %s bits", bits)
		}
		eduWrite(t, "/sys/module/dio/parameters/edu_dma_bits", "28")
		eduBind(t, open, eduOpenPath)
	}
}

// Without MSI the interrupt comes by its line, shared with others.
func TestEduInterruptLine(t *testing.T) {
	edu(t, eduOpenPath)
	dir, name := eduFunction(t, eduOpenPath)
	kind := func() string {
		text, err := os.ReadFile("/proc/interrupts")
		if err != nil {
			t.Fatal(err)
		}
		irq, err := os.ReadFile(filepath.Join(dir, "irq"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if number, rest, _ := strings.Cut(strings.TrimSpace(line), ":"); number == strings.TrimSpace(string(irq)) {
				return rest
			}
		}
		return ""
	}
	entries, err := os.ReadDir(filepath.Join(dir, "msi_irqs"))
	if err != nil || len(entries) != 1 {
		t.Errorf("bound with MSI: %d vectors, %v", len(entries), err)
	}
	rebind := func(msi string) {
		eduWrite(t, eduFolder+"unbind", name)
		eduWrite(t, filepath.Join(dir, "msi_bus"), msi)
		eduBind(t, name, eduOpenPath)
	}
	t.Cleanup(func() { rebind("1") })
	rebind("0")
	if line := kind(); !strings.Contains(line, "dio-edu") || strings.Contains(line, "MSI") {
		t.Errorf("the interrupt's line is %q", line)
	} else {
		t.Log(strings.TrimSpace(line))
	}
	d := edu(t, eduOpenPath)
	fd, mem := eduRaw(t, eduOpenPath, unix.O_DIRECT), fill(anonymous(t, 2), 3)
	for range 3 {
		if n, err := unix.Pwrite(fd, mem[:eduSize], 0); n != eduSize || err != nil {
			t.Fatal(n, err)
		}
		if n, err := unix.Pread(fd, mem[eduSize:], 0); n != eduSize || err != nil || !bytes.Equal(mem[:eduSize], mem[eduSize:]) {
			t.Fatal(n, err)
		}
	}
	if s, err := d.Stats(); err != nil || s.Interrupts != 6 {
		t.Errorf("%d interrupts, %v", s.Interrupts, err)
	}
}

// msiControl is where the function's MSI control word stands in its configuration space.
func msiControl(t *testing.T, config *os.File) int64 {
	t.Helper()
	at := func(offset int64) byte {
		var b [1]byte
		if _, err := config.ReadAt(b[:], offset); err != nil {
			t.Fatal(err)
		}
		return b[0]
	}
	for c := int64(at(0x34)); c != 0; c = int64(at(c + 1)) {
		if at(c) == 0x05 {
			return c + 2
		}
	}
	t.Fatal("no MSI capability")
	return 0
}

// A transfer whose interrupt doesn't come in time is EIO and nothing hangs: one
// that is late, whose device is kept from memory until it's done; one that is lost.
func TestEduTimeout(t *testing.T) {
	d := edu(t, eduOpenPath)
	noPins(t, d)
	fd, mem := eduRaw(t, eduOpenPath, unix.O_DIRECT), anonymous(t, 1)
	before, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Pwrite(fd, fill(mem, 1), 0); n != eduSize || err != nil {
		t.Fatal(n, err)
	}
	const timeout = "/sys/module/dio/parameters/edu_timeout_ms"
	eduParameter(t, "edu_timeout_ms", "20")
	fill(mem, 2)
	want := bytes.Clone(mem)
	begin := time.Now()
	if _, err := unix.Pread(fd, mem, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("given up after 20 ms: %v, want EIO", err)
	}
	// It's at it still.
	if _, err := unix.Pread(fd, mem, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("of a device that is busy: %v, want EIO", err)
	}
	late := time.Since(begin)
	time.Sleep(3 * eduTransfer)
	if !bytes.Equal(mem, want) {
		t.Error("the device wrote to memory that was given back")
	}
	eduWrite(t, timeout, "5000")
	if n, err := unix.Pread(fd, mem, 0); n != eduSize || err != nil || !bytes.Equal(mem, fill(make([]byte, eduSize), 1)) {
		t.Errorf("afterwards: %d, %v", n, err)
	}
	// A slow machine came after the first transfer's end: the second was begun then.
	most := uint64(1)
	if late > eduTransfer {
		most++
	}
	if s, err := d.Stats(); err != nil || s.DMATimeouts == before.DMATimeouts || s.DMATimeouts-before.DMATimeouts > most {
		t.Errorf("%d timeouts counted, want 1 to %d, %v", s.DMATimeouts-before.DMATimeouts, most, err)
	}

	// The kernel isn't told that MSI is off, so nobody listens to the line.
	dir, _ := eduFunction(t, eduOpenPath)
	config, err := os.OpenFile(filepath.Join(dir, "config"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer config.Close()
	control := msiControl(t, config)
	var word [2]byte
	if _, err := config.ReadAt(word[:], control); err != nil {
		t.Fatal(err)
	}
	word[0] &^= 1
	if _, err := config.WriteAt(word[:], control); err != nil {
		t.Fatal(err)
	}
	eduWrite(t, timeout, "400")
	began := time.Now()
	if _, err := unix.Pread(fd, mem, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("no interrupt: %v, want EIO", err)
	}
	if took := time.Since(began); took < 400*time.Millisecond || took > 20*time.Second {
		t.Errorf("given up after %v, want 400 ms", took)
	}
	word[0] |= 1
	if _, err := config.WriteAt(word[:], control); err != nil {
		t.Fatal(err)
	}
	eduWrite(t, timeout, "5000")
	if n, err := unix.Pread(fd, mem, 0); n != eduSize || err != nil {
		t.Errorf("with the interrupt again: %d, %v", n, err)
	}
}

// io_cancel: not what the hardware works on, but all behind it.
func TestEduCancel(t *testing.T) {
	d := edu(t, eduPath)
	noPins(t, d)
	const requests = 12
	fd, aio, mem := eduRaw(t, eduPath, unix.O_DIRECT), newAIO(t, requests), fill(anonymous(t, requests), 1)
	if n, err := unix.Pwrite(fd, anonymous(t, 1), 0); n != eduSize || err != nil {
		t.Fatal(n, err)
	}
	before := bytes.Clone(mem)
	var controls []*aioControl
	for i := range requests {
		controls = append(controls, control(aioRead, fd, mem[i*eduSize:][:eduSize], 0))
		controls[i].data = uint64(i)
		if err := aio.submit(controls[i]); err != nil {
			t.Fatal(err)
		}
	}
	cancelled := map[uint64]bool{}
	for i := requests - 1; i >= 0; i-- {
		var e aioEvent
		_, _, errno := unix.Syscall(unix.SYS_IO_CANCEL, aio.id, uintptr(unsafe.Pointer(controls[i])), uintptr(unsafe.Pointer(&e)))
		switch errno {
		case unix.EINPROGRESS:
			cancelled[uint64(i)] = true
		case unix.EAGAIN, unix.EINVAL: // on the hardware, or done
		default:
			t.Errorf("io_cancel: %v", errno)
		}
	}
	if len(cancelled) < requests/2 || cancelled[0] {
		t.Errorf("%d of %d were cancelled, the first one: %v", len(cancelled), requests, cancelled[0])
	}
	for range requests {
		e := aio.wait(20 * time.Second)
		want := int64(eduSize)
		if cancelled[e.data] {
			want = -int64(unix.ECANCELED)
		}
		at := int(e.data) * eduSize
		if e.res != want || bytes.Equal(mem[at:][:eduSize], before[at:][:eduSize]) != cancelled[e.data] {
			t.Errorf("request %d, cancelled: %v, ended with %d", e.data, cancelled[e.data], e.res)
		}
	}
	aio.none()
	if s, err := d.Stats(); err != nil || s.InFlight != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
