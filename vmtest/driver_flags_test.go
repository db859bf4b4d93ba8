// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// rwWays are the interfaces that take RWF_* flags. Each moves buf and returns
// what came of it.
func rwWays(t *testing.T) map[string]func(fd int, write bool, buf []byte, pos int64, flags int) (int, error) {
	aio, ring := newAIO(t, 4), newUring(t, 4, 0)
	return map[string]func(int, bool, []byte, int64, int) (int, error){
		"preadv2": func(fd int, write bool, buf []byte, pos int64, flags int) (int, error) {
			trap := uintptr(unix.SYS_PREADV2)
			if write {
				trap = unix.SYS_PWRITEV2
			}
			return vectored(trap, fd, iovecs(buf), pos, flags)
		},
		"aio": func(fd int, write bool, buf []byte, pos int64, flags int) (int, error) {
			c := control(aioRead, fd, buf, pos)
			if write {
				c.opcode = aioWrite
			}
			c.rwFlags = uint32(flags)
			if err := aio.submit(c); err != nil {
				return 0, err
			}
			return result(aio.wait(10 * time.Second).res)
		},
		"io_uring": func(fd int, write bool, buf []byte, pos int64, flags int) (int, error) {
			e := entry(uringRead, fd, buf, pos)
			if write {
				e.opcode = uringWrite
			}
			e.opFlags = uint32(flags)
			ring.submit(e)
			return result(int64(ring.wait(10 * time.Second).res))
		},
	}
}

// result is what an asynchronous request was told, as a call would return it.
func result(n int64) (int, error) {
	if n < 0 {
		return 0, unix.Errno(-n)
	}
	return int(n), nil
}

// kernelAtLeast tells whether the kernel is of a release or newer.
func kernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var a, b int
	if n, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); n != 2 {
		t.Fatal(err)
	}
	return a > major || a == major && b >= minor
}

// Every RWF_* flag, by every interface that takes it, with O_DIRECT and without.
func TestDriverFlags(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	ways := rwWays(t)
	var dontCache error
	if !kernelAtLeast(t, 6, 14) {
		dontCache = unix.EOPNOTSUPP
	}
	mem, back := fill(anonymous(t, 2), 11), anonymous(t, 2)
	for _, c := range []struct {
		name        string
		flag        int
		read, write error
	}{
		{"none", 0, nil, nil},
		{"DSYNC", unix.RWF_DSYNC, nil, nil},
		{"SYNC", unix.RWF_SYNC, nil, nil},
		{"NOWAIT", unix.RWF_NOWAIT, nil, nil},
		// A write that begins at the end, which is fixed.
		{"APPEND", unix.RWF_APPEND, nil, unix.ENOSPC},
		{"HIPRI", unix.RWF_HIPRI, nil, nil},
		{"DONTCACHE", unix.RWF_DONTCACHE, dontCache, dontCache},
		{"ATOMIC", unix.RWF_ATOMIC, unix.EOPNOTSUPP, unix.EOPNOTSUPP},
		{"unknown", 1 << 29, unix.EOPNOTSUPP, unix.EOPNOTSUPP},
	} {
		for way, do := range ways {
			for _, access := range []int{0, unix.O_DIRECT} {
				fd := openRaw(t, access)
				read, write := c.read, c.write
				if c.flag == unix.RWF_HIPRI && way == "io_uring" {
					read, write = unix.EINVAL, unix.EINVAL // only a ring with IOPOLL polls
				}
				const pos = scratch + 5<<20
				mem[0]++
				n, err := do(fd, true, mem, pos, c.flag)
				if !errors.Is(err, write) || err == nil && n != len(mem) {
					t.Errorf("%s, %s, access %#x: write: %d, %v, want %v", c.name, way, access, n, err, write)
				}
				clear(back)
				n, err = do(fd, false, back, pos, c.flag)
				if !errors.Is(err, read) || err == nil && n != len(back) {
					t.Errorf("%s, %s, access %#x: read: %d, %v, want %v", c.name, way, access, n, err, read)
				}
				if read == nil && write == nil && !bytes.Equal(mem, back) {
					t.Errorf("%s, %s, access %#x: what was read isn't what was written", c.name, way, access)
				}
			}
		}
	}
}

// NOWAIT where the device takes time: who can be told later is queued, who
// would have to sleep in the call gets EAGAIN. O_NONBLOCK changes nothing, as
// with a regular file.
func TestDriverNowaitSlow(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency = 60 * time.Millisecond

	for _, config := range []func(*ioctlapi.Config){
		func(c *ioctlapi.Config) { c.Model, c.LatencyNS = ioctlapi.ModelRAM, uint64(latency) },
		func(c *ioctlapi.Config) { c.Model, c.LatencyNS = ioctlapi.ModelDisk, uint64(latency) },
		func(c *ioctlapi.Config) { c.Model, c.LatencyNS = ioctlapi.ModelTape, uint64(latency) },
	} {
		model(t, d, config)
		mem, ways := anonymous(t, 1), rwWays(t)
		for _, access := range []int{0, unix.O_DIRECT} {
			for _, flags := range []int{unix.RWF_NOWAIT, 0} {
				fd := openRaw(t, access)
				if flags == 0 {
					fd = openRaw(t, access|unix.O_NONBLOCK)
				}
				for way, do := range ways {
					for _, write := range []bool{false, true} {
						var want error
						if flags != 0 && (way == "preadv2" || access == 0) {
							want = unix.EAGAIN
						}
						begin := time.Now()
						n, err := do(fd, write, mem, scratch, flags)
						took := time.Since(begin)
						if !errors.Is(err, want) || err == nil && n != len(mem) {
							t.Errorf("%s, access %#x, flags %#x, write %v: %d, %v, want %v", way, access, flags, write, n, err, want)
						}
						if want == nil && took < latency || want != nil && took > latency {
							t.Errorf("%s, access %#x, flags %#x, write %v: it took %v", way, access, flags, write, took)
						}
					}
				}
			}
		}
		if s, err := d.Stats(); err != nil || s.InFlight != 0 || s.Failed != 0 {
			t.Errorf("%d in flight, %d failed, %v", s.InFlight, s.Failed, err)
		}
	}
}

// A polled synchronous call waits like any other; polled ring entries are
// finished by their poller, from memory of any kind, as many as are in flight.
func TestDriverPolled(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	const latency = 20 * time.Millisecond
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionTimer, ioctlapi.CompletionInline} {
		setConfig(t, d, func(c *ioctlapi.Config) {
			if c.Completion, c.LatencyNS = completion, uint64(latency); completion == ioctlapi.CompletionInline {
				c.LatencyNS = 0
			}
		})
		config, err := d.Config()
		if err != nil {
			t.Fatal(err)
		}
		fd, out, in := openRaw(t, unix.O_DIRECT), fill(anonymous(t, 16), byte(completion)), anonymous(t, 16)
		for trap, mem := range map[uintptr][]byte{unix.SYS_PWRITEV2: out, unix.SYS_PREADV2: in} {
			begin := time.Now()
			if n, err := vectored(trap, fd, iovecs(mem), scratch, unix.RWF_HIPRI); n != len(mem) || err != nil {
				t.Errorf("%v: preadv2 or pwritev2: %d, %v", completion, n, err)
			}
			if took := time.Since(begin); took < time.Duration(config.LatencyNS) {
				t.Errorf("%v: done after %v", completion, took)
			}
		}
		ring := newUring(t, 32, uringIOPoll)
		before, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range []uint8{uringWrite, uringRead} {
			mem := map[uint8][]byte{uringWrite: out, uringRead: in}[op]
			clear(in)
			for i := range 16 {
				e := entry(op, fd, mem[i<<12:][:4096], scratch+int64(i)<<12)
				e.data = uint64(i)
				ring.submit(e)
			}
			seen := map[uint64]bool{}
			for range 16 {
				if v := ring.wait(10 * time.Second); v.res != 4096 || seen[v.data] {
					t.Errorf("%v: entry %d ended with %d, told before: %v", completion, v.data, v.res, seen[v.data])
				} else {
					seen[v.data] = true
				}
			}
			ring.none()
		}
		if !bytes.Equal(in, out) {
			t.Errorf("%v: what was read isn't what was written", completion)
		}
		after, err := d.Stats()
		if queued := after.Queued - before.Queued; err != nil || completion == ioctlapi.CompletionInline && queued != 0 ||
			completion != ioctlapi.CompletionInline && queued != 32 || after.Completed-before.Completed != 32 {
			t.Errorf("%v: %d queued, %d completed, %v", completion, queued, after.Completed-before.Completed, err)
		}
		// What a polled ring can't do.
		ring.submit(uringEntry{opcode: uringFsync, fd: int32(fd)})
		if v := ring.wait(10 * time.Second); v.res != -int32(unix.EINVAL) {
			t.Errorf("fsync of a polled ring: %d, want EINVAL", v.res)
		}
		ring.submit(entry(uringRead, openRaw(t, 0), in[:4096], scratch))
		if v := ring.wait(10 * time.Second); v.res != -int32(unix.EOPNOTSUPP) {
			t.Errorf("a polled read without O_DIRECT: %d, want EOPNOTSUPP", v.res)
		}
		// The flag says nothing new there.
		for _, c := range []struct {
			fd   int
			want int32
		}{{fd, 4096}, {openRaw(t, 0), -int32(unix.EOPNOTSUPP)}} {
			e := entry(uringRead, c.fd, in[:4096], scratch)
			e.opFlags = unix.RWF_HIPRI
			ring.submit(e)
			if v := ring.wait(10 * time.Second); v.res != c.want {
				t.Errorf("a polled read with HIPRI: %d, want %d", v.res, c.want)
			}
		}
		ring.close()
	}
}
