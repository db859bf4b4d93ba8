// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// scratch is where these tests write, far behind what other tests use.
const scratch = 800 << 20

// openRaw opens the device with flags beside O_RDWR.
func openRaw(t *testing.T, flags int) int {
	t.Helper()
	fd, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// anonymous maps n pages of fresh memory.
func anonymous(t *testing.T, pages int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, pages*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem
}

// fill gives every byte of b a value that says where it is.
func fill(b []byte, seed byte) []byte {
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8) ^ seed
	}
	return b
}

// noPins fails the test when its requests left pages pinned, by the driver's
// count and by the kernel's, which lags behind until it is folded.
func noPins(t *testing.T, d *ioctlapi.Device) {
	t.Helper()
	stats, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	kernel := kernelPins(t)
	t.Cleanup(func() {
		after, err := d.Stats()
		if err != nil {
			t.Error(err)
			return
		}
		if held, was := after.PagesPinned-after.PagesReleased, stats.PagesPinned-stats.PagesReleased; held != was {
			t.Errorf("the driver holds %d pages, it was %d", held, was)
		}
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if kernelPins(t) == kernel {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("/proc/vmstat says that %d pages are pinned, it was %d", kernelPins(t), kernel)
				return
			}
		}
	})
}

// kernelPins is nr_foll_pin_acquired less nr_foll_pin_released.
func kernelPins(t *testing.T) int64 {
	t.Helper()
	// Folds the per-CPU parts.
	if err := os.WriteFile("/proc/sys/vm/stat_refresh", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		t.Fatal(err)
	}
	var pins int64
	for _, line := range strings.Split(string(text), "\n") {
		name, value, _ := strings.Cut(line, " ")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch name {
		case "nr_foll_pin_acquired":
			pins += n
		case "nr_foll_pin_released":
			pins -= n
		}
	}
	return pins
}

func iovecs(segments ...[]byte) []unix.Iovec {
	v := make([]unix.Iovec, len(segments))
	for i, s := range segments {
		v[i].Base = unsafe.SliceData(s)
		v[i].SetLen(len(s))
	}
	return v
}

// preadv2 and pwritev2 without Go's own slicing, for any flags.
func vectored(trap uintptr, fd int, v []unix.Iovec, pos int64, flags int) (int, error) {
	n, _, e := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)),
		uintptr(pos), uintptr(uint64(pos)>>32), uintptr(flags))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// O_DIRECT in both families and both ways to complete: segments of many sizes,
// unaligned to pages, through odd pages of the store, bytes compared.
func TestDriverDirectSegments(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	for _, c := range []struct {
		name       string
		family     ioctlapi.Family
		completion ioctlapi.Completion
		latency    time.Duration
	}{
		{"pin inline", ioctlapi.FamilyPin, ioctlapi.CompletionAuto, 0},
		{"get inline", ioctlapi.FamilyGet, ioctlapi.CompletionAuto, 0},
		{"pin worker", ioctlapi.FamilyPin, ioctlapi.CompletionWorker, 0},
		{"get timer", ioctlapi.FamilyGet, ioctlapi.CompletionTimer, time.Millisecond},
		{"pin timer", ioctlapi.FamilyPin, ioctlapi.CompletionTimer, time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			setConfig(t, d, func(f *ioctlapi.Config) {
				f.Family, f.Completion, f.LatencyNS = c.family, c.completion, uint64(c.latency)
			})
			fd := openRaw(t, unix.O_DIRECT)
			out, in := fill(anonymous(t, 64), byte(c.family)), anonymous(t, 64)
			cut := func(b []byte) []unix.Iovec {
				return iovecs(b[512:1024], b[1024:1024], b[4096:4096+8192], b[13*4096+1536:50*4096+512], b[51*4096:52*4096])
			}
			want := 512 + 8192 + 37*4096 - 1024 + 4096
			const pos = scratch + 3*512
			if n, err := vectored(unix.SYS_PWRITEV2, fd, cut(out), pos, 0); n != want || err != nil {
				t.Fatalf("pwritev2: %d, %v, want %d", n, err, want)
			}
			if n, err := vectored(unix.SYS_PREADV2, fd, cut(in), pos, 0); n != want || err != nil {
				t.Fatalf("preadv2: %d, %v, want %d", n, err, want)
			}
			wrote, read := cut(out), cut(in)
			for i := range wrote {
				a := unsafe.Slice(wrote[i].Base, int(wrote[i].Len))
				if b := unsafe.Slice(read[i].Base, int(read[i].Len)); !bytes.Equal(a, b) {
					t.Errorf("segment %d differs", i)
				}
			}
			// Bytes beside the segments are nobody's.
			if in[0] != 0 || in[1024] != 0 || in[13*4096+1535] != 0 || in[50*4096+512] != 0 {
				t.Error("a byte outside of the segments was written")
			}
		})
	}
}

// Each way to be refused, or served short, has its errno, and leaves nothing pinned.
func TestDriverReadWriteErrors(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	capacity, page := int64(config.Capacity), os.Getpagesize()
	direct, plain := openRaw(t, unix.O_DIRECT), openRaw(t, 0)
	mem := anonymous(t, 8)
	hole := anonymous(t, 4) // its third page can't be touched, its fourth not written
	if err := errors.Join(unix.Mprotect(hole[2*page:3*page], unix.PROT_NONE), unix.Mprotect(hole[3*page:], unix.PROT_READ)); err != nil {
		t.Fatal(err)
	}
	huge, err := unix.Mmap(-1, 0, int(config.MaxRequest)+page, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(huge)

	for _, c := range []struct {
		name  string
		fd    int
		write bool
		buf   []byte
		pos   int64
		n     int
		err   error
	}{
		{"direct, odd address", direct, false, mem[8 : 8+512], scratch, 0, unix.EINVAL},
		{"direct, odd length", direct, true, mem[:513], scratch, 0, unix.EINVAL},
		{"direct, odd offset", direct, false, mem[:512], scratch + 256, 0, unix.EINVAL},
		{"odd everything, copied", plain, true, mem[3 : 3+777], scratch + 11, 777, nil},
		{"nothing", direct, false, mem[:0], scratch, 0, nil},
		{"read at the end", direct, false, mem[:512], capacity, 0, nil},
		{"read past the end", plain, false, mem[:512], capacity + 4096, 0, nil},
		{"read across the end", direct, false, mem[:8192], capacity - 4096, 4096, nil},
		{"copied read across the end", plain, false, mem[:8192], capacity - 1, 1, nil},
		{"write at the end", direct, true, mem[:512], capacity, 0, unix.ENOSPC},
		{"copied write past the end", plain, true, mem[:1], capacity + 1, 0, unix.ENOSPC},
		{"write far past the end", direct, true, mem[:512], 1<<62 + 512, 0, unix.ENOSPC},
		{"direct, over max_request", direct, true, huge, scratch, 0, unix.EINVAL},
		{"copied, over max_request", plain, false, huge, 0, 0, unix.EINVAL},
		{"direct, bad address", direct, true, hole[2*page : 3*page], scratch, 0, unix.EFAULT},
		{"direct, bad address as target", direct, false, hole[2*page : 3*page], scratch, 0, unix.EFAULT},
		{"copied, bad address", plain, true, hole[2*page : 3*page], scratch, 0, unix.EFAULT},
		{"direct, read-only target", direct, false, hole[3*page:], scratch, 0, unix.EFAULT},
		{"copied, read-only target", plain, false, hole[3*page:], scratch, 0, unix.EFAULT},
		{"direct, read-only source", direct, true, hole[3*page:], scratch, page, nil},
		{"direct, two good pages of three", direct, true, hole[:3*page], scratch, 2 * page, nil},
		{"direct read, two good pages of three", direct, false, hole[:3*page], scratch, 2 * page, nil},
	} {
		for _, family := range []ioctlapi.Family{ioctlapi.FamilyPin, ioctlapi.FamilyGet} {
			for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionWorker} {
				f := config
				f.Family, f.Completion = family, completion
				if err := d.SetConfig(f); err != nil {
					t.Fatal(err)
				}
				call := unix.Pread
				if c.write {
					call = unix.Pwrite
				}
				n, err := call(c.fd, c.buf, c.pos)
				if max(n, 0) != c.n || !errors.Is(err, c.err) {
					t.Errorf("%s (%v, %v): %d, %v, want %d, %v", c.name, family, completion, n, err, c.n, c.err)
				}
			}
		}
	}
	if err := d.SetConfig(config); err != nil {
		t.Fatal(err)
	}

	appending := openRaw(t, unix.O_APPEND)
	if n, err := unix.Write(appending, mem[:512]); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("append: %d, %v, want ENOSPC", n, err)
	}
	for _, c := range []struct {
		off    int64
		whence int
		want   int64
		err    error
	}{
		{0, unix.SEEK_END, capacity, nil}, {-512, unix.SEEK_END, capacity - 512, nil}, {1, unix.SEEK_END, 0, unix.EINVAL},
		{-1, unix.SEEK_SET, 0, unix.EINVAL}, {77, unix.SEEK_SET, 77, nil}, {3, unix.SEEK_CUR, 80, nil},
		{0, unix.SEEK_DATA, 0, unix.EINVAL}, {0, 99, 0, unix.EINVAL},
	} {
		if got, err := unix.Seek(plain, c.off, c.whence); !errors.Is(err, c.err) || err == nil && got != c.want {
			t.Errorf("seek %d from %d: %d, %v, want %d, %v", c.off, c.whence, got, err, c.want, c.err)
		}
	}
}

// A synchronous caller that waits for its request can be killed at once, and is
// not heard of any more: O_DIRECT, copied, and the ioctl.
func TestDriverKill(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	setConfig(t, d, func(c *ioctlapi.Config) { c.LatencyNS, c.Completion = uint64(20*time.Second), ioctlapi.CompletionAuto })
	for name, args := range map[string][]string{
		"direct read": {"read", "--direct", "--length", "1M"},
		"copied read": {"read", "--length", "4k"},
		"ioctl":       {"read", "--engine", "ioctl", "--length", "4k"},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := d.Stats()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("dioctl", append(args, ioctlapi.DefaultPath)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			waitInFlight(t, d, before.InFlight+1)
			killed := time.Now()
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			err = cmd.Wait()
			if took := time.Since(killed); took > 5*time.Second {
				t.Errorf("it took %v to die", took)
			}
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != -1 {
				t.Errorf("it ended with %v, want a signal", err)
			}
			after, err := d.Stats()
			if err != nil || after.InFlight != before.InFlight || after.PagesPinned != after.PagesReleased {
				t.Errorf("after the kill: %+v, %v", after, err)
			}
		})
	}
}

// waitInFlight waits until the driver has want requests in flight.
func waitInFlight(t *testing.T, d *ioctlapi.Device, want uint64) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if s.InFlight == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests in flight, want %d", s.InFlight, want)
		}
	}
}

// RWF_NOWAIT is EAGAIN where the request would wait, and served where not.
func TestDriverNowait(t *testing.T) {
	d := openDevice(t)
	for _, flags := range []int{0, unix.O_DIRECT} {
		fd, mem := openRaw(t, flags), anonymous(t, 1)
		if n, err := vectored(unix.SYS_PWRITEV2, fd, iovecs(mem), scratch, unix.RWF_NOWAIT); n != len(mem) || err != nil {
			t.Errorf("flags %#x, no latency: %d, %v", flags, n, err)
		}
		for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionTimer} {
			func() {
				config, err := d.Config()
				if err != nil {
					t.Fatal(err)
				}
				slow := config
				slow.Completion, slow.LatencyNS = completion, uint64(time.Millisecond)
				if err := d.SetConfig(slow); err != nil {
					t.Fatal(err)
				}
				defer d.SetConfig(config)
				if n, err := vectored(unix.SYS_PREADV2, fd, iovecs(mem), scratch, unix.RWF_NOWAIT); !errors.Is(err, unix.EAGAIN) {
					t.Errorf("flags %#x, %v, 1 ms: %d, %v, want EAGAIN", flags, completion, n, err)
				}
			}()
		}
		for _, rwf := range []int{unix.RWF_DSYNC, unix.RWF_SYNC, unix.RWF_HIPRI} {
			if n, err := vectored(unix.SYS_PWRITEV2, fd, iovecs(mem), scratch, rwf); n != len(mem) || err != nil {
				t.Errorf("flags %#x, RWF %#x: %d, %v", flags, rwf, n, err)
			}
		}
	}
}

// The module can't go while a file of it is open: the kernel says that it's in use,
// and so does the command.
func TestDriverUnloadWhileOpen(t *testing.T) {
	openRaw(t, 0)
	if err := unix.DeleteModule("dio", unix.O_NONBLOCK); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("unload while open: %v, want EWOULDBLOCK", err)
	}
	// kmod's rmmod has words for it, busybox's those of the error.
	o := run(t, "rmmod", "dio")
	if said := string(o.stdout) + o.stderr; o.status == 0 || !strings.Contains(said, "dio") ||
		!strings.Contains(said, "in use") && !strings.Contains(said, "temporarily unavailable") {
		t.Errorf("rmmod while open: exit %d, %q", o.status, said)
	}
	if _, err := os.Stat("/sys/module/dio"); err != nil {
		t.Error("the module is gone:", err)
	}
}
