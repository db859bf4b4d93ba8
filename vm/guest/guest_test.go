// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/vm/wire"
)

func TestOrder(t *testing.T) {
	f := &fake{stdout: "hello", kmsg: "[    1.000000] a record\n", leaks: "unreferenced object 0x1", waits: []waited{{pid, exited(7), nil}}}
	frames, err := run1(t, f, Config{Early: []string{"/virtio.ko"}, Modules: []string{"/dio.ko"}, Disk: true, Dir: "/work"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, want := range []string{"mount /dev", "mount /proc", "load /virtio.ko", "port", "mount /tmp", "settle", "mount " + DiskPath, "load /dio.ko", "start /bin/sh in /work", "power off"} {
		i := slices.Index(f.did, want)
		if i < 0 {
			t.Fatalf("%q was not done: %q", want, f.did)
		}
		order = append(order, want)
		if j := slices.Index(f.did, order[max(0, len(order)-2)]); j > i {
			t.Errorf("%q came before %q", want, f.did[j])
		}
	}
	if s := exitOf(t, frames); s.Code != 7 {
		t.Errorf("status %+v", s)
	}
	if out, _ := find(frames, wire.Stdout); out != "hello" {
		t.Errorf("stdout %q", out)
	}
	if log, _ := find(frames, wire.Kmsg); !strings.Contains(log, "a record") || !strings.Contains(log, "unreferenced object") {
		t.Errorf("kernel log %q", log)
	}
	if frames[len(frames)-1].Type != wire.Exit || frames[0].Type != wire.Hello {
		t.Error("Hello must be first and Exit last: what follows Exit is lost")
	}
}

// A detector that is off is told: silence would look like no leaks.
func TestNoLeakScan(t *testing.T) {
	f := &fake{noScan: unix.EPERM, waits: []waited{{pid, exited(0), nil}}}
	frames, err := run1(t, f, Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if note, ok := find(frames, wire.Note); !ok || !strings.Contains(note, unix.EPERM.Error()) {
		t.Errorf("note %q", note)
	}
	if s := exitOf(t, frames); s.Code != 0 {
		t.Errorf("status %+v", s)
	}
}

// Orphans that PID 1 inherits are reaped, and interrupted waits repeated.
func TestReap(t *testing.T) {
	f := &fake{waits: []waited{{0, 0, unix.EINTR}, {55, exited(1), nil}, {56, signaled(unix.SIGKILL), nil}, {pid, signaled(unix.SIGSEGV), nil}}}
	frames, err := run1(t, f, Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := exitOf(t, frames); s.Code != 139 || s.Signal != "SIGSEGV" {
		t.Errorf("status %+v", s)
	}
	if len(f.waits) != 0 {
		t.Errorf("%d children were left", len(f.waits))
	}
}

func TestWaitFails(t *testing.T) {
	f := &fake{waits: []waited{{0, 0, unix.ECHILD}}}
	frames, _ := run1(t, f, Config{}, nil)
	if text, ok := find(frames, wire.Fail); !ok || !strings.Contains(text, "wait") {
		t.Errorf("fail %q", text)
	}
	if _, ok := find(frames, wire.Exit); ok {
		t.Error("a lost command was told as ended")
	}
}

func TestSignalAndResize(t *testing.T) {
	f := &fake{release: make(chan struct{}), waits: []waited{{pid, signaled(unix.SIGTERM), nil}}}
	frames, err := run1(t, f, Config{}, func(w *wire.Writer) {
		// The command may not have started yet: keep asking.
		for range 100 {
			time.Sleep(5 * time.Millisecond)
			f.mu.Lock()
			started := slices.ContainsFunc(f.did, func(s string) bool { return strings.HasPrefix(s, "start") })
			f.mu.Unlock()
			if started {
				break
			}
		}
		time.Sleep(20 * time.Millisecond)
		_ = w.SendJSON(wire.Resize, wire.Size{Rows: 3, Cols: 4})
		_ = w.SendUint32(wire.Signal, uint32(unix.SIGTERM))
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := exitOf(t, frames); s.Code != 143 || s.Signal != "SIGTERM" {
		t.Errorf("status %+v", s)
	}
	if len(f.killed) != 1 || f.killed[0] != unix.SIGTERM || len(f.resized) != 1 || f.resized[0] != (wire.Size{Rows: 3, Cols: 4}) {
		t.Errorf("killed %v, resized %v", f.killed, f.resized)
	}
}

func TestInput(t *testing.T) {
	f := &fake{release: make(chan struct{}), stdin: &pipeBuffer{closed: make(chan struct{})}, waits: []waited{{pid, exited(0), nil}}}
	go func() { <-f.stdin.closed; time.Sleep(20 * time.Millisecond); close(f.release) }()
	frames, err := run1(t, f, Config{Stdin: true}, func(w *wire.Writer) {
		_ = w.Send(wire.Stdin, 0, []byte("one "))
		_ = w.Send(wire.Stdin, 0, []byte("two"))
		_ = w.Send(wire.StdinEnd, 0, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.stdin.b.String(); got != "one two" {
		t.Errorf("the command read %q", got)
	}
	credit := 0
	for _, fr := range frames {
		if fr.Type == wire.Credit {
			n, err := fr.Uint32()
			if err != nil {
				t.Error(err)
			}
			credit += int(n)
		}
	}
	if credit != len("one two") {
		t.Errorf("granted %d bytes", credit)
	}
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		f    *fake
		cfg  Config
		want string // within Fail
	}{
		"module":                      {&fake{loadErr: unix.ENOEXEC}, Config{Modules: []string{"/bad.ko"}}, "/bad.ko"},
		"symbol":                      {&fake{loadErr: unix.ENOENT}, Config{Modules: []string{"/bad.ko"}}, "symbol"},
		"a file system":               {&fake{mountErr: map[string]error{"tmpfs": unix.ENOMEM}}, Config{}, "tmpfs"},
		"an optional one that breaks": {&fake{mountErr: map[string]error{"debugfs": unix.ENOMEM}}, Config{}, "debugfs"},
		"the disk":                    {&fake{mountErr: map[string]error{"ext4": unix.EINVAL}}, Config{Disk: true}, DiskPath},
	} {
		frames, _ := run1(t, c.f, c.cfg, nil)
		text, ok := find(frames, wire.Fail)
		if !ok || !strings.Contains(text, c.want) {
			t.Errorf("%s: %q, want %q in it", name, text, c.want)
		}
		if !slices.Contains(c.f.did, "power off") {
			t.Errorf("%s: the guest was left running", name)
		}
	}
	// Not having an optional one is no failure.
	f := &fake{mountErr: map[string]error{"tracefs": unix.ENODEV, "bpf": unix.ENOENT, "devtmpfs": unix.EBUSY}, waits: []waited{{pid, exited(0), nil}}}
	frames, err := run1(t, f, Config{}, nil)
	if err != nil || exitOf(t, frames).Code != 0 {
		t.Errorf("without tracefs: %v", err)
	}
}

// What the host put into /tmp must not disappear under a mount.
func TestMountKeepsFiles(t *testing.T) {
	f := &fake{filled: "/tmp", waits: []waited{{pid, exited(0), nil}}}
	if _, err := run1(t, f, Config{}, nil); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(f.did, "mount /tmp") || !slices.Contains(f.did, "mount /run") {
		t.Errorf("%q", f.did)
	}
}

func TestCannotStart(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		err  error
		code int
	}{
		"not there":      {Config{Args: []string{"no-such-program"}}, nil, 127},
		"not executable": {Config{Args: []string{"/bin/sh"}}, unix.EACCES, 126},
		"no interpreter": {Config{Args: []string{"/bin/sh"}}, unix.ENOENT, 127},
	} {
		f := &fake{startErr: c.err}
		frames, _ := run1(t, f, c.cfg, nil)
		if s := exitOf(t, frames); s.Code != c.code {
			t.Errorf("%s: %+v, want %d", name, s, c.code)
		}
		if note, _ := find(frames, wire.Note); !strings.Contains(note, c.cfg.Args[0]) {
			t.Errorf("%s: the person is told %q", name, note)
		}
	}
}

func TestNoConfig(t *testing.T) {
	for name, text := range map[string]string{"missing": "", "no JSON": "{", "no command": "{}"} {
		p := filepath.Join(t.TempDir(), "run.json")
		if text != "" {
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f := &fake{}
		if err := Run(f, p); err == nil || !slices.Equal(f.did, []string{"power off"}) {
			t.Errorf("%s: %v, did %q", name, err, f.did)
		}
	}
}

func TestOuts(t *testing.T) {
	d := t.TempDir()
	for p, text := range map[string]string{"tree/a": "A", "tree/sub/b": "BB", "empty": ""} {
		p = filepath.Join(d, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", d+"/tree/link"); err != nil {
		t.Fatal(err)
	}
	f := &fake{waits: []waited{{pid, exited(0), nil}}}
	frames, err := run1(t, f, Config{Outs: []string{d + "/tree", d + "/nosuch", d + "/empty", "/proc/self/comm"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	tars, ends := map[uint8]*bytes.Buffer{}, map[uint8]string{}
	for _, fr := range frames {
		switch fr.Type {
		case wire.Tar:
			if tars[fr.Stream] == nil {
				tars[fr.Stream] = new(bytes.Buffer)
			}
			tars[fr.Stream].Write(fr.Payload)
		case wire.OutEnd:
			ends[fr.Stream] = string(fr.Payload)
		}
	}
	names := func(n uint8) string {
		var out []string
		for r := tar.NewReader(tars[n]); ; {
			h, err := r.Next()
			if err != nil {
				return strings.Join(out, " ")
			}
			b, _ := io.ReadAll(r)
			out = append(out, h.Name+"="+string(b)+h.Linkname)
		}
	}
	if got := names(0); got != "./= a=A link=a sub/= sub/b=BB" && got != ".= a=A link=a sub= sub/b=BB" {
		t.Errorf("tree: %q", got)
	}
	if ends[1] == "" || ends[0] != "" || ends[2] != "" {
		t.Errorf("ends %q", ends)
	}
	if got := names(2); got != ".=" {
		t.Errorf("empty: %q", got)
	}
	if got := names(3); len(got) < 3 || ends[3] != "" {
		t.Errorf("a file of /proc: %q, %q", got, ends[3])
	}
}

func TestEnvironment(t *testing.T) {
	env := environment([]string{"HOME=/x", "NEW=1", "NEW=2"})
	for want, n := range map[string]int{"HOME=/x": 1, "HOME=/root": 0, "NEW=2": 1, "NEW=1": 0, "PATH=" + searchPath: 1} {
		got := 0
		for _, e := range env {
			if e == want {
				got++
			}
		}
		if got != n {
			t.Errorf("%s: %d times in %q", want, got, env)
		}
	}
}

func TestConsoleLine(t *testing.T) {
	for rec, want := range map[string]string{
		"4,12,5123456,-;WARNING: CPU: 0\n SUBSYSTEM=x\n": "[    5.123456] WARNING: CPU: 0\n",
		"6,1,0,c,caller=T1;text; with more\n":            "[    0.000000] text; with more\n",
		"no record":                                      "",
		"1,2;short":                                      "",
		"1,2,x,-;text":                                   "",
	} {
		if got, ok := consoleLine(rec); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", rec, got, ok)
		}
	}
}

// A child that lives on and keeps the pipe open must not hold up the end,
// and nothing written before the end may be lost.
func TestDrain(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	d, err := newDrainable(p[0])
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("x"), 50000)
	if _, err := unix.Write(p[1], want); err != nil {
		t.Fatal(err)
	}
	d.Drain()
	d.Drain() // twice is once
	got, err := io.ReadAll(d)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}
