// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// outSink unpacks one output's tar stream as it comes.
type outSink struct {
	out  Out
	pipe *io.PipeWriter
	done chan error
}

func newOutSink(o Out) *outSink { return &outSink{out: o} }

func (o *outSink) data(b []byte) {
	if o.pipe == nil {
		r, w := io.Pipe()
		o.pipe, o.done = w, make(chan error, 1)
		go func() {
			err := unpack(r, o.out.Host)
			// Keep taking what comes: the guest must not block on a
			// full disk of the host.
			_, _ = io.Copy(io.Discard, r)
			o.done <- err
		}()
	}
	_, _ = o.pipe.Write(b)
}

// finish ends the stream; why is the guest's error, or "".
func (o *outSink) finish(why string) error {
	var err error
	if o.pipe != nil {
		o.pipe.Close()
		err = <-o.done
		o.pipe = nil
	}
	if why != "" {
		err = errors.New(why)
	}
	if err != nil {
		return fmt.Errorf("bring %s to %s: %w", o.out.Guest, o.out.Host, err)
	}
	return nil
}

// abandon ends a stream whose guest is gone.
func (o *outSink) abandon() {
	if o.pipe != nil {
		o.pipe.CloseWithError(io.ErrUnexpectedEOF)
		<-o.done
		o.pipe = nil
	}
}

// unpack writes the one file, or the folder, of a tar stream to host. The
// guest isn't trusted: nothing it names can land outside.
func unpack(r io.Reader, host string) error {
	t := tar.NewReader(r)
	h, err := t.Next()
	if errors.Is(err, io.EOF) {
		return errors.New("nothing there that can be brought back")
	}
	if err != nil {
		return err
	}
	if h.Typeflag != tar.TypeDir {
		if fi, err := os.Stat(host); err == nil && fi.IsDir() {
			return fmt.Errorf("%s is a folder here, a file in the guest", host)
		}
		if err := os.MkdirAll(filepath.Dir(host), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(host, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode(h))
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		return errors.Join(err, f.Close())
	}
	if err := os.MkdirAll(host, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(host)
	if err != nil {
		return err
	}
	defer root.Close()
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpackEntry(root, t, h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func unpackEntry(root *os.Root, t *tar.Reader, h *tar.Header) error {
	name := path.Clean(h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(name, mode(h)|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeSymlink:
		_ = root.Remove(name)
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode(h))
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		return errors.Join(err, f.Close())
	}
	return nil
}

// mode keeps permissions only: a set-user-ID bit from a guest is nothing
// that a host should take over.
func mode(h *tar.Header) fs.FileMode { return fs.FileMode(h.Mode) & fs.ModePerm }
