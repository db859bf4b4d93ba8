// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"dio/vm/wire"
)

// sendOut sends the file or directory at p as a tar stream whose names are
// relative to it ("." is p itself), then OutEnd with "" or what went wrong.
func (i *pid1) sendOut(n uint8, p string) {
	text := ""
	if err := writeTar(i.out.Stream(wire.Tar, n), p); err != nil {
		text = err.Error()
	}
	_ = i.out.Send(wire.OutEnd, n, []byte(text))
}

func writeTar(w io.Writer, root string) error {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	err = filepath.WalkDir(real, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(real, p)
		if err != nil {
			return err
		}
		return addToTar(t, p, rel)
	})
	return errors.Join(err, t.Close())
}

func addToTar(t *tar.Writer, p, rel string) error {
	fi, err := os.Lstat(p)
	if err != nil {
		return err
	}
	target := ""
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		if target, err = os.Readlink(p); err != nil {
			return err
		}
	case !fi.IsDir() && !fi.Mode().IsRegular():
		// A device or a /proc-like thing can't be taken out as it is.
		return nil
	}
	if fi.Mode().IsRegular() && fi.Size() <= maxUnsized {
		return addUnsized(t, p, rel, fi)
	}
	h, err := tar.FileInfoHeader(fi, target)
	if err != nil {
		return err
	}
	h.Name = rel
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, io.LimitReader(f, fi.Size()))
	return err
}

// maxUnsized is the size, in bytes, that is taken at its word only above: files
// of /proc and tracefs say that they are empty, those of sysfs that they are a
// page long.
const maxUnsized = 1 << 20

// addUnsized takes a file whose size is known only after reading it.
func addUnsized(t *tar.Writer, p, rel string, fi fs.FileInfo) error {
	b, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	h, err := tar.FileInfoHeader(fi, "")
	if err != nil {
		return err
	}
	h.Name, h.Size = rel, int64(len(b))
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = t.Write(b)
	return err
}
