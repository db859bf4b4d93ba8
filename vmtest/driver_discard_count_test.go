// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// Each discard that did its work counts, with the bytes that it had: at the capacity
// fewer than were asked for. One that failed doesn't.
func TestDriverDiscardCounts(t *testing.T) {
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	const pos = scratch + 19<<20
	m, err := unix.Mmap(openRaw(t, 0), pos, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	for _, c := range []struct {
		name           string
		offset, length uint64
		done           uint64
		err            error
	}{
		{"whole pages", pos + 8192, 8192, 8192, nil},
		{"in place", pos, 4096, 4096, nil},
		{"of a page", pos + 10, 33, 33, nil},
		{"across the capacity", config.Capacity - 512, 4096, 512, nil},
		{"at the capacity", config.Capacity, 512, 0, unix.ENOSPC},
		{"nothing", pos, 0, 0, unix.EINVAL},
	} {
		before, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := d.Discard(c.offset, c.length); !errors.Is(err, c.err) || err == nil && n != c.done {
			t.Errorf("%s: %d, %v, want %d, %v", c.name, n, err, c.done, c.err)
		}
		after, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		want := uint64(1)
		if c.err != nil {
			want = 0
		}
		if n, b := after.Discards-before.Discards, after.BytesDiscarded-before.BytesDiscarded; n != want || b != c.done {
			t.Errorf("%s: %d discards of %d bytes were counted, want %d of %d", c.name, n, b, want, c.done)
		}
	}
}

// helperDiscard discards the range that it's told.
func helperDiscard(args []string) error {
	pos, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	d, err := ioctlapi.Open(ioctlapi.DefaultPath)
	if err != nil {
		return err
	}
	fmt.Println("begins")
	_, err = d.Discard(pos, n)
	return err
}

// Who discards can be killed: it stops where it is, and isn't counted. (What it's told
// then TestDriverKilledAtWork sees.)
func TestDriverDiscardKilled(t *testing.T) {
	d := openDevice(t)
	const pos, n, part = scratch + 24<<20, 128 << 20, 16 << 20
	fd, mem := openRaw(t, unix.O_DIRECT), anonymous(t, part>>12)
	for i := range mem {
		mem[i] = 0xA5
	}
	// Mapped, so it's done in place, page by page.
	first, err := unix.Mmap(fd, pos, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(first)
	last, err := unix.Mmap(fd, pos+n-4096, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(last)
	t.Cleanup(func() {
		if _, err := d.Discard(pos, n); err != nil {
			t.Error(err)
		}
	})
	// It may be done before it's killed, where the machine is busy.
	const tries = 10
	for try := 1; ; try++ {
		for at := int64(0); at < n; at += part {
			pwrite(t, fd, mem, pos+at)
		}
		before, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		h := startHelper(t, "discard", nil, fmt.Sprint(uint64(pos)), fmt.Sprint(uint64(n)))
		h.line(t)
		for deadline := time.Now().Add(30 * time.Second); first[0] != 0 && time.Now().Before(deadline); {
			time.Sleep(100 * time.Microsecond)
		}
		if err := h.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = h.Wait()
		if first[0] != 0 {
			t.Fatal("nothing was discarded within 30 s")
		}
		after, err := d.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if last[0] == 0 {
			if try == tries {
				t.Fatalf("none of %d discards of %d bytes stopped when it was killed", tries, n)
			}
			continue
		}
		if after.Discards != before.Discards || after.BytesDiscarded != before.BytesDiscarded {
			t.Errorf("one that was killed counts: %d, %d bytes", after.Discards-before.Discards, after.BytesDiscarded-before.BytesDiscarded)
		}
		t.Logf("stopped at try %d", try)
		return
	}
}
