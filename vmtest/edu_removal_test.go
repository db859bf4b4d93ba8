// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/engine"
)

// A transfer that runs while the device is bound, started by whoever had it before,
// reaches nobody's memory, and the driver works when it's over.
func TestEduBoundBusy(t *testing.T) {
	edu(t, eduOpenPath)
	dir, name := eduFunction(t, eduOpenPath)
	mem := fill(anonymous(t, 1), 5)
	want, at := bytes.Clone(mem), physical(t, mem)
	buffer := anonymous(t, 1)
	var fd int
	for try := 0; ; try++ {
		eduBindBusy(t, dir, name, at)
		fd = eduRaw(t, eduOpenPath, unix.O_DIRECT)
		if _, err := unix.Pread(fd, buffer, 0); errors.Is(err, unix.EIO) {
			break // it still runs, so it ran when the device was bound
		}
		if try == 5 && checked(t) {
			t.Skip("a kernel that checks everything takes longer to bind the device than a transfer takes")
		}
		if try == 15 {
			t.Fatal("the transfer is always over before the device is bound")
		}
	}
	time.Sleep(3 * eduTransfer)
	if physical(t, mem) != at {
		t.Fatal("the page moved")
	}
	if !bytes.Equal(mem, want) {
		t.Error("the device wrote to memory that it was never given")
	}
	fill(buffer, 6)
	got := anonymous(t, 1)
	if n, err := unix.Pwrite(fd, buffer, 0); n != eduSize || err != nil {
		t.Fatal("afterwards:", n, err)
	}
	if n, err := unix.Pread(fd, got, 0); n != eduSize || err != nil || !bytes.Equal(got, buffer) {
		t.Error("afterwards:", n, err)
	}
}

// eduBindBusy starts a transfer from an unbound device's buffer to bus address at
// and binds the device.
func eduBindBusy(t *testing.T, dir, name string, at uint64) {
	t.Helper()
	eduWrite(t, eduFolder+"unbind", name)
	defer eduBind(t, name, eduOpenPath)
	f, err := os.OpenFile(filepath.Join(dir, "resource0"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	regs, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(regs)
	// Source, destination, count, command: as the device's manual has them.
	reg := func(offset uintptr) *uint64 { return (*uint64)(unsafe.Pointer(&regs[offset])) }
	atomic.StoreUint64(reg(0x80), 0x40000)
	atomic.StoreUint64(reg(0x88), at)
	atomic.StoreUint64(reg(0x90), eduSize)
	const run, toMemory = 1, 2
	atomic.StoreUint64(reg(0x98), run|toMemory)
	if atomic.LoadUint64(reg(0x98))&run == 0 {
		t.Fatal("the device doesn't take a transfer")
	}
}

// Unbound, and then taken off the bus, under requests: what the hardware works on
// succeeds, the rest is ENODEV at once; then it's there again.
func TestEduRemoval(t *testing.T) {
	remove := map[string]func(dir, name string){
		"unbind": func(dir, name string) { eduWrite(t, eduFolder+"unbind", name) },
		"off the bus": func(dir, name string) {
			eduWrite(t, filepath.Join(dir, "remove"), "1")
		},
	}
	comeBack := map[string]func(name string){
		"unbind": func(name string) { eduBind(t, name, eduOpenPath) },
		"off the bus": func(string) {
			eduWrite(t, "/sys/bus/pci/rescan", "1")
			eduAwait(t, eduOpenPath)
		},
	}
	for how, take := range remove {
		t.Run(how, func(t *testing.T) {
			d := edu(t, eduOpenPath)
			noPins(t, d)
			dir, name := eduFunction(t, eduOpenPath)
			direct, plain := eduRaw(t, eduOpenPath, unix.O_DIRECT), eduRaw(t, eduOpenPath, 0)
			const requests = 8
			aio, mem := newAIO(t, requests), anonymous(t, requests+3)
			for i := range requests {
				if err := aio.submit(control(aioRead, direct, mem[i*eduSize:][:eduSize], 0)); err != nil {
					t.Fatal(err)
				}
			}
			ends := make(chan error)
			for i, call := range []func(b []byte) (int, error){
				func(b []byte) (int, error) { return unix.Pread(direct, b, 0) },
				func(b []byte) (int, error) { return unix.Pwrite(plain, b, 0) },
				func(b []byte) (int, error) { n, err := d.ReadAt(b, 0); return int(n), err },
			} {
				go func() { _, err := call(mem[(requests+i)*eduSize:][:eduSize]); ends <- err }()
			}
			waitBegun := time.Now().Add(10 * time.Second)
			for s, err := d.Stats(); s.Reads+s.Writes < requests+3; s, err = d.Stats() {
				if err != nil || time.Now().After(waitBegun) {
					t.Fatalf("%+v, %v", s, err)
				}
				time.Sleep(time.Millisecond)
			}
			began := time.Now()
			take(dir, name)
			t.Logf("gone within %v", time.Since(began))
			for range 3 {
				if err := <-ends; !errors.Is(err, unix.ENODEV) {
					t.Errorf("a caller was told %v, want ENODEV", err)
				}
			}
			results := map[int64]int{}
			for range requests {
				results[aio.wait(10*time.Second).res]++
			}
			if results[eduSize] == 0 || results[-int64(unix.ENODEV)] == 0 || results[eduSize]+results[-int64(unix.ENODEV)] != requests {
				t.Errorf("native AIO was told %v, want pages for those that were done, ENODEV for the rest", results)
			}
			aio.none()
			if n, err := unix.Pread(direct, mem[:eduSize], 0); !errors.Is(err, unix.ENODEV) {
				t.Errorf("afterwards: %d, %v", n, err)
			}
			comeBack[how](name)
			fresh := eduRaw(t, eduOpenPath, unix.O_DIRECT)
			if n, err := unix.Pread(fresh, mem[:eduSize], 0); n != eduSize || err != nil {
				t.Errorf("the new device: %d, %v", n, err)
			}
			if n, err := unix.Pread(direct, mem[:eduSize], 0); !errors.Is(err, unix.ENODEV) {
				t.Errorf("the old file: %d, %v", n, err)
			}
		})
	}
}

// Unbound and bound again under programs that use it by every way in.
func TestEduRemovalUnderLoad(t *testing.T) {
	d := edu(t, eduOpenPath)
	_, name := eduFunction(t, eduOpenPath)
	engines := []string{"preadv", "aio", "io_uring", "io_uring-iopoll", "ioctl", "splice"}
	if hasCommands(t, d) {
		engines = append(engines, "uring_cmd", "uring_cmd-iopoll")
	}
	pins := kernelPins(t)
	for round := range 4 {
		var children []*helper
		for _, name := range engines {
			children = append(children, startHelper(t, "until-gone", nil, name, eduOpenPath))
		}
		for i, c := range children {
			if said := c.line(t); said != "begins" {
				t.Fatalf("%s: %s", engines[i], said)
			}
		}
		time.Sleep(300*time.Millisecond + time.Duration(round)*77*time.Millisecond)
		eduWrite(t, eduFolder+"unbind", name)
		for i, c := range children {
			kill := time.AfterFunc(60*time.Second, func() { c.Process.Kill() })
			said, err := c.out.ReadString('\n')
			ended := c.Wait()
			if !kill.Stop() || said != "gone\n" || err != nil || ended != nil {
				t.Errorf("%s: %q, %v, %v, want to hear that the device is gone", engines[i], said, err, ended)
			}
		}
		eduBind(t, name, eduOpenPath)
	}
	for deadline := time.Now().Add(10 * time.Second); kernelPins(t) != pins; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("/proc/vmstat says that %d pages are pinned, it was %d", kernelPins(t), pins)
		}
	}
}

// helperUntilGone keeps requests of an engine in flight until the device is taken
// away: each succeeds, or fails with ENODEV once one has, and all are told.
func helperUntilGone(args []string) error {
	if len(args) != 2 {
		return errors.New("want ENGINE PATH")
	}
	const depth, size = 3, 512
	f, err := engine.OpenFile(args[1], engine.FileOptions{Read: true, Write: true, Direct: true})
	if err != nil {
		return err
	}
	pool, err := engine.NewPool(engine.PoolOptions{Count: depth, Size: size})
	if err != nil {
		return err
	}
	q, err := engine.Open(args[0], f, engine.Options{Depth: depth, Pool: pool})
	if err != nil {
		return err
	}
	var free []*engine.Op
	for i := range depth {
		free = append(free, &engine.Op{Kind: engine.Read, Buf: pool.TryGet().Data, Offset: int64(i * size)})
	}
	fmt.Println("begins")
	for gone := false; !gone || q.InFlight() > 0; {
		if gone {
			free = free[:0]
		}
		for len(free) > 0 {
			n, err := q.Submit(free)
			if err != nil {
				return err
			}
			free = free[n:]
		}
		if free, err = q.Reap(context.Background(), 1, nil); err != nil {
			return err
		}
		for _, op := range free {
			if errors.Is(op.Err, unix.ENODEV) {
				gone = true
			} else if op.Err != nil || op.N != size {
				return fmt.Errorf("%s: told %d, %v", args[0], op.N, op.Err)
			}
		}
	}
	if err := q.Close(); err != nil {
		return err
	}
	fmt.Println("gone")
	return nil
}
