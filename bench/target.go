// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"dio/engine"
)

// target is an open file and how it is going to be used.
type target struct {
	file       *engine.File
	variant    string
	size       int64 // bytes of it that are used
	threads    int
	tellsCache bool // mincore tells us the truth
}

// openTarget opens what s wants, the way it wants it; an error is why not.
func openTarget(s Spec) (*target, error) {
	if s.BlockSize < 1 || s.BlockSize > 1<<30 {
		return nil, fmt.Errorf("a block of %d bytes: 1 to 1G make sense", s.BlockSize)
	}
	async, access := false, engine.FollowsFlag
	if s.Engine != Psync {
		e, err := engine.Lookup(s.Engine)
		if err != nil {
			return nil, err
		}
		async, access = e.Async, e.Access
	}
	t := &target{threads: 1}
	if !async {
		if t.threads = s.Depth; s.Depth > maxThreads {
			return nil, fmt.Errorf("it would take %d threads: %d at most", s.Depth, maxThreads)
		}
	}
	direct, err := wantDirect(s.Direct, access)
	if err != nil {
		return nil, err
	}
	if t.file, err = openDirect(s, direct); err != nil {
		return nil, err
	}
	t.variant = variant(t.file, access)
	if t.size, err = sizeOf(t.file, s); err == nil && s.Depth < 1 {
		err = fmt.Errorf("depth %d: 1 or more make sense", s.Depth)
	}
	if err != nil {
		t.file.Close()
		return nil, err
	}
	t.tellsCache = mayTell(t.file)
	return t, nil
}

// wantDirect settles O_DIRECT between what is wanted and what an engine does.
func wantDirect(want Direct, access engine.Access) (Direct, error) {
	switch {
	case access == engine.NeverDirect && want == DirectOn:
		return "", errors.New("it goes through memory whatever O_DIRECT says")
	case access == engine.AlwaysDirect && want == DirectOff:
		return "", errors.New("it pins the buffer whatever O_DIRECT says")
	case access == engine.NeedsDirect && want == DirectOff:
		return "", errors.New("it needs O_DIRECT")
	case access == engine.NeverDirect || access == engine.AlwaysDirect:
		return DirectOff, nil
	}
	return want, nil
}

func variant(f *engine.File, access engine.Access) string {
	switch {
	case access == engine.NeverDirect:
		return "mapped"
	case f.Direct || access == engine.AlwaysDirect:
		return "direct"
	}
	return "buffered"
}

func openDirect(s Spec, direct Direct) (*engine.File, error) {
	o := engine.FileOptions{Read: true, Write: s.RW.Writes(), Direct: direct != DirectOff}
	f, err := engine.OpenFile(s.Target, o)
	if o.Direct && errors.Is(err, unix.EINVAL) {
		if direct == DirectOn {
			return nil, errors.New("its driver or file system refuses O_DIRECT")
		}
		o.Direct = false
		f, err = engine.OpenFile(s.Target, o)
	}
	if err != nil || !f.Direct || s.BlockSize%f.OffsetAlign == 0 && s.BlockSize%f.MemAlign == 0 {
		return f, err
	}
	f.Close()
	if direct == DirectOn {
		return nil, fmt.Errorf("O_DIRECT here carries multiples of %d bytes, and %d isn't one", max(f.OffsetAlign, f.MemAlign), s.BlockSize)
	}
	o.Direct = false
	return engine.OpenFile(s.Target, o)
}

// sizeOf is how many bytes are used.
func sizeOf(f *engine.File, s Spec) (int64, error) {
	size := s.Size
	switch {
	case f.Kind == engine.Stream:
		return 0, errors.New("it is a stream: it has no offsets")
	case f.Size < 0 && size == 0:
		size = DefaultSize
	case f.Size >= 0 && size > f.Size:
		return 0, fmt.Errorf("it has %d bytes, fewer than --size %d", f.Size, size)
	case size == 0:
		size = f.Size
	}
	if size < int64(s.BlockSize) {
		return 0, fmt.Errorf("%d bytes are less than a block", size)
	}
	return size, nil
}

// mayTell is the kernel's own rule: mincore answers "cached" about every page
// to those who neither own the file nor may write to it.
func mayTell(f *engine.File) bool {
	var st unix.Stat_t
	return f.Write || os.Geteuid() == 0 || unix.Fstat(f.FD, &st) == nil && st.Uid == uint32(os.Geteuid())
}

// CreateFile makes a new file of size bytes that don't compress, all of them
// written and on their way to the disk. It fails if path is there.
func CreateFile(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	var seed [32]byte
	random, block := rand.NewChaCha8(seed), make([]byte, 1<<20)
	for left := size; left > 0; left -= int64(len(block)) {
		block = block[:min(left, int64(len(block)))]
		if _, err := random.Read(block); err != nil {
			return err
		}
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}
