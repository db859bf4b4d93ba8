// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// independent is what bpftrace counts where the auditor counts, by whose probes it
// isn't touched: of each function that this kernel has.
var independent = []struct{ function, probe string }{
	{"pin_user_pages_fast", "kretprobe:%s /(int32)retval > 0/ { @taken = sum((int32)retval); }"},
	{"unpin_user_pages", "kprobe:%s { @released = sum(arg1); }"},
	{"unpin_user_page_range_dirty_lock", "kprobe:%s { @released = sum(arg1); }"},
	// Without dirtying it calls unpin_user_pages.
	{"unpin_user_pages_dirty_lock", "kprobe:%s /arg2 & 1/ { @released = sum(arg1); }"},
	{"aio_complete_rw", "kprobe:%s { @completed = count(); }"},
	{"io_complete_rw", "kprobe:%s { @completed = count(); }"},
}

// The auditor's numbers are those of a tool that knows nothing of it.
func TestAuditBpftrace(t *testing.T) {
	if !kernelAtLeast(t, 6, 1) {
		t.Skip("bpftrace wants the kernel's headers in the guest here: it doesn't read this kernel's BTF")
	}
	symbols, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	program := ""
	for _, i := range independent {
		for _, kind := range []string{"t", "T"} {
			if bytes.Contains(symbols, []byte(" "+kind+" "+i.function+"\n")) {
				program += fmt.Sprintf(i.probe, i.function) + "\n"
			}
		}
	}
	dioctl, err := exec.LookPath("dioctl")
	if err != nil {
		t.Fatal(err)
	}
	configure(t, "--latency", "1ms")
	dir, source := t.TempDir(), sourceFile(t, 3<<20)
	counts, report := filepath.Join(dir, "counts"), filepath.Join(dir, "report")
	for engine, work := range map[string]string{
		"aio":      "copy --direct --depth 8 -b 48k -e aio --read-engine preadv " + source + " /dev/dio0",
		"io_uring": "read --direct --depth 8 -b 48k -e io_uring --discard --length 3M /dev/dio0",
	} {
		command := fmt.Sprintf("%s audit --format json --output %s -- dioctl %s", dioctl, report, work)
		mustRun(t, "bpftrace", "-f", "json", "-o", counts, "-e", program, "-c", command)
		seen := readCounts(t, counts)
		text, err := os.ReadFile(report)
		if err != nil {
			t.Fatal(err)
		}
		v := reported(t, text)
		t.Logf("%s: bpftrace %v, the auditor %+v %+v", engine, seen, v.Pins, v.Completions)
		if v.Verdict != "clean" || v.Pins.Taken != seen["@taken"] || v.Pins.Released != seen["@released"] || v.Completions.Completed != seen["@completed"] {
			t.Errorf("%s: %s: they differ", engine, v.Verdict)
		}
		if seen["@taken"] < 3<<20/4096 || seen["@completed"] == 0 {
			t.Errorf("%s: bpftrace saw too little: %v", engine, seen)
		}
	}
}

// readCounts reads bpftrace's JSON: an object a line.
func readCounts(t *testing.T, path string) map[string]uint64 {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var line struct {
			Type string          `json:"type"`
			Data json.RawMessage `json:"data"`
		}
		var one map[string]uint64
		if strings.TrimSpace(lines.Text()) == "" || json.Unmarshal(lines.Bytes(), &line) != nil || line.Type != "map" {
			continue
		}
		if err := json.Unmarshal(line.Data, &one); err != nil {
			t.Fatalf("%v: %s", err, line.Data)
		}
		for name, n := range one {
			counts[name] = n
		}
	}
	return counts
}
