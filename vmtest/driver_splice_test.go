// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// pipe makes one that holds n bytes.
func pipe(t *testing.T, n int) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	if _, err := unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, n); err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

// spliceAll moves n bytes, however many calls that takes; pos is the device's.
func spliceAll(from int, fromPos *int64, to int, toPos *int64, n int) (done int, err error) {
	for done < n {
		got, err := unix.Splice(from, fromPos, to, toPos, n-done, 0)
		if err != nil || got == 0 {
			return done, err
		}
		done += int(got)
	}
	return done, nil
}

// splice into the device and out of it, at once and slowly, with O_DIRECT and
// without: the bytes and the positions are right, the ends are read's and write's.
func TestDriverSplice(t *testing.T) {
	d := openDevice(t)
	noPins(t, d)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	capacity := int64(config.Capacity)
	const size = 256 << 10
	r, w := pipe(t, size)
	for _, c := range []struct {
		model   ioctlapi.Model
		latency time.Duration
	}{{ioctlapi.ModelRAM, 0}, {ioctlapi.ModelRAM, 3 * time.Millisecond}, {ioctlapi.ModelDisk, time.Millisecond}} {
		model(t, d, func(f *ioctlapi.Config) { f.Model, f.LatencyNS = c.model, uint64(c.latency) })
		for _, access := range []int{0, unix.O_DIRECT} {
			fd := openRaw(t, access)
			for _, part := range []struct {
				n   int
				pos int64
			}{{512, scratch}, {4096, scratch + 512}, {100 << 10, scratch + 7<<20}, {777, scratch + 33}} {
				if access != 0 && part.n%512 != 0 {
					continue
				}
				what := fmt.Sprintf("%v, %v, access %#x, %d bytes at %d", c.model, c.latency, access, part.n, part.pos)
				out, in := fill(make([]byte, part.n), byte(part.n>>9)), make([]byte, part.n)
				if n, err := unix.Write(w, out); n != len(out) || err != nil {
					t.Fatal(n, err)
				}
				pos := part.pos
				if n, err := spliceAll(r, nil, fd, &pos, part.n); n != part.n || err != nil || pos != part.pos+int64(n) {
					t.Fatalf("%s: in: %d, %v, then at %d", what, n, err, pos)
				}
				pos = part.pos
				if n, err := spliceAll(fd, &pos, w, nil, part.n); n != part.n || err != nil || pos != part.pos+int64(n) {
					t.Fatalf("%s: out: %d, %v, then at %d", what, n, err, pos)
				}
				if n, err := io.ReadFull(fdReader(r), in); err != nil || !bytes.Equal(in, out) {
					t.Errorf("%s: %d, %v, equal: %v", what, n, err, bytes.Equal(in, out))
				}
			}

			// At the end, and across it.
			pos := capacity
			if n, err := unix.Splice(fd, &pos, w, nil, 4096, 0); n != 0 || err != nil {
				t.Errorf("access %#x: out of the end: %d, %v", access, n, err)
			}
			pos = capacity - 4096
			if n, err := unix.Splice(fd, &pos, w, nil, 8192, 0); n != 4096 || err != nil {
				t.Errorf("access %#x: across the end: %d, %v, want 4096", access, n, err)
			}
			pos = capacity
			if n, err := unix.Splice(r, nil, fd, &pos, 4096, 0); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("access %#x: into the end: %d, %v, want ENOSPC", access, n, err)
			}
			drain(t, r)
			if access != 0 {
				pos = scratch + 1
				if n, err := unix.Splice(fd, &pos, w, nil, 512, 0); !errors.Is(err, unix.EINVAL) {
					t.Errorf("out of an odd place: %d, %v, want EINVAL", n, err)
				}
				if _, err := unix.Write(w, make([]byte, 512)); err != nil {
					t.Fatal(err)
				}
				if n, err := unix.Splice(r, nil, fd, &pos, 512, 0); !errors.Is(err, unix.EINVAL) {
					t.Errorf("into an odd place: %d, %v, want EINVAL", n, err)
				}
				drain(t, r)
			}
		}
	}
	if s, err := d.Stats(); err != nil || s.InFlight != 0 || s.PagesPinned != s.PagesReleased {
		t.Errorf("%+v, %v", s, err)
	}
}

// fdReader reads a pipe that doesn't wait.
type fdReader int

func (f fdReader) Read(p []byte) (int, error) {
	n, err := unix.Read(int(f), p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

// drain empties a pipe.
func drain(t *testing.T, r int) {
	t.Helper()
	if _, err := io.Copy(io.Discard, fdReader(r)); !errors.Is(err, unix.EAGAIN) {
		t.Fatal("drain the pipe:", err)
	}
}

// sendfile(2) and copy_file_range(2) are splice's: the first takes the device
// as its source, the second only takes regular files.
func TestDriverSendfile(t *testing.T) {
	openDevice(t)
	sendfile := kernelAtLeast(t, 5, 19) // before, only of regular files and disks
	const n = 90 << 10
	fd, out := openRaw(t, 0), fill(make([]byte, n), 21)
	if got, err := unix.Pwrite(fd, out, scratch+11); got != n || err != nil {
		t.Fatal(got, err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pos := int64(scratch + 11)
	for done := 0; done < n; {
		got, err := unix.Sendfile(int(f.Fd()), fd, &pos, n-done)
		if !sendfile {
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("sendfile: %d, %v, want EINVAL", got, err)
			}
			return
		}
		if err != nil || got == 0 {
			t.Fatal(got, err)
		}
		done += got
	}
	if in, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(in, out) {
		t.Errorf("%d bytes, %v, equal: %v", len(in), err, bytes.Equal(in, out))
	}
	if got, err := unix.CopyFileRange(fd, &pos, int(f.Fd()), nil, 4096, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("copy_file_range: %d, %v, want EINVAL", got, err)
	}
}
