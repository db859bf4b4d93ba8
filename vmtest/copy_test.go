// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dio/engine"
	"dio/engine/pump"
	"dio/ioctlapi"
)

const device = "/dev/dio0"

// copyReport is what the tests read of dioctl copy's JSON.
type copyReport struct {
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"`
	Verified *bool  `json:"verified"`
	Source   struct {
		Engine string `json:"engine"`
		Direct bool   `json:"direct"`
		Depth  int    `json:"depth"`
	} `json:"source"`
	Target struct {
		Engine string `json:"engine"`
		Direct bool   `json:"direct"`
		Depth  int    `json:"depth"`
	} `json:"target"`
}

type stats struct {
	PagesPinned   uint64 `json:"pages_pinned"`
	PagesReleased uint64 `json:"pages_released"`
	PagesDirtied  uint64 `json:"pages_dirtied"`
	Submitted     uint64 `json:"submitted"`
	Queued        uint64 `json:"queued"`
	Completed     uint64 `json:"completed"`
	InFlight      uint64 `json:"in_flight"`
	InFlightPeak  uint64 `json:"in_flight_peak"`
	BytesCopied   uint64 `json:"bytes_copied"`
	BytesWritten  uint64 `json:"bytes_written"`
	Stalls        uint64 `json:"stalls"`
}

func resetStats(t *testing.T) { t.Helper(); mustRun(t, "dioctl", "stats", "--reset") }

func readStats(t *testing.T) stats {
	t.Helper()
	return decode[stats](t, mustRun(t, "dioctl", "stats", "--format", "json"))
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// discarded has the range of the device read as zero: what is read there after
// a write is that write's.
func discarded(t *testing.T, at, n int64) {
	t.Helper()
	d, err := ioctlapi.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if done, err := d.Discard(uint64(at), uint64(n)); err != nil || done != uint64(n) {
		t.Fatalf("discard %d bytes at %d: %d, %v", n, at, done, err)
	}
}

// roundTrip copies a file, whose SHA-256 is want, to the device and back and
// compares at each end; flags shape both copies.
func roundTrip(t *testing.T, source, want string, at int64, flags ...string) (there, back copyReport) {
	t.Helper()
	st, err := os.Stat(source)
	if err != nil {
		t.Fatal(err)
	}
	discarded(t, at, st.Size())
	result := filepath.Join(t.TempDir(), "back")
	base := append([]string{"dioctl", "copy", "--format", "json", "--sha256"}, flags...)
	there = decode[copyReport](t, mustRun(t, append(slices.Clone(base), "--verify", "--to-offset", fmt.Sprint(at), source, device)...))
	back = decode[copyReport](t, mustRun(t, append(slices.Clone(base), "--from-offset", fmt.Sprint(at), "--length", fmt.Sprint(st.Size()), device, result)...))
	if there.Bytes != st.Size() || there.SHA256 != want || there.Verified == nil || !*there.Verified {
		t.Errorf("to the device: %+v, want %d bytes of %s", there, st.Size(), want)
	}
	if back.Bytes != st.Size() || back.SHA256 != want || sumOf(t, result) != want {
		t.Errorf("back: %+v, want %d bytes of %s", back, st.Size(), want)
	}
	return there, back
}

// oddSize is past 16 MiB and a multiple of nothing.
const oddSize = 16<<20 + 12345

// audited runs the test again, as a child of this process under audit: not one page
// or completion may be amiss, and so many pages were pinned. False: this is the child.
func audited(t *testing.T, pages uint64) bool {
	t.Helper()
	if underAudit() {
		return false
	}
	t.Setenv(auditedVariable, "1")
	o, v := auditFor(t, 10*commandLimit, os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	t.Logf("in the audited child:\n%s", o.stderr)
	if !strings.Contains(o.stderr, "--- PASS: "+t.Name()) {
		t.Error("the audited child didn't pass")
	}
	if o.status != 0 || v.Verdict != "clean" || v.Lost.Events != 0 || v.Lost.UntrackedPages != 0 {
		t.Errorf("exit %d, verdict %s: %s", o.status, v.Verdict, o.stdout)
	}
	if v.Pins.Taken < pages || v.Pins.Taken != v.Pins.Released {
		t.Errorf("pins %+v, want %d or more, all released", v.Pins, pages)
	}
	return true
}

// A real file goes to the device and back through every engine, one operation
// at a time and many, with O_DIRECT and without; many with O_DIRECT wait for a
// worker, the others are served at once.
func TestCopyEveryEngine(t *testing.T) {
	pages := uint64(oddSize / os.Getpagesize())
	if audited(t, 20*pages) {
		return
	}
	source := sourceFile(t, oddSize)
	sum := sumOf(t, source)
	for _, e := range engine.Engines() {
		for _, depth := range []int{1, 8} {
			for _, direct := range []string{"off", "auto"} {
				if e.Access == engine.NeedsDirect && direct == "off" {
					continue
				}
				if strings.HasPrefix(e.Name, "uring_cmd") && !hasCommands(t, openDevice(t)) {
					run(t, "dioctl", "read", "--engine", e.Name, "--direct", "--length", "4k", device).want(t, 3)
					continue
				}
				t.Run(fmt.Sprintf("%s/depth=%d/direct=%s", e.Name, depth, direct), func(t *testing.T) {
					waits := depth > 1 && direct == "auto"
					if waits {
						configure(t, "--completion", "worker")
					}
					resetStats(t)
					there, back := roundTrip(t, source, sum, 0, "--engine", e.Name, "--depth", fmt.Sprint(depth), "--direct="+direct)
					if there.Target.Engine != e.Name || back.Source.Engine != e.Name || there.Target.Depth != depth {
						t.Errorf("the device was driven otherwise: %+v, %+v", there, back)
					}
					s := readStats(t)
					if s.PagesPinned != s.PagesReleased || s.InFlight != 0 || s.Submitted != s.Completed {
						t.Errorf("left over: %+v", s)
					}
					if waits && e.Access != engine.NeverDirect && s.Queued < 3*oddSize/(1<<20) {
						t.Errorf("%d requests of three transfers waited: %+v", s.Queued, s)
					}
					switch wantDirect := e.Access == engine.AlwaysDirect || e.Access != engine.NeverDirect && direct == "auto"; {
					case there.Target.Direct != wantDirect || back.Source.Direct != wantDirect:
						t.Errorf("direct: %v there, %v back, want %v", there.Target.Direct, back.Source.Direct, wantDirect)
					case wantDirect && !strings.HasSuffix(e.Name, "-fixed") && e.Name != "ioctl-buffer" && e.Name != "splice":
						// Written, read back to verify, read again; two of the three dirty memory.
						if s.PagesPinned < 3*pages || s.PagesDirtied < 2*pages || s.PagesDirtied >= s.PagesPinned {
							t.Errorf("%d pages pinned, %d dirtied, of 3 transfers of %d", s.PagesPinned, s.PagesDirtied, pages)
						}
					case !wantDirect && s.PagesPinned != 0:
						t.Errorf("%d pages pinned without O_DIRECT", s.PagesPinned)
					}
				})
			}
		}
	}
}

// The same with requests that wait, in both families and with each finisher.
func TestCopyWithLatency(t *testing.T) {
	source := sourceFile(t, 1<<20+4096)
	sum := sumOf(t, source)
	for _, family := range []string{"pin", "get"} {
		for _, completion := range []string{"auto", "worker", "timer"} {
			for _, name := range []string{"preadv", "aio", "io_uring", "io_uring-fixed", "io_uring-iopoll", "ioctl", "ioctl-buffer"} {
				t.Run(family+"/"+completion+"/"+name, func(t *testing.T) {
					configure(t, "--family", family, "--completion", completion, "--latency", "1ms")
					resetStats(t)
					roundTrip(t, source, sum, 8192, "--engine", name, "--depth", "16", "--direct", "--block-size", "64k")
					s := readStats(t)
					if s.PagesPinned != s.PagesReleased || s.InFlight != 0 || s.Submitted != s.Completed {
						t.Errorf("left over: %+v", s)
					}
					if s.InFlightPeak < 2 {
						t.Errorf("at most %d in flight, 16 were allowed", s.InFlightPeak)
					}
				})
			}
		}
	}
}

// Odd offsets, lengths and block sizes, as odd as the engine takes them.
func TestCopyOddPlaces(t *testing.T) {
	if audited(t, 256) {
		return
	}
	source := sourceFile(t, 1<<20+1)
	sum := sumOf(t, source)
	for _, e := range engine.Engines() {
		at, block := int64(12345), "9999"
		if e.Access == engine.NeedsDirect {
			at, block = 3*512, fmt.Sprint(19*512)
		}
		if strings.HasPrefix(e.Name, "uring_cmd") && !hasCommands(t, openDevice(t)) {
			continue // TestCopyEveryEngine has it refused
		}
		for _, direct := range []string{"off", "auto"} {
			if e.Access == engine.NeedsDirect && direct == "off" {
				continue
			}
			t.Run(e.Name+"/direct="+direct, func(t *testing.T) {
				roundTrip(t, source, sum, at, "--engine", e.Name, "--depth", "3", "--block-size", block, "--direct="+direct)
			})
		}
	}
}

// Limits of the device: a copy goes on where it can, and says what is wrong
// where it can't.
func TestCopyLimits(t *testing.T) {
	source := sourceFile(t, 1<<20)
	sum := sumOf(t, source)
	t.Run("in flight", func(t *testing.T) {
		configure(t, "--latency", "1ms", "--max-in-flight-file", "3")
		t.Cleanup(func() { mustRun(t, "dioctl", "config", "set", "--max-in-flight-file", "65536") })
		for _, name := range []string{"aio", "io_uring", "preadv"} {
			roundTrip(t, source, sum, 0, "--engine", name, "--direct", "--depth", "16", "--block-size", "16k")
		}
	})
	t.Run("capacity", func(t *testing.T) {
		o := run(t, "dioctl", "copy", "--to-offset", "1G", source, device)
		if o.status != 3 || !strings.Contains(o.stderr, "don't fit") || !strings.Contains(o.stderr, "--capacity") {
			t.Errorf("status %d: %s", o.status, o.stderr)
		}
	})
	t.Run("store", func(t *testing.T) {
		used := decode[struct {
			Pages uint64 `json:"store_pages"`
		}](t, mustRun(t, "dioctl", "stats", "--format", "json")).Pages
		before := decode[struct {
			Limit uint64 `json:"store_limit"`
		}](t, mustRun(t, "dioctl", "config", "get", "--format", "json")).Limit
		t.Cleanup(func() { mustRun(t, "dioctl", "config", "set", "--store-limit", fmt.Sprint(before)) })
		mustRun(t, "dioctl", "config", "set", "--store-limit", fmt.Sprint((used+16)*uint64(os.Getpagesize())))
		for _, name := range []string{"preadv", "aio", "io_uring", "mmap", "ioctl", "splice"} {
			o := run(t, "dioctl", "copy", "--engine", name, "--block-size", "256k", "--to-offset", "512M", source, device)
			if o.status != 3 || !strings.Contains(o.stderr, "store-limit") {
				t.Errorf("%s: status %d: %s", name, o.status, o.stderr)
			}
		}
	})
	t.Run("request", func(t *testing.T) {
		mustRun(t, "dioctl", "config", "set", "--max-request", "64k")
		t.Cleanup(func() { mustRun(t, "dioctl", "config", "set", "--max-request", "64M") })
		roundTrip(t, source, sum, 0, "--direct")
		o := run(t, "dioctl", "copy", "--direct", "--block-size", "128k", source, device)
		if o.status != 3 || !strings.Contains(o.stderr, "max-request") {
			t.Errorf("status %d: %s", o.status, o.stderr)
		}
	})
}

// The engines inside this very process: the 32-bit build runs this, too.
func TestEnginesInProcess(t *testing.T) {
	for i, e := range engine.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			want := make([]byte, 640_000)
			rand.NewChaCha8([32]byte{byte(i)}).Read(want)
			source := filepath.Join(t.TempDir(), "source")
			if err := os.WriteFile(source, want, 0o600); err != nil {
				t.Fatal(err)
			}
			dev, err := engine.OpenFile(device, engine.FileOptions{Read: true, Write: true, Direct: e.Access != engine.NeverDirect})
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			src, err := engine.OpenFile(source, engine.FileOptions{Read: true})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			var no *engine.Unavailable
			if err := engine.Probe(e.Name, dev); errors.As(err, &no) {
				if !strings.HasPrefix(e.Name, "uring_cmd") || hasCommands(t, openDevice(t)) {
					t.Fatal(no)
				}
				t.Skip(no)
			}
			const far = 0x3000_0000
			end := pump.End{File: dev, Engine: e.Name, Offset: far}
			o := pump.Options{Length: int64(len(want)), BlockSize: 64 << 10, Depth: 5}
			if res, err := pump.Run(context.Background(), pump.End{File: src, Engine: "preadv"}, &end, o); err != nil || res.Bytes != o.Length {
				t.Fatalf("to the device: %+v, %v", res, err)
			}
			h := sha256.New()
			o.Hash = h
			res, err := pump.Run(context.Background(), end, nil, o)
			sum := sha256.Sum256(want)
			if err != nil || res.Bytes != o.Length || !bytes.Equal(h.Sum(nil), sum[:]) {
				t.Errorf("back: %+v, %v; SHA-256 equal: %v", res, err, bytes.Equal(h.Sum(nil), sum[:]))
			}
		})
	}
}
