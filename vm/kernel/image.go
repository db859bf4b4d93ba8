// SPDX-License-Identifier: GPL-2.0-only

// Package kernel knows the kernels that dio is tested on: where each comes
// from, how to fetch it without installing anything, what builds modules
// for it, and what its modules need.
package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Image is a kernel that is on this machine, ready to boot.
type Image struct {
	Name    string // as asked for: "6.12", "debug" or a path
	Release string // as uname -r says
	Vmlinuz string
	Modules string // folder lib/modules/RELEASE; "" when there is none
	Headers string // prepared tree for building modules; "" when there is none
	Chroot  string // where its modules must be built; "" for this machine itself
}

// Release reads the release from a bzImage's own header.
func Release(vmlinuz string) (string, error) {
	f, err := os.Open(vmlinuz)
	if err != nil {
		return "", err
	}
	defer f.Close()
	rel, err := release(f)
	if err != nil {
		return "", fmt.Errorf("%s: %w", vmlinuz, err)
	}
	return rel, nil
}

// The boot protocol's header, Documentation/arch/x86/boot.rst.
const (
	offMagic   = 0x202
	offVersion = 0x20e // kernel_version: where the string is, less 0x200
)

var errNotKernel = errors.New("not an x86 kernel image (bzImage)")

func release(r io.ReaderAt) (string, error) {
	var h [0x210]byte
	if _, err := r.ReadAt(h[:], 0); err != nil || string(h[offMagic:offMagic+4]) != "HdrS" {
		return "", errNotKernel
	}
	off := int64(binary.LittleEndian.Uint16(h[offVersion:]))
	if off == 0 {
		return "", fmt.Errorf("%w: it tells no version", errNotKernel)
	}
	var s [256]byte
	n, err := r.ReadAt(s[:], off+0x200)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	text, _, ok := bytes.Cut(s[:n], []byte{0})
	rel, _, _ := strings.Cut(string(text), " ")
	if !ok || rel == "" {
		return "", errNotKernel
	}
	return rel, nil
}

// FromPath is the Image of a vmlinuz given by its path. Its modules are
// looked for in lib/modules or usr/lib/modules of the folders above it,
// then of this machine; headers may be "".
func FromPath(vmlinuz, headers string) (*Image, error) {
	abs, err := filepath.Abs(vmlinuz)
	if err != nil {
		return nil, err
	}
	rel, err := Release(abs)
	if err != nil {
		return nil, err
	}
	img := &Image{Name: vmlinuz, Release: rel, Vmlinuz: abs}
	for d := filepath.Dir(abs); img.Modules == ""; d = filepath.Dir(d) {
		for _, sub := range []string{"lib/modules", "usr/lib/modules"} {
			if m := filepath.Join(d, sub, rel); isDir(m) {
				img.Modules = m
			}
		}
		if d == "/" {
			break
		}
	}
	if headers != "" {
		if img.Headers, err = filepath.Abs(headers); err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(img.Headers, "Makefile")); err != nil {
			return nil, fmt.Errorf("--headers %s: no Makefile there: give the folder that /lib/modules/%s/build would point to", headers, rel)
		}
	}
	return img, nil
}

func isDir(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.IsDir()
}
