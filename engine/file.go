// SPDX-License-Identifier: GPL-2.0-only

package engine

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// FileKind is what a path turned out to be.
type FileKind uint8

const (
	Regular FileKind = iota
	BlockDevice
	CharDevice
	DioDevice // a char device of the dio driver
	Stream    // a pipe, socket or terminal: no offsets
)

// String is what messages call it, such as "block device".
func (k FileKind) String() string {
	return [...]string{"file", "block device", "char device", "dio device", "stream"}[k]
}

// FileOptions say how to open a file.
type FileOptions struct {
	Read, Write bool
	Create      bool // make the file if it isn't there; mode 0666 less the umask
	Truncate    bool // empty a regular file first
	Direct      bool // O_DIRECT
}

// File is an open file, with what the engines must know of it.
type File struct {
	FD              int
	Path            string
	Kind            FileKind
	Read, Write     bool // what it is open for
	Direct          bool
	Size            int64 // bytes when opened; -1: it has none (streams, /dev/zero)
	MemAlign        int   // bytes, 1 or more; O_DIRECT: addresses and lengths are multiples of it
	OffsetAlign     int   // bytes, 1 or more; O_DIRECT: offsets and lengths are multiples of it
	AlignIsAGuess   bool  // neither the kernel nor the driver told MemAlign and OffsetAlign
	dev             *ioctlapi.Device
	keepDescriptors bool
}

// OpenFile opens path. Errors are *os.PathError.
func OpenFile(path string, o FileOptions) (*File, error) {
	flags := unix.O_CLOEXEC | unix.O_LARGEFILE
	switch {
	case o.Read && o.Write:
		flags |= unix.O_RDWR
	case o.Write:
		flags |= unix.O_WRONLY
	}
	if o.Create {
		flags |= unix.O_CREAT
	}
	if o.Truncate {
		flags |= unix.O_TRUNC
	}
	if o.Direct {
		flags |= unix.O_DIRECT
	}
	fd, err := ignoreEINTR(func() (int, error) { return unix.Open(path, flags, 0o666) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := &File{FD: fd, Path: path, Read: o.Read || !o.Write, Write: o.Write, Direct: o.Direct}
	if err := f.learn(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f, nil
}

// StreamFile makes a File of a descriptor that the caller keeps: standard
// input or output. Its offsets aren't used, even when it has some, so that a
// shell's redirections behave.
func StreamFile(fd int, name string, write bool) *File {
	return &File{FD: fd, Path: name, Kind: Stream, Read: !write, Write: write, Size: -1,
		MemAlign: 1, OffsetAlign: 1, keepDescriptors: true}
}

// Close closes the descriptor; StreamFile's stays open. An error is an
// *os.PathError, and the descriptor is gone then, too. Closing again does nothing.
func (f *File) Close() error {
	if f.keepDescriptors || f.FD < 0 {
		return nil
	}
	fd := f.FD
	f.FD = -1
	if err := unix.Close(fd); err != nil {
		return &os.PathError{Op: "close", Path: f.Path, Err: err}
	}
	return nil
}

// Device is the file as a dio device, or nil when it isn't one. It lives as
// long as the File.
func (f *File) Device() *ioctlapi.Device { return f.dev }

// learn finds out what was opened.
func (f *File) learn() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.FD, &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Path, Err: err}
	}
	f.Size, f.MemAlign, f.OffsetAlign = -1, 1, 1
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f.Kind, f.Size = Regular, st.Size
		f.learnAlignment()
	case unix.S_IFBLK:
		f.Kind = BlockDevice
		end, err := unix.Seek(f.FD, 0, unix.SEEK_END)
		if err != nil {
			return &os.PathError{Op: "find the size of", Path: f.Path, Err: err}
		}
		f.Size = end
		f.learnAlignment()
		if n, err := unix.IoctlGetInt(f.FD, unix.BLKSSZGET); f.AlignIsAGuess && err == nil && n > 0 {
			f.MemAlign, f.OffsetAlign, f.AlignIsAGuess = n, n, false
		}
	case unix.S_IFCHR:
		f.learnChar()
	case unix.S_IFDIR:
		return &os.PathError{Op: "open", Path: f.Path, Err: unix.EISDIR}
	default:
		f.Kind = Stream
	}
	return nil
}

func (f *File) learnChar() {
	f.Kind = CharDevice
	dev := ioctlapi.FromFD(ioctlapi.Linux{}, f.FD, f.Path)
	if info, err := dev.Info(); err == nil && info.IsDio() {
		f.Kind, f.dev = DioDevice, dev
		f.Size = int64(info.Capacity)
		f.MemAlign, f.OffsetAlign = max(1, int(info.MemAlign)), max(1, int(info.OffsetAlign))
		return
	}
	if _, err := unix.Seek(f.FD, 0, unix.SEEK_CUR); err != nil {
		f.Kind = Stream // a terminal
	}
}

// learnAlignment asks what O_DIRECT needs. Kernels before 6.1, and many file
// systems, don't tell: then a page, which satisfies all that are known.
func (f *File) learnAlignment() {
	var stx unix.Statx_t
	err := unix.Statx(f.FD, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stx)
	if err == nil && stx.Mask&unix.STATX_DIOALIGN != 0 && stx.Dio_offset_align != 0 {
		f.MemAlign, f.OffsetAlign = int(stx.Dio_mem_align), int(stx.Dio_offset_align)
		return
	}
	f.MemAlign, f.OffsetAlign, f.AlignIsAGuess = unix.Getpagesize(), unix.Getpagesize(), true
}

// Aligned tells whether O_DIRECT can carry n bytes at offset to or from
// buffer memory at buf.
func (f *File) Aligned(buf []byte, offset int64) bool {
	return offset%int64(f.OffsetAlign) == 0 && len(buf)%f.OffsetAlign == 0 && len(buf)%f.MemAlign == 0 &&
		base(buf)%uintptr(f.MemAlign) == 0
}

// fsync is fsync(2), for the engines whose API has no sync of its own.
func (f *File) fsync() error {
	_, err := ignoreEINTR(func() (int, error) { return 0, unix.Fsync(f.FD) })
	return err
}

// ignoreEINTR repeats a call that a signal interrupted: Go's runtime sends
// itself some.
func ignoreEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// unavailable is an *Unavailable about f.
func (f *File) unavailable(engine string, err error, format string, args ...any) error {
	return &Unavailable{Engine: engine, Path: f.Path, Reason: fmt.Sprintf(format, args...), Err: err}
}
