// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// More of the boot protocol's header.
const (
	offSetupSects = 0x1f1
	offPayload    = 0x248 // from the end of the setup code
	offPayloadLen = 0x24c
)

// extractVmlinux unpacks the ELF kernel within the bzImage at vmlinuz.
func extractVmlinux(ctx context.Context, vmlinuz string, to io.Writer) error {
	b, err := os.ReadFile(vmlinuz)
	if err != nil {
		return err
	}
	packed, err := payload(b)
	if err != nil {
		return fmt.Errorf("%s: %w", vmlinuz, err)
	}
	if err := unpackKernel(ctx, packed, to); err != nil {
		return fmt.Errorf("unpack %s: %w", vmlinuz, err)
	}
	return nil
}

// payload is the compressed kernel within a bzImage.
func payload(b []byte) ([]byte, error) {
	if len(b) < 0x250 || string(b[offMagic:offMagic+4]) != "HdrS" {
		return nil, errNotKernel
	}
	setup := uint64(b[offSetupSects])
	if setup == 0 {
		setup = 4
	}
	start := (setup+1)*512 + uint64(binary.LittleEndian.Uint32(b[offPayload:]))
	end := start + uint64(binary.LittleEndian.Uint32(b[offPayloadLen:]))
	if start >= end || end > uint64(len(b)) || end-start < 8 {
		return nil, fmt.Errorf("%w: its payload is said to be at %d to %d of %d bytes", errNotKernel, start, end, len(b))
	}
	return b[start:end], nil
}

func unpackKernel(ctx context.Context, packed []byte, to io.Writer) error {
	// The build appends the unpacked size, which is none of the stream's.
	stream := packed[:len(packed)-4]
	switch {
	case bytes.HasPrefix(packed, []byte("\x7fELF")):
		_, err := to.Write(packed)
		return err
	case bytes.HasPrefix(packed, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(bytes.NewReader(stream), zstd.WithDecoderMaxWindow(1<<30))
		if err != nil {
			return err
		}
		defer z.Close()
		_, err = io.Copy(to, z)
		return err
	case bytes.HasPrefix(packed, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			return err
		}
		z.Multistream(false)
		_, err = io.Copy(to, z)
		return err
	}
	// Kernels pack xz with its x86 filter, which Go's libraries lack.
	for magic, tool := range map[string]string{"\xfd7zXZ": "xz", "\x02\x21\x4c\x18": "lz4", "BZh": "bzip2", "\x5d\x00\x00": "lzma"} {
		if !bytes.HasPrefix(packed, []byte(magic)) {
			continue
		}
		cmd := exec.CommandContext(ctx, tool, "-dc")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(stream), to
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s -dc: %w: %s", tool, err, bytes.TrimSpace(stderr.Bytes()))
		}
		return nil
	}
	return fmt.Errorf("its compression is unknown: % x", packed[:6])
}

// Vmlinux is the unpacked kernel of img, made on first use and kept in the
// cache. It has no symbols, but type information where the kernel has it.
func Vmlinux(ctx context.Context, img *Image) (string, error) {
	fi, err := os.Stat(img.Vmlinuz)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(CacheDir(), "vmlinux")
	p := filepath.Join(dir, fmt.Sprintf("%s-%d-%d", img.Release, fi.Size(), fi.ModTime().Unix()))
	if _, err := os.Stat(p); err == nil {
		return p, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".unpack-")
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	err = extractVmlinux(ctx, img.Vmlinuz, tmp)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return "", err
	}
	return p, os.Rename(tmp.Name(), p)
}

// notePhys32 is the ELF note (of owner Xen) with the entry point that a
// virtual machine may start an unpacked kernel at.
const notePhys32 = 18

// HasPVH tells whether QEMU can start the ELF kernel at p as it is.
func HasPVH(p string) bool {
	f, err := elf.Open(p)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, ph := range f.Progs {
		if ph.Type != elf.PT_NOTE || ph.Filesz > 1<<20 {
			continue
		}
		b, err := io.ReadAll(ph.Open())
		if err != nil {
			continue
		}
		for len(b) >= 12 {
			name, desc, typ := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
			if typ == notePhys32 && name == 4 && len(b) >= 16 && string(b[12:15]) == "Xen" {
				return true
			}
			size := 12 + (uint64(name)+3)&^3 + (uint64(desc)+3)&^3
			if size > uint64(len(b)) {
				break
			}
			b = b[size:]
		}
	}
	return false
}
