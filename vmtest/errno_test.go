// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

const (
	errnoPos     = scratch + 26<<20         // what is there has been written,
	errnoHole    = errnoPos + 64<<10        // and here nothing
	errnoBytes   = errnoMost * 4096         // each: as much as one write may be
	errnoMost    = 4                        // max_request, in pages
	errnoLatency = uint64(30 * time.Second) // far longer than all that isn't to wait for it
)

// errnoRun is a path under test, in one configuration.
type errnoRun struct {
	*errnoKit
	do                         errnoDo
	plain, readOnly, writeOnly int
	base                       ioctlapi.Config
	waiting                    *aioContext
	one                        []byte // the memory of the request that waits
	store, had                 []byte // what the store and the kit's memory have
	again                      int    // a ring tried until there was room so often
}

// refresh gives the store and the kit's memory the bytes that they are to keep.
func (k *errnoRun) refresh() {
	fill(k.pages(0, errnoNowhere), 0x5a)
	pwrite(k.t, k.plain, fill(k.store, 0xa5), errnoPos)
	k.had = append(append(k.had[:0], k.pages(0, errnoNowhere)...), k.pages(errnoConstant, errnoPages)...)
}

// unchanged fails the test unless they have them, and gives them back.
func (k *errnoRun) unchanged(what string) {
	k.t.Helper()
	if !bytes.Equal(k.had[:len(k.had)-k.page], k.pages(0, errnoNowhere)) || !bytes.Equal(k.had[len(k.had)-k.page:], k.pages(errnoConstant, errnoPages)) {
		k.t.Errorf("%s: the caller's memory has changed", what)
		defer k.refresh()
	}
	in := make([]byte, len(k.store))
	if pread(k.t, k.plain, in, errnoPos); !bytes.Equal(in, k.store) {
		k.t.Errorf("%s: the store has changed", what)
		k.refresh()
	}
}

// counted are what a refused call leaves as it was: the first of what is held now,
// the others of what was done.
func (k *errnoRun) counted() (held [4]uint64, done [4]uint64) {
	k.t.Helper()
	s, err := k.d.Stats()
	if err != nil {
		k.t.Fatal(err)
	}
	return [4]uint64{s.InFlight, s.PagesPinned - s.PagesReleased, s.Buffers, s.BufferPages},
		[4]uint64{s.BytesRead, s.BytesWritten, s.PagesDirtied, s.StorePages}
}

// occupy has a read wait, where the limits allow one. A ring that polls has its thread
// try again until there is room. For its sake limits and latency go after a while.
func (k *errnoRun) occupy(cell errnoCell) (end func()) {
	if _, err := unix.FcntlInt(uintptr(k.fd), unix.F_SETFL, unix.O_DIRECT); err != nil {
		k.t.Fatal(err)
	}
	one := control(aioRead, k.fd, k.one, errnoPos)
	if err := k.waiting.submit(one); err != nil {
		k.t.Fatal(err)
	}
	relaxed := make(chan error, 1)
	timer := time.AfterFunc(100*time.Millisecond, func() {
		var err error
		if cell.retried {
			err = k.d.SetConfig(k.base)
		}
		relaxed <- err
	})
	return func() {
		if !timer.Stop() {
			if err := <-relaxed; err != nil {
				k.t.Error(err)
			}
		}
		var e aioEvent
		if _, _, errno := unix.Syscall(unix.SYS_IO_CANCEL, k.waiting.id, uintptr(unsafe.Pointer(one)), uintptr(unsafe.Pointer(&e))); errno != unix.EINPROGRESS {
			k.t.Errorf("io_cancel: %v, want EINPROGRESS", errno)
		}
		if e := k.waiting.wait(20 * time.Second); e.res != -int64(unix.ECANCELED) {
			k.t.Errorf("the request that was in flight ended with %d", e.res)
		}
	}
}

// try has one cause's call made, and looks at what came of it.
func (k *errnoRun) try(what string, cause *errnoCause, cell errnoCell, write bool, access errnoAccess) {
	k.t.Helper()
	heldBefore, doneBefore := k.counted()
	config := k.base
	if cause.set != nil {
		cause.set(k, &config)
	}
	if err := k.d.SetConfig(config); err != nil {
		k.t.Fatalf("%s: %v", what, err)
	}
	end := func() {}
	if cause.begin != nil {
		end = cause.begin(k, cell)
	}
	c := &errnoCall{fd: k.fd, write: write, vec: [][]byte{k.pages(0, 1)}, pos: errnoPos}
	if cause.call != nil {
		cause.call(k, c)
	}
	if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_SETFL, access.flag()|c.status); err != nil {
		k.t.Fatal(err)
	}
	n, err := k.do(c)
	end()
	if err := k.d.SetConfig(k.base); err != nil {
		k.t.Fatal(err)
	}
	again := cell.retried && err == nil && n == c.bytes()
	if !again && (n != 0 || !errors.Is(err, cell.want)) {
		k.t.Errorf("%s: %d, %v, want %v", what, n, err, cell.want)
	}
	held, done := k.counted()
	if held != heldBefore {
		k.t.Errorf("%s: in flight, pinned, buffers, their pages: %v, it was %v", what, held, heldBefore)
	}
	if again {
		k.again++
		k.refresh()
		return
	}
	if done != doneBefore {
		k.t.Errorf("%s: bytes read, written, pages dirtied, of the store: %v, it was %v", what, done, doneBefore)
	}
	k.unchanged(what)
}

// Each documented errno of reading and writing, on each path: that one and no other,
// and nothing is moved, pinned or in flight. (Other tests are of what is told to a
// removed device's users, ENODEV, and for lack of memory, ENOMEM; to who is killed
// or cancelled, EINTR and ECANCELED; of unknown flags, EOPNOTSUPP.)
func TestErrno(t *testing.T) {
	d := openDevice(t)
	for _, completion := range []ioctlapi.Completion{ioctlapi.CompletionAuto, ioctlapi.CompletionWorker} {
		for _, family := range []ioctlapi.Family{ioctlapi.FamilyPin, ioctlapi.FamilyGet} {
			for _, p := range errnoPaths {
				t.Run(fmt.Sprintf("%v/%v/%s", completion, family, p.name), func(t *testing.T) {
					if p.isCommand() && !hasCommands(t, d) {
						t.Log("this kernel has no commands: TestDriverCommand sees to that")
						return
					}
					noBuffers(t, d)
					setConfig(t, d, func(c *ioctlapi.Config) {
						c.Model, c.Completion, c.Family, c.LatencyNS = ioctlapi.ModelRAM, completion, family, 0
					})
					errnos(t, d, p)
				})
			}
		}
	}
}

// errnos tries all causes on a path.
func errnos(t *testing.T, d *ioctlapi.Device, p errnoPath) {
	hole(t, d, errnoHole, errnoBytes)
	t.Cleanup(func() {
		if _, err := d.Discard(errnoPos, errnoBytes); err != nil {
			t.Error(err)
		}
	})
	setConfig(t, d, func(c *ioctlapi.Config) { c.MaxRequest = errnoMost * 4096 })
	k := &errnoRun{errnoKit: newErrnoKit(t, d), plain: openRaw(t, 0), waiting: newAIO(t, 1), one: anonymous(t, 1), store: make([]byte, errnoBytes)}
	k.readOnly, k.writeOnly = openOneWay(t, unix.O_RDONLY).FD(), openOneWay(t, unix.O_WRONLY).FD()
	var err error
	if k.base, err = d.Config(); err != nil {
		t.Fatal(err)
	}
	k.do = p.make(k.errnoKit)
	k.refresh()
	tried := 0
	for i := range errnoCauses {
		cause := &errnoCauses[i]
		for _, access := range p.access {
			for _, write := range []bool{false, true} {
				cell, err := cause.cell(p.name, write, access)
				if err != nil {
					t.Error(err)
				}
				if err != nil || cell.why != "" {
					continue
				}
				k.try(fmt.Sprintf("%s, %s, write %v", cause.name, access, write), cause, cell, write, access)
				tried++
			}
		}
	}
	t.Logf("%d calls, of which %d were tried again by io_uring", tried, k.again)
}

// cell is a cause's on a path, in a direction: the one that the table has.
func (c *errnoCause) cell(path string, write bool, access errnoAccess) (errnoCell, error) {
	direction := map[bool]string{false: "read", true: "write"}[write]
	var special, general []errnoCell
	for words, cell := range c.cells {
		for _, word := range strings.Fields(words) {
			switch name, of, _ := strings.Cut(word, "/"); {
			case name != path:
			case of == "":
				general = append(general, cell)
			case of == direction || of == string(access):
				special = append(special, cell)
			}
		}
	}
	// What holds for a whole direction goes before what a path has in both.
	found := slices.Concat(special, general)
	switch why := map[bool]string{false: c.reads, true: c.writes}[write]; {
	case access == errnoCopied && c.copied != "":
		found = []errnoCell{na(c.copied)}
	case len(special) == 0 && why != "":
		found = []errnoCell{na(why)}
	}
	if len(found) != 1 {
		return errnoCell{}, fmt.Errorf("%s, by %s, %s, %s: %d cells in the table, want 1", c.name, path, access, direction, len(found))
	}
	return found[0], nil
}

// The table is complete: for each cause and path there is either an errno or the
// reason why there is none; and it says nothing of what isn't there.
func TestErrnoTable(t *testing.T) {
	for i := range errnoCauses {
		c := &errnoCauses[i]
		for _, p := range errnoPaths {
			for _, access := range p.access {
				for _, write := range []bool{false, true} {
					if _, err := c.cell(p.name, write, access); err != nil {
						t.Error(err)
					}
				}
			}
		}
		for words := range c.cells {
			for _, word := range strings.Fields(words) {
				name, of, _ := strings.Cut(word, "/")
				if !slices.ContainsFunc(errnoPaths, func(p errnoPath) bool { return p.name == name }) ||
					!slices.Contains([]string{"", "read", "write", string(errnoDirect), string(errnoCopied)}, of) {
					t.Errorf("%s: %q is no path", c.name, word)
				}
			}
		}
	}
}
