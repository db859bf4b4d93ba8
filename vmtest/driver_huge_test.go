// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

const (
	hugeSize = 2 << 20
	hugeAt   = scratch + 64<<20 // of the device
)

// hugeRoom gives the store's pages back after a test.
func hugeRoom(t *testing.T) *ioctlapi.Device {
	t.Helper()
	d := openDevice(t)
	t.Cleanup(func() {
		if _, err := d.Discard(hugeAt, hugeSize); err != nil {
			t.Error(err)
		}
	})
	return d
}

// hugeKinds are the ways to a buffer of one 2 MiB page, and, to compare, to
// one of 512 small pages.
var hugeKinds = map[string]func(*testing.T) []byte{
	"thp": func(t *testing.T) []byte {
		mem := aligned(t, unix.MADV_HUGEPAGE)
		if kb := anonHuge(t, mem); kb != hugeSize>>10 {
			t.Fatalf("%d KiB of the buffer are a transparent huge page, want %d", kb, hugeSize>>10)
		}
		return mem
	},
	"hugetlb": func(t *testing.T) []byte {
		const pool = "/proc/sys/vm/nr_hugepages"
		if err := os.WriteFile(pool, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(pool, []byte("0"), 0); err != nil {
				t.Error(err)
			}
		})
		mem, err := unix.Mmap(-1, 0, hugeSize, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB|unix.MAP_POPULATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Munmap(mem) })
		return mem
	},
	"small": func(t *testing.T) []byte { return aligned(t, unix.MADV_NOHUGEPAGE) },
}

// aligned is 2 MiB of touched memory at a multiple of 2 MiB.
func aligned(t *testing.T, advice int) []byte {
	t.Helper()
	mem := anonymous(t, 2*hugeSize/os.Getpagesize())
	off := -uintptr(unsafe.Pointer(&mem[0])) & (hugeSize - 1)
	mem = mem[off : off+hugeSize]
	if err := unix.Madvise(mem, advice); err != nil {
		t.Fatal(err)
	}
	fill(mem, 0)
	return mem
}

// anonHuge is how many KiB of the mapping that mem lies in are huge pages.
func anonHuge(t *testing.T, mem []byte) (kb int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	at := uint64(uintptr(unsafe.Pointer(&mem[0])))
	inside := false
	for _, line := range strings.Split(string(text), "\n") {
		word, rest, _ := strings.Cut(line, " ")
		if from, to, ok := strings.Cut(word, "-"); ok {
			lo, _ := strconv.ParseUint(from, 16, 64)
			hi, _ := strconv.ParseUint(to, 16, 64)
			inside = lo <= at && at < hi
		}
		if inside && word == "AnonHugePages:" {
			fmt.Sscan(rest, &kb)
			return kb
		}
	}
	return 0
}

// transferHuge writes mem to the device and reads it back, rounds times each.
func transferHuge(t *testing.T, fd int, mem []byte, rounds int) {
	t.Helper()
	for i := range rounds {
		want := bytes.Clone(fill(mem, byte(i)))
		for _, step := range []struct {
			name string
			do   func(int, []byte, int64) (int, error)
		}{{"write", unix.Pwrite}, {"read", unix.Pread}} {
			if n, err := step.do(fd, mem, hugeAt); n != hugeSize || err != nil {
				t.Fatalf("%s: %d, %v", step.name, n, err)
			}
			if step.name == "write" {
				clear(mem)
			}
		}
		if !bytes.Equal(mem, want) {
			t.Fatal("other bytes came back")
		}
	}
}

// A huge page as a buffer: the bytes are right and every pin comes back. A part
// of it, from the middle of one small page to that of another, too.
func TestDriverHugePages(t *testing.T) {
	d := hugeRoom(t)
	fd := openRaw(t, unix.O_DIRECT)
	for name, buffer := range hugeKinds {
		t.Run(name, func(t *testing.T) {
			noPins(t, d)
			mem := buffer(t)
			transferHuge(t, fd, mem, 2)
			part := mem[4096*3+512 : 4096*9+1024]
			want := bytes.Clone(part)
			if n, err := unix.Pwrite(fd, part, hugeAt); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
			clear(part)
			if n, err := unix.Pread(fd, part, hugeAt); n != len(part) || err != nil || !bytes.Equal(part, want) {
				t.Fatal(n, err)
			}
		})
	}
}

// The same under the auditor, which counts small pages, and with requests of
// which many hold one page.
func TestDriverHugePagesAudited(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o, v := audit(t, self, "-test.run", "^TestDriver(HugePages|SharedPage)$")
	if o.status != 0 || v.Verdict != "clean" || v.Lost.Events != 0 || v.Lost.UntrackedPages != 0 {
		t.Errorf("status %d, verdict %s, lost %+v\n%s%s", o.status, v.Verdict, v.Lost, o.stdout, o.stderr)
	}
	if least := uint64(len(hugeKinds)*4*512 + 72); v.Pins.Taken < least || v.Pins.Taken != v.Pins.Released {
		t.Errorf("pins %+v, want %d or more, all released", v.Pins, least)
	}
}

// kernelFunctions are what takes and gives back a folio's pins, by any kernel's
// name for it; where the compiler inlined it, it can't be counted.
var kernelFunctions = map[string][]string{
	"take":    {"try_grab_folio_fast", "try_grab_folio", "try_grab_compound_head"},
	"release": {"gup_put_folio", "put_compound_head"},
	"range":   {"unpin_user_page_range_dirty_lock"},
}

// kernelSymbols are the names of the kernel's functions.
func kernelSymbols(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 3 {
			known[f[2]] = true
		}
	}
	return known
}

// countCalls is how often each of kernelFunctions was called during do; what this
// kernel doesn't have, or can't count, is left out.
func countCalls(t *testing.T, do func()) map[string]int {
	t.Helper()
	const tracing = "/sys/kernel/tracing/"
	write := func(file, text string) error {
		f, err := os.OpenFile(tracing+file, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(text)
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	placed := map[string]bool{}
	for what, names := range kernelFunctions {
		for _, name := range names {
			if write("kprobe_events", fmt.Sprintf("p:diohuge/%s %s", what, name)) == nil {
				must(write("events/diohuge/"+what+"/enable", "1"))
				placed[what] = true
				break
			}
		}
	}
	do()
	text, err := os.ReadFile(tracing + "kprobe_profile")
	must(err)
	counts := map[string]int{}
	for _, line := range strings.Split(string(text), "\n") {
		var name string
		var hits int
		if n, _ := fmt.Sscan(line, &name, &hits); n == 2 && placed[name] {
			counts[name] = hits
		}
	}
	for what := range placed {
		must(write("events/diohuge/"+what+"/enable", "0"))
		must(write("kprobe_events", "-:diohuge/"+what))
	}
	return counts
}

// A huge page is pinned and released as one folio, not as 512 pages.
func TestDriverHugePagesByFolio(t *testing.T) {
	const rounds = 4
	const operations = 2 * rounds
	hugeRoom(t)
	fd := openRaw(t, unix.O_DIRECT)
	counted := map[string]map[string]int{}
	for name, buffer := range hugeKinds {
		mem := buffer(t)
		transferHuge(t, fd, mem, 1) // the store's pages
		counted[name] = countCalls(t, func() { transferHuge(t, fd, mem, rounds) })
		t.Logf("%s: %d operations of 2 MiB: %v", name, operations, counted[name])
	}
	whats := []string{"take", "release"}
	known := kernelSymbols(t)
	for what, names := range kernelFunctions {
		// A function that isn't inlined everywhere must be counted, or all below is empty.
		_, ok := counted["small"][what]
		if !ok && slices.ContainsFunc(names, func(n string) bool { return known[n] }) {
			t.Errorf("%s: this kernel has one of %v, and it couldn't be counted", what, names)
		}
		if want := kernelAtLeast(t, 5, 14); what == "range" && ok != want {
			t.Errorf("%v was counted: %v, want %v", names, ok, want)
		}
	}
	if !kernelAtLeast(t, 5, 14) {
		t.Logf("release: before 5.14 the kernel lets go of each page: it has none of %v", kernelFunctions["range"])
		whats = whats[:1]
	}
	// Others may pin and release a page meanwhile, but not hundreds.
	for _, what := range whats {
		if _, ok := counted["small"][what]; !ok {
			t.Logf("%s: this kernel has none of %v to count", what, kernelFunctions[what])
			continue
		}
		if n := counted["small"][what]; n < operations*512 {
			t.Errorf("small pages: %s was called %d times, want %d or more: it is no measure", what, n, operations*512)
			continue
		}
		for _, name := range []string{"thp", "hugetlb"} {
			if n := counted[name][what]; n > operations*8 {
				t.Errorf("%s: %s was called %d times for %d operations", name, what, n, operations)
			}
		}
	}
	for _, name := range []string{"thp", "hugetlb"} {
		if n, ok := counted[name]["range"]; ok && n != operations {
			t.Errorf("%s: %d releases of a range, want one for each of %d operations", name, n, operations)
		}
	}
}
