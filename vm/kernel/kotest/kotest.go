// SPDX-License-Identifier: GPL-2.0-only

// Package kotest makes kernel modules for tests that only look at them.
package kotest

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Module is the least ELF file that has these lines in its .modinfo section, such as
// "depends=a,b".
func Module(info ...string) []byte {
	modinfo := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	le := binary.LittleEndian
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	put := func(v any) { _ = binary.Write(&b, le, v) }
	dataAt, namesAt := uint64(64), uint64(64+len(modinfo))
	put([]uint16{1, 62})
	put(uint32(1))
	put([]uint64{0, 0, namesAt + uint64(len(names))})
	put(uint32(0))
	put([]uint16{64, 0, 0, 64, 3, 2})
	b.Write(modinfo)
	b.Write(names)
	section := func(name, typ uint32, off, size uint64) {
		put([]uint32{name, typ})
		put([]uint64{0, 0, off, size})
		put([]uint32{0, 0})
		put([]uint64{1, 0})
	}
	section(0, 0, 0, 0)
	section(1, 1, dataAt, uint64(len(modinfo)))
	section(10, 3, namesAt, uint64(len(names)))
	return b.Bytes()
}
