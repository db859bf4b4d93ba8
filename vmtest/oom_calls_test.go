// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// ioctlOf is one with an argument that begins with its size.
func ioctlOf[T any](fd int, nr uint32, arg *T) rawCall {
	*(*uint32)(unsafe.Pointer(arg)) = uint32(unsafe.Sizeof(*arg))
	return syscallOf(unix.SYS_IOCTL, uintptr(fd), uintptr(3<<30|uint32(unsafe.Sizeof(*arg))<<16|0xD1<<8|nr), addr(arg))
}

// oomIoctl is an ioctl that gives 0. check looks at what came of it, and undoes it.
func oomIoctl[T any](name string, memory int, nr uint32, arg func(k *oomKit) T, check func(k *oomKit, arg *T, e unix.Errno)) oomCall {
	return oomCall{name: name, memory: memory, copies: 2, begin: func(k *oomKit) oomSteps {
		arena := anonymous(k.t, 1)
		return oomSteps{
			call: func() rawCall { return ioctlOf(k.d.FD(), nr, placed(arena, arg(k))) },
			after: func(n int, e unix.Errno) (int, unix.Errno) {
				check(k, (*T)(unsafe.Pointer(unsafe.SliceData(arena))), e)
				return n, e
			},
		}
	}}
}

func oomIoctls() []oomCall {
	const size, page = 64 << 10, 4096
	var was ioctlapi.Config
	configure := func(name string, memory int, change func(c *ioctlapi.Config)) oomCall {
		changed := func(k *oomKit) ioctlapi.Config {
			var err error
			was, err = k.d.Config()
			k.must(err)
			c := was
			change(&c)
			return c
		}
		return oomIoctl(name, memory, nrSetConfig, changed, func(k *oomKit, _ *ioctlapi.Config, e unix.Errno) {
			k.t.Helper()
			now, err := k.d.Config()
			k.must(err)
			// All of it or nothing: without memory nothing, with its answer lost either.
			want := was
			change(&want)
			if now != want && now != was || now != want && e == 0 || now != was && e == unix.ENOMEM {
				k.t.Errorf("%v: %+v, it was %+v", e, now, was)
			}
			k.must(k.d.SetConfig(was))
		})
	}
	mem, in := fill(make([]byte, size), 3), make([]byte, size)
	buffer := make([]byte, 0)
	return []oomCall{
		configure("SET_CONFIG", 1, func(c *ioctlapi.Config) { c.LatencyNS, c.MaxRequest = 1000, 1<<20 }),
		configure("SET_CONFIG, smaller", 2, func(c *ioctlapi.Config) { c.Capacity -= page }),
		oomIoctl("GET_CONFIG", 0, nrGetConfig, func(*oomKit) (c ioctlapi.Config) { return c }, func(*oomKit, *ioctlapi.Config, unix.Errno) {}),
		oomIoctl("STATS", 0, nrStats, func(*oomKit) (s ioctlapi.Stats) { return s }, func(*oomKit, *ioctlapi.Stats, unix.Errno) {}),
		oomIoctl("FAULT_ARM", 0, nrFaultArm, func(*oomKit) ioctlapi.Fault {
			return ioctlapi.Fault{Fault: ioctlapi.FaultPinLeak, Every: 1 << 30}
		}, func(k *oomKit, _ *ioctlapi.Fault, _ unix.Errno) { k.must(k.d.ClearFault(ioctlapi.FaultPinLeak)) }),
		oomIoctl("INJECT", 0, nrInject, func(*oomKit) ioctlapi.Inject {
			return ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1 << 30}
		}, func(k *oomKit, _ *ioctlapi.Inject, _ unix.Errno) { k.must(k.d.ClearInject(ioctlapi.InjectEIO)) }),
		oomIoctl("DRAIN", 0, nrDrain, func(*oomKit) (d ioctlapi.Drain) { return d }, func(*oomKit, *ioctlapi.Drain, unix.Errno) {}),

		// Without memory to take pages away, they are zeroed.
		oomIoctl("DISCARD", 1, nrDiscard, func(k *oomKit) ioctlapi.Discard {
			n, err := k.d.WriteAt(mem, scratch)
			if n != size || err != nil {
				k.t.Fatal("write:", n, err)
			}
			return ioctlapi.Discard{Offset: scratch, Length: size}
		}, func(k *oomKit, d *ioctlapi.Discard, e unix.Errno) {
			_, err := k.d.ReadAt(in, scratch)
			k.must(err)
			gone := bytes.Equal(in, make([]byte, size))
			if e == 0 && (d.Done != size || !gone) || !gone && !bytes.Equal(in, mem) || e == unix.ENOMEM {
				k.t.Errorf("%v, %d bytes, all zero: %v", e, d.Done, gone)
			}
			k.empty()
		}),

		oomIoctl("BUFFER_REGISTER", 18, nrBufferRegister, func(k *oomKit) ioctlapi.BufferRegister {
			if len(buffer) == 0 { // for all tests
				var err error
				buffer, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
				k.must(err)
			}
			k.must(unix.Madvise(buffer, unix.MADV_DONTNEED))
			return ioctlapi.BufferRegister{Flags: ioctlapi.BufferWritable, Addr: address(buffer), Length: size}
		}, func(k *oomKit, r *ioctlapi.BufferRegister, e unix.Errno) {
			if e == 0 {
				k.must(k.d.UnregisterBuffer(r.ID))
			} else if err := k.d.UnregisterBuffer(1); !errors.Is(err, unix.ENOENT) {
				k.t.Errorf("%v, and there is a buffer: %v", e, err)
			}
			// "After an error nothing is pinned or charged".
			if s, kb := bufferStats(k.t, k.d), pinnedKB(k.t, "self"); s != [2]uint64{} || kb != 0 {
				k.t.Errorf("%v: %d buffers and pages, VmPin %d kB", e, s, kb)
			}
		}),
		oomIoctl("BUFFER_UNREGISTER", 0, nrBufferUnregister, func(k *oomKit) ioctlapi.BufferUnregister {
			return ioctlapi.BufferUnregister{ID: register(k.t, k.d, buffer, true)}
		}, func(k *oomKit, r *ioctlapi.BufferUnregister, e unix.Errno) {
			if err := k.d.UnregisterBuffer(r.ID); e == 0 && !errors.Is(err, unix.ENOENT) {
				k.t.Errorf("unregistered, and it's still there: %v", err)
			}
		}),
	}
}

func oomOthers() []oomCall {
	const size = 8 * 4096
	same := func(n int, e unix.Errno) (int, unix.Errno) { return n, e }
	return []oomCall{
		{name: "open", memory: 1, begin: func(k *oomKit) oomSteps {
			arena := anonymous(k.t, 1)
			copy(arena, k.d.Path())
			dir := unix.AT_FDCWD
			return oomSteps{
				call: func() rawCall {
					return syscallOf(unix.SYS_OPENAT, uintptr(dir), addr(&arena[0]), unix.O_RDWR|unix.O_CLOEXEC|unix.O_DIRECT)
				},
				after: func(fd int, e unix.Errno) (int, unix.Errno) {
					if e == 0 {
						k.must(unix.Close(fd))
					}
					return 0, e
				},
			}
		}},
		{name: "fsync", begin: func(k *oomKit) oomSteps {
			return oomSteps{call: func() rawCall { return syscallOf(unix.SYS_FSYNC, uintptr(k.d.FD())) }, after: same}
		}},
		{name: "mmap", begin: func(k *oomKit) oomSteps {
			return oomSteps{
				call: func() rawCall { return mmapOf(k.d.FD()) },
				after: func(at int, e unix.Errno) (int, unix.Errno) {
					if e == 0 {
						_, _, err := unix.Syscall(unix.SYS_MUNMAP, uintptr(at), size, 0)
						if err != 0 {
							k.t.Error("munmap:", err)
						}
					}
					return 0, e
				},
			}
		}},
		{name: "touch of a mapping", memory: 2, begin: func(k *oomKit) oomSteps {
			var mem []byte
			return oomSteps{
				before: func() { k.empty(); mem = mapStore(k, size) },
				call:   func() rawCall { return syscallOf(touchCall, addr(&mem[0])) },
				after: func(n int, e unix.Errno) (int, unix.Errno) {
					mem[0] = 9
					in := make([]byte, 1)
					pread(k.t, k.d.FD(), in, scratch)
					if in[0] != 9 {
						k.t.Errorf("what was written to the mapping isn't in the store: %d", in[0])
					}
					k.must(unix.Munmap(mem))
					return n, e
				},
			}
		}},
		{name: "population of a mapping", memory: 8, begin: func(k *oomKit) oomSteps {
			const populateWrite = 23 // MADV_POPULATE_WRITE
			var mem []byte
			return oomSteps{
				before: func() { k.empty(); mem = mapStore(k, size) },
				call:   func() rawCall { return syscallOf(unix.SYS_MADVISE, addr(&mem[0]), size, populateWrite) },
				after: func(n int, e unix.Errno) (int, unix.Errno) {
					k.must(unix.Munmap(mem))
					return n, e
				},
			}
		}},
		{name: "splice out", memory: 3, begin: func(k *oomKit) oomSteps {
			r, w := pipe(k.t, 2*size)
			in, want := make([]byte, size), fill(make([]byte, size), 8)
			pwrite(k.t, k.d.FD(), want, scratch)
			pos := placed(anonymous(k.t, 1), int64(0))
			// The kernel takes a page at a time when it's to remember who took it.
			at := int64(scratch)
			most, err := unix.Splice(k.d.FD(), &at, w, nil, size, 0)
			k.must(err)
			drain(k.t, r)
			return oomSteps{want: int(most), short: true,
				call: func() rawCall {
					*pos = scratch
					return syscallOf(unix.SYS_SPLICE, uintptr(k.d.FD()), addr(pos), uintptr(w), 0, size, 0)
				},
				after: func(n int, e unix.Errno) (int, unix.Errno) {
					if e == unix.EFAULT { // the position couldn't be told
						drain(k.t, r)
						return n, e
					}
					for got := 0; got < n; {
						part, err := unix.Read(r, in[got:n])
						k.must(err)
						got += part
					}
					if !bytes.Equal(in[:n], want[:n]) {
						k.t.Errorf("%d, %v: other bytes", n, e)
					}
					if n, err := unix.Read(r, in); !errors.Is(err, unix.EAGAIN) {
						k.t.Errorf("%d bytes too many, %v", n, err)
					}
					return n, e
				},
			}
		}},
		{name: "splice in", memory: 10, begin: func(k *oomKit) oomSteps {
			r, w := pipe(k.t, 2*size)
			in, out := make([]byte, size), fill(make([]byte, size), 9)
			pos := placed(anonymous(k.t, 1), int64(0))
			return oomSteps{want: size, short: true,
				before: func() {
					k.empty()
					n, err := unix.Write(w, out)
					if n != size || err != nil {
						k.t.Fatal("fill the pipe:", n, err)
					}
				},
				call: func() rawCall {
					*pos = scratch
					return syscallOf(unix.SYS_SPLICE, uintptr(r), 0, uintptr(k.d.FD()), addr(pos), size, 0)
				},
				after: func(n int, e unix.Errno) (int, unix.Errno) {
					if e == unix.EFAULT { // the position couldn't be told
						drain(k.t, r)
						return n, e
					}
					pread(k.t, k.d.FD(), in, scratch)
					want := append(bytes.Clone(out[:n]), make([]byte, size-n)...)
					if !bytes.Equal(in, want) {
						k.t.Errorf("%d, %v: the store has other bytes", n, e)
					}
					// What wasn't written is still in the pipe.
					left := 0
					for {
						part, err := unix.Read(r, in)
						if err != nil {
							break
						}
						left += part
					}
					if left != size-n {
						k.t.Errorf("%d, %v: %d bytes left in the pipe", n, e, left)
					}
					return n, e
				},
			}
		}},
	}
}

// mmapOf maps the store at scratch.
func mmapOf(fd int) rawCall {
	return syscallOf(unix.SYS_MMAP, 0, 8*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, uintptr(fd), scratch)
}

func mapStore(k *oomKit, n int) []byte {
	k.t.Helper()
	mem, err := unix.Mmap(k.d.FD(), scratch, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	k.must(err)
	return mem
}
