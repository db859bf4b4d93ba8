// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// prepareBTF puts a vmlinux with type information into the headers, where
// kbuild looks for the base of a module's; nothing where the kernel can't
// use it or the headers brought one. It returns variables for make.
func prepareBTF(ctx context.Context, img *Image, row Row, p Progress) ([]string, error) {
	if row.BTF == BTFNone {
		return nil, nil
	}
	at := filepath.Join(img.Headers, "vmlinux")
	if _, err := os.Stat(at); errors.Is(err, fs.ErrNotExist) {
		if row.BTF != BTFImage || row.Distro == "" && !inCache(img.Headers) {
			return nil, nil // headers of the user's own are left alone
		}
		p.Stage("unpacking the type information of %s", img.Release)
		from, err := Vmlinux(ctx, img)
		if err != nil {
			return nil, fmt.Errorf("type information of %s: %w", img.Release, err)
		}
		if !hasSection(from, ".BTF") {
			return nil, nil
		}
		if err := os.Link(from, at); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("type information of %s: %w", img.Release, err)
		}
	} else if err != nil {
		return nil, err
	}
	if err := need("pahole"); err != nil {
		return nil, fmt.Errorf("type information: %w", err)
	}
	if _, err := os.Stat(filepath.Join(img.Headers, "tools/bpf/resolve_btfids/resolve_btfids")); errors.Is(err, fs.ErrNotExist) {
		// Debian's 6.1 ships without it. It fills in tables of kfuncs
		// alone.
		return []string{"RESOLVE_BTFIDS=true"}, nil
	}
	return nil, nil
}

func inCache(p string) bool {
	rel, err := filepath.Rel(CacheDir(), p)
	return err == nil && filepath.IsLocal(rel)
}

func hasSection(p, name string) bool {
	f, err := elf.Open(p)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Section(name) != nil
}
