// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"io"
	"sync"
)

// input holds what the host sent for the command's standard input until
// the command reads it, so that a command that never reads doesn't keep
// signals and the host's last word waiting. The host's credit bounds it.
type input struct {
	mu      sync.Mutex
	more    sync.Cond
	chunks  [][]byte
	ended   bool
	granted func(n uint32) error // tells the host that n bytes were consumed
}

func newInput(granted func(uint32) error) *input {
	i := &input{granted: granted}
	i.more.L = &i.mu
	return i
}

func (i *input) push(b []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.ended {
		i.chunks = append(i.chunks, b)
		i.more.Signal()
	}
}

func (i *input) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ended = true
	i.more.Signal()
}

// feed writes the input to w until its end, then closes w. A command that
// closed its end, or takes no input (w is nil), gets the rest thrown away.
func (i *input) feed(w io.WriteCloser) {
	broken := w == nil
	for {
		i.mu.Lock()
		for len(i.chunks) == 0 && !i.ended {
			i.more.Wait()
		}
		if len(i.chunks) == 0 {
			i.mu.Unlock()
			if w != nil {
				_ = w.Close()
			}
			return
		}
		b := i.chunks[0]
		i.chunks = i.chunks[1:]
		i.mu.Unlock()
		if !broken {
			if _, err := w.Write(b); err != nil {
				broken = true
			}
		}
		if i.granted(uint32(len(b))) != nil {
			broken = true
		}
	}
}
