// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/ioctlapi"
)

// What it is, and what hardware can't: each with its errno.
func TestEduDevice(t *testing.T) {
	d := edu(t, eduPath)
	info, err := d.Info()
	if err != nil || info.DriverName() != "dio-edu" || info.Capacity != eduSize || info.MemAlign != 512 || info.Index != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if second, err := edu(t, eduOpenPath).Info(); err != nil || second.DriverName() != "dio-edu" || second.Index != 1 {
		t.Errorf("%s: %+v, %v, want the index 1", eduOpenPath, second, err)
	}
	if has := info.Features; has&ioctlapi.FeatureDMA == 0 || has&(ioctlapi.FeatureMmap|ioctlapi.FeatureDiscard) != 0 {
		t.Errorf("features %v", has)
	}
	config, err := d.Config()
	if err != nil || config.Model != ioctlapi.ModelEdu || config.Capacity != eduSize {
		t.Fatalf("%+v, %v", config, err)
	}
	if err := d.SetConfig(config); err != nil {
		t.Error("set to what it is:", err)
	}
	for name, change := range map[string]func(*ioctlapi.Config){
		"model":        func(c *ioctlapi.Config) { c.Model = ioctlapi.ModelRAM },
		"no model":     func(c *ioctlapi.Config) { c.Model = ioctlapi.ModelEdu + 1 },
		"capacity":     func(c *ioctlapi.Config) { c.Capacity *= 2 },
		"latency":      func(c *ioctlapi.Config) { c.LatencyNS = 1 },
		"inline":       func(c *ioctlapi.Config) { c.Completion = ioctlapi.CompletionInline },
		"auto":         func(c *ioctlapi.Config) { c.Completion = ioctlapi.CompletionAuto },
		"timer":        func(c *ioctlapi.Config) { c.Completion = ioctlapi.CompletionTimer },
		"store limit":  func(c *ioctlapi.Config) { c.StoreLimit += eduSize },
		"bandwidth":    func(c *ioctlapi.Config) { c.Bandwidth = 0 },
		"seed":         func(c *ioctlapi.Config) { c.Seed++ },
		"jitter":       func(c *ioctlapi.Config) { c.JitterNS++ },
		"reposition":   func(c *ioctlapi.Config) { c.RepositionNS++ },
		"distribution": func(c *ioctlapi.Config) { c.Distribution = ioctlapi.DistributionExponential },
		"queue depth":  func(c *ioctlapi.Config) { c.QueueDepth++ },
	} {
		c := config
		change(&c)
		if err := d.SetConfig(c); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", name, err)
		}
	}
	if after, err := d.Config(); err != nil || after != config {
		t.Errorf("refused, yet changed: %+v, %v", after, err)
	}
	if err := openDevice(t).SetConfig(ioctlapi.Config{Fields: ioctlapi.ConfigModel, Model: ioctlapi.ModelEdu}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("software set to be edu: %v, want EINVAL", err)
	}

	if _, err := unix.Mmap(eduRaw(t, eduPath, 0), 0, eduSize, unix.PROT_READ, unix.MAP_SHARED); !errors.Is(err, unix.ENODEV) {
		t.Errorf("mmap: %v, want ENODEV", err)
	}
	if _, err := d.Discard(0, 512); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("discard: %v, want EOPNOTSUPP", err)
	}
	for _, rule := range []ioctlapi.Inject{{Action: ioctlapi.InjectDelay, Every: 1, DelayNS: 1}, {Action: ioctlapi.InjectReorder, Every: 1}} {
		if err := d.Inject(rule); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("inject %v: %v, want EOPNOTSUPP", rule.Action, err)
		}
	}
	mem := anonymous(t, 2)
	for _, flags := range []int{0, unix.O_DIRECT} {
		fd := eduRaw(t, eduPath, flags)
		if n, err := unix.Pread(fd, mem[:512], eduSize); n != 0 || err != nil {
			t.Errorf("flags %#x: read at the end: %d, %v", flags, n, err)
		}
		if _, err := unix.Pwrite(fd, mem[:512], eduSize); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("flags %#x: write at the end: %v, want ENOSPC", flags, err)
		}
		if n, err := unix.Pread(fd, mem, eduSize-512); n != 512 || err != nil {
			t.Errorf("flags %#x: across the end: %d, %v", flags, n, err)
		}
		if _, err := vectored(unix.SYS_PREADV2, fd, iovecs(mem), 0, unix.RWF_NOWAIT); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("flags %#x: RWF_NOWAIT: %v, want EAGAIN", flags, err)
		}
		guarded := anonymous(t, 1)
		if err := unix.Mprotect(guarded, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Pread(fd, guarded, 0); !errors.Is(err, unix.EFAULT) {
			t.Errorf("flags %#x: into no memory: %v, want EFAULT", flags, err)
		}
		if _, err := unix.Pwrite(fd, guarded, 0); !errors.Is(err, unix.EFAULT) {
			t.Errorf("flags %#x: from no memory: %v, want EFAULT", flags, err)
		}
	}
	if _, err := unix.Pread(eduRaw(t, eduPath, unix.O_DIRECT), mem[8:520], 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("O_DIRECT into odd memory: %v, want EINVAL", err)
	}
}

// Bytes go into the hardware and come back by every engine, copied and direct,
// under audit: no page or completion is amiss.
func TestEduEveryEngine(t *testing.T) {
	if !underAudit() {
		t.Setenv(auditedVariable, "1")
		o, v := auditFor(t, 10*commandLimit, os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
		t.Logf("in the audited child:\n%s", o.stderr)
		if o.status != 0 || v.Verdict != "clean" || v.Lost.Events != 0 || v.Lost.UntrackedPages != 0 {
			t.Errorf("exit %d, verdict %s: %s", o.status, v.Verdict, o.stdout)
		}
		if v.Pins.Taken < 20 || v.Pins.Taken != v.Pins.Released || v.Completions.Queued < 10 || v.Completions.Completed < v.Completions.Queued {
			t.Errorf("pins %+v, completions %+v", v.Pins, v.Completions)
		}
		return
	}
	d := edu(t, eduPath)
	for _, e := range engine.Engines() {
		for _, direct := range []bool{false, true} {
			if e.Access == engine.NeedsDirect && !direct {
				continue
			}
			t.Run(fmt.Sprintf("%s/direct=%v", e.Name, direct), func(t *testing.T) {
				f, err := engine.OpenFile(eduPath, engine.FileOptions{Read: true, Write: true, Direct: direct})
				if err != nil {
					t.Fatal(err)
				}
				var no *engine.Unavailable
				err = engine.Probe(e.Name, f)
				f.Close()
				if errors.As(err, &no) {
					// The hardware's bytes aren't memory; the rest the kernel says.
					t.Logf("not here: %s", no.Reason)
					return
				}
				before, err := d.Stats()
				if err != nil {
					t.Fatal(err)
				}
				source := filepath.Join(t.TempDir(), "source")
				if err := os.WriteFile(source, fill(make([]byte, eduSize), byte(before.Writes)), 0o600); err != nil {
					t.Fatal(err)
				}
				sum, back := sumOf(t, source), source+".back"
				flags := []string{"dioctl", "copy", "--engine", e.Name, "--block-size", "2k", "--format", "json", "--sha256"}
				if e.Async {
					flags = append(flags, "--depth", "2")
				}
				if direct {
					flags = append(flags, "--direct=auto") // the file wants whole pages
				}
				there := decode[copyReport](t, mustRun(t, append(slices.Clone(flags), source, eduPath)...))
				got := decode[copyReport](t, mustRun(t, append(slices.Clone(flags), eduPath, back)...))
				if there.SHA256 != sum || got.SHA256 != sum || sumOf(t, back) != sum {
					t.Errorf("SHA-256 %s went, %s arrived, %s came back", sum, there.SHA256, got.SHA256)
				}
				after, err := d.Stats()
				if err != nil {
					t.Fatal(err)
				}
				if moved := after.DMASegments - before.DMASegments; moved < 4 || after.Interrupts-before.Interrupts != moved {
					t.Errorf("%d segments by DMA, %d interrupts, want 4 at least, one for each", moved, after.Interrupts-before.Interrupts)
				}
				wantDirect := e.Access == engine.AlwaysDirect || e.Access != engine.NeverDirect && direct
				if copied := after.BytesCopied != before.BytesCopied; there.Target.Direct != wantDirect || got.Source.Direct != wantDirect || copied == wantDirect && e.Name != "splice" {
					t.Errorf("direct: %v there, %v back, want %v; copied: %v", there.Target.Direct, got.Source.Direct, wantDirect, copied)
				}
			})
		}
	}
}

// Segments, odd places, both families, against what the bytes should be.
func TestEduSegments(t *testing.T) {
	for _, path := range []string{eduPath, eduOpenPath} {
		d := edu(t, path)
		noPins(t, d)
		fd := eduRaw(t, path, unix.O_DIRECT)
		plain := eduRaw(t, path, 0)
		model := make([]byte, eduSize)
		put := func(at int, segments ...[]byte) {
			for _, s := range segments {
				at += copy(model[at:], s)
			}
		}
		same := func(what string) {
			t.Helper()
			got := make([]byte, eduSize)
			if n, err := unix.Pread(plain, got, 0); n != eduSize || err != nil {
				t.Fatalf("%s: %d, %v", what, n, err)
			}
			if !bytes.Equal(got, model) {
				t.Errorf("%s: the device has other bytes than were written", what)
			}
		}
		mem := fill(anonymous(t, 9), 7)
		put(0, mem[:eduSize])
		if n, err := unix.Pwrite(plain, mem[:eduSize], 0); n != eduSize || err != nil {
			t.Fatal(n, err)
		}
		same("copied")
		for _, family := range []ioctlapi.Family{ioctlapi.FamilyPin, ioctlapi.FamilyGet} {
			setConfig(t, d, func(c *ioctlapi.Config) { c.Family = family })
			// Eight sectors of eight pages, the last of each.
			var out, in [][]byte
			back := anonymous(t, 9)
			for i := range 8 {
				end := (i + 1) * eduSize
				out, in = append(out, mem[end-512:end]), append(in, back[end-512:end])
			}
			if n, err := vectored(unix.SYS_PWRITEV2, fd, iovecs(out...), 0, 0); n != eduSize || err != nil {
				t.Fatal(n, err)
			}
			put(0, out...)
			same("eight segments")
			if n, err := vectored(unix.SYS_PREADV2, fd, iovecs(in...), 0, 0); n != eduSize || err != nil || !bytes.Equal(bytes.Join(in, nil), model) {
				t.Errorf("eight segments back: %d, %v", n, err)
			}
			for i := range 8 {
				if end := (i + 1) * eduSize; !bytes.Equal(back[end-eduSize:end-512], make([]byte, eduSize-512)) {
					t.Errorf("page %d: bytes beside the segment were written", i)
				}
			}
			// One that straddles two pages, at a sector in the middle.
			if n, err := unix.Pwrite(fd, mem[3*eduSize-1024:][:2048], 512); n != 2048 || err != nil {
				t.Fatal(n, err)
			}
			put(512, mem[3*eduSize-1024:][:2048])
			same("across pages")
			// The classic way knows no alignment.
			odd := mem[5*eduSize-77:][:1234]
			if n, err := d.WriteAt(odd, 999); n != len(odd) || err != nil {
				t.Fatal(n, err)
			}
			put(999, odd)
			same("odd")
			got := make([]byte, 3)
			if n, err := d.ReadAt(got, eduSize-3); n != 3 || err != nil || !bytes.Equal(got, model[eduSize-3:]) {
				t.Errorf("the last three bytes: %d, %v", n, err)
			}
			if n, err := unix.Pwrite(plain, odd[:1], eduSize-1); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			put(eduSize-1, odd[:1])
			same("one byte, copied")
		}
	}
}

// Errors and short transfers, as with the models.
func TestEduInject(t *testing.T) {
	d := edu(t, eduPath)
	noPins(t, d)
	mem := anonymous(t, 1)
	for _, flags := range []int{0, unix.O_DIRECT} {
		fd := eduRaw(t, eduPath, flags)
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1, Count: 1})
		if _, err := unix.Pread(fd, mem, 0); !errors.Is(err, unix.EIO) {
			t.Errorf("flags %#x: %v, want EIO", flags, err)
		}
		inject(t, d, ioctlapi.Inject{Action: ioctlapi.InjectShort, Every: 1, Count: 1})
		if n, err := unix.Pwrite(fd, mem, 0); n != eduSize/2 || err != nil {
			t.Errorf("flags %#x: %d, %v, want half", flags, n, err)
		}
		if n, err := unix.Pread(fd, mem, 0); n != eduSize || err != nil {
			t.Errorf("flags %#x, used up: %d, %v", flags, n, err)
		}
	}
}

// Each fault that makes sense on hardware is committed there and named.
func TestEduFaults(t *testing.T) {
	edu(t, eduPath)
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, make([]byte, eduSize), 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(engine string) []string {
		return []string{"dioctl", "copy", "--engine", engine, "--direct", source, eduPath}
	}
	read := func(engine string) []string {
		return []string{"dioctl", "copy", "--engine", engine, "--direct", eduPath, source + ".back"}
	}
	for _, c := range []struct {
		rule string
		cmd  []string
	}{
		{"pin-leak", write("preadv")},
		{"over-unpin", write("preadv")},
		{"dirty-missing", read("preadv")},
		{"dirty-needless", write("preadv")},
		{"early-complete", read("aio")},
		{"double-complete", read("io_uring-iopoll")},
		{"lost-complete", read("io_uring")},
	} {
		t.Run(c.rule, func(t *testing.T) {
			mustRun(t, "dioctl", "fault", "arm", "--device", eduPath, "--count", "1", c.rule)
			o, v := audit(t, c.cmd...)
			mustRun(t, "dioctl", "fault", "clear", "--device", eduPath, c.rule)
			if o.status != 1 || !slices.Equal(v.rules(), []string{c.rule}) {
				t.Errorf("exit %d, rules %v, want 1, just %s\n%s%s", o.status, v.rules(), c.rule, o.stdout, o.stderr)
			}
			if o, v = audit(t, c.cmd...); o.status != 0 || v.Verdict != "clean" {
				t.Errorf("cleared: exit %d, %s\n%s", o.status, v.Verdict, o.stdout)
			}
		})
	}
}
