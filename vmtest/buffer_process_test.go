// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// bufferHelper names what a child of these tests is to do.
const bufferHelper = "DIO_BUFFER_HELPER"

// bufferChild is this program as a child that plays a role, with the device as its
// third descriptor.
func bufferChild(t *testing.T, role string, device *ioctlapi.Device) *exec.Cmd {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(device.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "device")
	t.Cleanup(func() { file.Close() })
	cmd := exec.Command(os.Args[0], "-test.run=^TestBufferHelper$", "-test.v")
	cmd.Env = append(os.Environ(), bufferHelper+"="+role)
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = os.Stderr
	return cmd
}

// finish runs a helper to its end.
func finish(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// The children's side: a test only in name.
func TestBufferHelper(t *testing.T) {
	d := ioctlapi.FromFD(ioctlapi.Linux{}, 3, "inherited")
	switch os.Getenv(bufferHelper) {
	case "":
		t.Skip("other tests start it, as a child of theirs")
	case "register": // and go, leaving the buffer to who has the file
		register(t, d, fill(anonymous(t, 16), 99), true)
	case "rlimit":
		underRlimit(t, d)
	case "clean":
		for _, wayOut := range []string{"unregister", "close", "exit"} {
			useBuffers(t, wayOut)
		}
	case "storm":
		fmt.Println("ready")
		storm(t, d)
	}
}

// underRlimit is an unprivileged process's view of RLIMIT_MEMLOCK.
func underRlimit(t *testing.T, d *ioctlapi.Device) {
	if unix.Geteuid() == 0 {
		t.Fatal("it runs as root")
	}
	page := os.Getpagesize()
	limit := func(pages int) {
		t.Helper()
		l := unix.Rlimit{Cur: uint64(pages * page), Max: uint64(16 * page)}
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
			t.Fatal(err)
		}
	}
	charged := func(pages int) {
		t.Helper()
		if kb := pinnedKB(t, "self"); kb != pages*page/1024 {
			t.Errorf("VmPin %d kB, want %d pages", kb, pages)
		}
	}
	refused := func(what string, mem []byte, want error) {
		t.Helper()
		if id, err := d.RegisterBuffer(mem, true); !errors.Is(err, want) {
			t.Errorf("%s: %d, %v, want %v", what, id, err, want)
		}
	}
	mem := anonymous(t, 17)
	limit(16)
	refused("a page too many", mem, unix.ENOMEM)
	charged(0)
	refused("a page too many, begun", mem[:16*page+1], unix.ENOMEM)
	refused("a byte on either side", mem[page-1:][:15*page+2], unix.ENOMEM)
	all := register(t, d, mem[page:], true)
	charged(16)
	refused("over what is left", mem[:1], unix.ENOMEM)
	charged(16)
	if err := d.UnregisterBuffer(all); err != nil {
		t.Error(err)
	}
	charged(0)
	part := register(t, d, mem[1:page+1], false)
	charged(2)
	if err := unix.Mprotect(mem[10*page:11*page], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	refused("a hole", mem[4*page:16*page], unix.EFAULT)
	charged(2)
	rest := register(t, d, mem[:10*page], true)
	refused("over what is left", mem[:5*page], unix.ENOMEM)
	charged(12)
	limit(0)
	refused("a limit of nothing", mem[:1], unix.EPERM)
	if err := errors.Join(d.UnregisterBuffer(part), d.UnregisterBuffer(rest)); err != nil {
		t.Error(err)
	}
	charged(0)
}

// RLIMIT_MEMLOCK binds who has no CAP_IPC_LOCK, is charged before the first pin
// and given back on every way out. A process that ends gives back all.
func TestBufferMemlock(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	cmd := bufferChild(t, "rlimit", d)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	finish(t, cmd)

	// The same process: exempt with the capability, bound without.
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_MEMLOCK, &before)
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: uint64(page), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	mem := anonymous(t, 8)
	id := register(t, d, mem, true)
	var bound error
	unprivileged(t, func() { _, bound = d.RegisterBuffer(mem[:1], true) })
	if !errors.Is(bound, unix.ENOMEM) {
		t.Errorf("without CAP_IPC_LOCK: %v, want ENOMEM", bound)
	}
	if err := d.UnregisterBuffer(id); err != nil {
		t.Error(err)
	}
	unprivileged(t, func() {
		if id, bound = d.RegisterBuffer(mem[:page], true); bound == nil {
			bound = d.UnregisterBuffer(id)
		}
	})
	if bound != nil {
		t.Errorf("a page of a limit of one: %v", bound)
	}
}

// A buffer outlives the process that registered it, for who has its file.
func TestBufferPassedOn(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	finish(t, bufferChild(t, "register", d))
	if s := bufferStats(t, d); s != [2]uint64{1, 16} {
		t.Fatalf("after its process ended %v buffers and pages", s)
	}
	want, back := fill(make([]byte, 16*page), 99), make([]byte, 16*page)
	if n, err := move(d, 1, 0, len(want), scratch, ioctlapi.TransferWrite); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	if _, err := d.ReadAt(back, scratch); err != nil || !bytes.Equal(back, want) {
		t.Errorf("%v; the bytes of who has gone: %v", err, bytes.Equal(back, want))
	}
	if n, err := move(d, 1, 7, page, scratch, 0); n != page || err != nil {
		t.Errorf("into it: %d, %v", n, err)
	}
	if kb := pinnedKB(t, "self"); kb != 0 {
		t.Errorf("another process's buffer is charged to this one: %d kB", kb)
	}
	if err := d.UnregisterBuffer(1); err != nil {
		t.Error(err)
	}
}

// A child by fork() uses its parent's buffer, which is the parent's memory; it
// is charged nothing, and its end takes nothing away. What the parent writes
// after fork() is what the device reads, though the page was shared then.
func TestBufferFork(t *testing.T) {
	d, page := openDevice(t), os.Getpagesize()
	noBuffers(t, d)
	mem, reader := anonymous(t, 4), anonymous(t, 4) // reader isn't touched yet
	copy(mem, "parent's")
	id, readID := register(t, d, mem, true), register(t, d, reader, false)
	if n, err := d.WriteAt([]byte("device's"), scratch); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	// Prepared before, for the child may only make system calls.
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	in := &ioctlapi.Transfer{Flags: ioctlapi.TransferBuffer, Addr: 8, Length: 8, Offset: scratch, Buffer: id}
	out := &ioctlapi.Transfer{Flags: ioctlapi.TransferBuffer | ioctlapi.TransferWrite, Length: 16, Offset: scratch + 4096, Buffer: id}
	in.Size, out.Size = uint32(unsafe.Sizeof(*in)), uint32(unsafe.Sizeof(*out))
	command := uintptr(3<<30 | unsafe.Sizeof(*in)<<16 | 0xD1<<8 | nrTransfer)
	fd, gate, hold := uintptr(d.FD()), uintptr(pipe[0]), make([]byte, 1)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, errno := unix.RawSyscall(unix.SYS_FORK, 0, 0, 0)
	if errno != 0 {
		t.Fatal("fork:", errno)
	}
	if pid == 0 {
		mem[0] = 'c' // its own copy, from here on
		_, _, first := unix.RawSyscall(unix.SYS_IOCTL, fd, command, uintptr(unsafe.Pointer(in)))
		_, _, second := unix.RawSyscall(unix.SYS_IOCTL, fd, command, uintptr(unsafe.Pointer(out)))
		unix.RawSyscall(unix.SYS_READ, gate, uintptr(unsafe.Pointer(&hold[0])), 1)
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(first|second), 0, 0)
		}
	}
	copy(reader[page:], "after the fork")
	copy(mem[page:], "and this")
	if kb, want := pinnedKB(t, "self"), 8*page/1024; kb != want {
		t.Errorf("the parent's VmPin %d kB, want %d", kb, want)
	}
	if kb := pinnedKB(t, strconv.Itoa(int(pid))); kb != 0 {
		t.Errorf("the child's VmPin %d kB", kb)
	}
	if _, err := unix.Write(pipe[1], hold); err != nil {
		t.Error(err)
	}
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(int(pid), &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("the child ended with %#x", status)
	}
	if got := string(mem[:16]); got != "parent'sdevice's" {
		t.Errorf("the parent has %q", got)
	}
	for _, c := range []struct {
		id   uint32
		want string
	}{{readID, "after the fork"}, {id, "and this"}} {
		got := make([]byte, len(c.want))
		if n, err := move(d, c.id, page, len(got), scratch, ioctlapi.TransferWrite); n != len(got) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if _, err := d.ReadAt(got, scratch); err != nil || string(got) != c.want {
			t.Errorf("the device read %q, %v, want %q", got, err, c.want)
		}
	}
	got := make([]byte, 16)
	if _, err := d.ReadAt(got, scratch+4096); err != nil || string(got) != "parent'sdevice's" {
		t.Errorf("the child's transfer wrote %q, %v", got, err)
	}
	if err := errors.Join(d.UnregisterBuffer(id), d.UnregisterBuffer(readID), unix.Close(pipe[0]), unix.Close(pipe[1])); err != nil {
		t.Error(err)
	}
}

// storm registers, moves and unregisters until it is killed.
func storm(t *testing.T, d *ioctlapi.Device) {
	page := os.Getpagesize()
	for range 3 {
		go func() {
			mem := anonymous(t, 400)
			for {
				id, err := d.RegisterBuffer(mem[:(1+rand.IntN(399))*page], true)
				if err != nil {
					t.Error(err)
					os.Exit(1)
				}
				for range rand.IntN(3) {
					if _, err := move(d, id, 0, page, scratch, uint32(rand.IntN(2))); err != nil {
						t.Error(err)
						os.Exit(1)
					}
				}
				if err := d.UnregisterBuffer(id); err != nil {
					t.Error(err)
					os.Exit(1)
				}
			}
		}()
	}
	select {}
}

// A process killed at any moment of a buffer's life leaves nothing.
func TestBufferKilled(t *testing.T) {
	d := openDevice(t)
	noBuffers(t, d)
	setConfig(t, d, func(c *ioctlapi.Config) { c.LatencyNS = uint64(2 * time.Millisecond) })
	var moved uint64
	for range 25 {
		// A file of the child's own: ours would keep its buffers.
		own, err := ioctlapi.Open(ioctlapi.DefaultPath)
		if err != nil {
			t.Fatal(err)
		}
		cmd := bufferChild(t, "storm", own)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(cmd.Start(), own.Close(), cmd.ExtraFiles[0].Close())
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() != "ready" {
		}
		time.Sleep(time.Duration(rand.IntN(60000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if rest, _ := io.ReadAll(out); bytes.Contains(rest, []byte("FAIL")) {
			t.Errorf("before it was killed: %s", rest)
		}
		cmd.Wait()
		waitBuffers(t, d, 0)
		waitInFlight(t, d, 0)
		s, err := d.Stats()
		if err != nil || s.PagesPinned != s.PagesReleased || s.BufferPages != 0 {
			t.Fatalf("after the kill: %+v, %v", s, err)
		}
		moved = s.BytesRead + s.BytesWritten
	}
	if moved == 0 {
		t.Error("nothing was ever moved")
	}
}

// useBuffers is a clean use, in all ways out: unregister, close, exit.
func useBuffers(t *testing.T, wayOut string) {
	d, page := openDevice(t), os.Getpagesize()
	mem, read := fill(anonymous(t, 64), 3), anonymous(t, 8)
	in, out, unused := register(t, d, mem, true), register(t, d, read[5:], false), register(t, d, anonymous(t, 16), true)
	for i := range 20 {
		if _, err := move(d, in, 100*i, 3*page, scratch, uint32(i%2)); err != nil {
			t.Fatal(err)
		}
		if _, err := move(d, out, i, page, scratch, ioctlapi.TransferWrite); err != nil {
			t.Fatal(err)
		}
	}
	switch wayOut {
	case "unregister":
		if err := errors.Join(d.UnregisterBuffer(in), d.UnregisterBuffer(out), d.UnregisterBuffer(unused)); err != nil {
			t.Fatal(err)
		}
	case "close":
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	case "exit":
		os.Exit(0)
	}
}

// The auditor finds nothing in a clean use, and sees every pin come and go:
// those that outlive the call that made them belong to the file.
func TestBufferAudited(t *testing.T) {
	d := openDevice(t)
	noBuffers(t, d)
	slow(t, d, time.Millisecond)
	t.Setenv(bufferHelper, "clean")
	o, v := audit(t, os.Args[0], "-test.v", "-test.run=^TestBufferHelper$")
	if o.status != 0 || v.Verdict != "clean" || v.Lost.Events != 0 || v.Lost.UntrackedPages != 0 {
		t.Errorf("exit %d, verdict %s, findings %+v\n%s", o.status, v.Verdict, v.Findings, o.stderr)
	}
	const want = 3 * (64 + 8 + 16)
	if v.Pins.Taken != v.Pins.Released || v.Pins.Outstanding != 0 || v.Pins.Taken < want {
		t.Errorf("pins %+v, want %d or more, all released", v.Pins, want)
	}
}
