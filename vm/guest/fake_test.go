// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/vm/wire"
)

// fake is a System without a kernel. What PID 1 does is written down.
type fake struct {
	mu       sync.Mutex
	did      []string
	mountErr map[string]error // by file system
	filled   string           // a folder that the host put files into
	loadErr  error
	startErr error
	port     io.ReadWriter
	stdin    *pipeBuffer
	stdout   string
	kmsg     string
	leaks    string
	noScan   error
	// waits are what Wait gives, in turn; a nil channel gives them at once.
	waits   []waited
	release chan struct{} // if any, Wait blocks for the command until it is closed
	killed  []unix.Signal
	resized []wire.Size
}

type waited struct {
	pid int
	ws  unix.WaitStatus
	err error
}

const pid = 100

func exited(code int) unix.WaitStatus { return unix.WaitStatus(code << 8) }

func signaled(s unix.Signal) unix.WaitStatus { return unix.WaitStatus(s) }

type pipeBuffer struct {
	mu     sync.Mutex
	b      bytes.Buffer
	closed chan struct{}
}

func (p *pipeBuffer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *pipeBuffer) Close() error { close(p.closed); return nil }

type output struct{ io.Reader }

func (output) Drain() {}

func (f *fake) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, s)
}

func (f *fake) Mkdir(p string, _ uint32) error {
	if strings.HasPrefix(p, "/sys/") {
		return unix.EEXIST
	}
	return nil
}

func (f *fake) Empty(p string) bool { return p != f.filled }

func (f *fake) Mount(_, target, fstype string, _ uintptr, _ string) error {
	if err := f.mountErr[fstype]; err != nil {
		return err
	}
	f.note("mount " + target)
	return nil
}

func (f *fake) LoadModule(p string) error {
	f.note("load " + p)
	if strings.Contains(p, "bad") {
		return f.loadErr
	}
	return nil
}

func (f *fake) OpenPort(string, time.Duration) (io.ReadWriter, error) {
	f.note("port")
	if f.port == nil {
		return nil, errors.New("no port")
	}
	return f.port, nil
}

func (f *fake) FindDisk(time.Duration) (string, error) { return "/dev/nvme0n1", nil }

func (f *fake) Settle() { f.note("settle") }

func (f *fake) Start(c Command) (Process, error) {
	f.note("start " + strings.Join(c.Args, " ") + " in " + c.Dir)
	if f.startErr != nil {
		return Process{}, f.startErr
	}
	p := Process{Pid: pid, Stdout: output{strings.NewReader(f.stdout)}, Stderr: output{strings.NewReader("")},
		Resize: func(s wire.Size) error { f.mu.Lock(); f.resized = append(f.resized, s); f.mu.Unlock(); return nil }}
	if c.Stdin {
		p.Stdin = f.stdin
	}
	return p, nil
}

func (f *fake) Wait() (int, unix.WaitStatus, error) {
	f.mu.Lock()
	w := f.waits[0]
	f.waits = f.waits[1:]
	f.mu.Unlock()
	if w.pid == pid && f.release != nil {
		<-f.release
	}
	return w.pid, w.ws, w.err
}

func (f *fake) Kill(p int, s unix.Signal) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p != -pid {
		return unix.ESRCH
	}
	f.killed = append(f.killed, s)
	if f.release != nil {
		close(f.release)
	}
	return nil
}

func (f *fake) Kmsg() (Output, error) { return output{strings.NewReader(f.kmsg)}, nil }

func (f *fake) Jiffies() uint64 { return 42 }

func (f *fake) Kmemleak(since uint64) (string, error) {
	if since != 42 {
		return "", fmt.Errorf("leaks since %d", since)
	}
	return f.leaks, f.noScan
}

func (f *fake) Greeting() wire.Greeting { return wire.Greeting{Release: "1.2.3"} }

func (f *fake) PowerOff() error { f.note("power off"); return nil }

// run1 is one run of PID 1 against a host that answers as the real one, and
// does what host does besides. It returns what the guest sent.
func run1(t *testing.T, f *fake, cfg Config, host func(w *wire.Writer)) ([]wire.Frame, error) {
	t.Helper()
	if len(cfg.Args) == 0 {
		cfg.Args = []string{"/bin/sh"}
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "run.json")
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	f.port = theirs
	frames := make(chan []wire.Frame, 1)
	go func() {
		var got []wire.Frame
		r, w := wire.NewReader(ours), wire.NewWriter(ours)
		for {
			fr, err := r.Next()
			if err != nil {
				frames <- got
				return
			}
			got = append(got, fr)
			switch fr.Type {
			case wire.Hello:
				if host != nil {
					go host(w)
				}
			case wire.Exit, wire.Fail:
				_ = w.Send(wire.Bye, 0, nil)
			}
		}
	}()
	err = Run(f, p)
	theirs.Close()
	return <-frames, err
}

func find(frames []wire.Frame, typ wire.Type) (text string, found bool) {
	for _, f := range frames {
		if f.Type == typ {
			text += string(f.Payload)
			found = true
		}
	}
	return text, found
}

func exitOf(t *testing.T, frames []wire.Frame) wire.Status {
	t.Helper()
	text, ok := find(frames, wire.Exit)
	if !ok {
		t.Fatalf("no exit among %d frames", len(frames))
	}
	var s wire.Status
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}
