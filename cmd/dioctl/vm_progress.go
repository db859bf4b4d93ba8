// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// progress shows long work: on a terminal one line that is rewritten, in a
// pipe one plain line per stage.
type progress struct {
	f        *os.File
	terminal bool

	mu    sync.Mutex
	width int    // of what is on the line now
	stage string // the last one
}

func progressTo(f *os.File) *progress {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &progress{f: f, terminal: err == nil}
}

// Stage tells what is done now.
func (p *progress) Stage(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage = fmt.Sprintf(format, args...)
	if p.terminal {
		p.rewrite(p.stage)
		return
	}
	fmt.Fprintln(p.f, p.stage)
}

// Write shows the last line of a tool's own output beside the stage, on a
// terminal; a pipe is spared it.
func (p *progress) Write(b []byte) (int, error) {
	if p.terminal {
		lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
		p.mu.Lock()
		defer p.mu.Unlock()
		p.rewrite(p.stage + ": " + strings.TrimSpace(lines[len(lines)-1]))
	}
	return len(b), nil
}

// Clear takes the line away.
func (p *progress) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && p.width > 0 {
		fmt.Fprintf(p.f, "\r\x1b[K")
		p.width = 0
	}
}

func (p *progress) rewrite(text string) {
	cols := 80
	if ws, err := unix.IoctlGetWinsize(int(p.f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
		cols = int(ws.Col)
	}
	if r := []rune(text); len(r) >= cols {
		text = string(r[:cols-1])
	}
	fmt.Fprintf(p.f, "\r\x1b[K%s", text)
	p.width = len(text)
}
