// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"bytes"
	"debug/elf"
	"testing"
)

func buildID(t *testing.T, path string) []byte {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := f.Section(".note.gnu.build-id").Data()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestLines(t *testing.T) {
	const file = "testdata/lines.ko"
	m, err := readModuleLines(file, buildID(t, file))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		function string
		offset   uint64
		file     string
		line     int
	}{
		{"set_up", 0, "lines.c", 9},
		{"set_up", 9, "lines.c", 10}, // where the call returns to
		{"work", 0, "lines.c", 14},
		{"work", 12, "lines.c", 16},
		{"absent", 0, "", 0},
		{"work", 1 << 20, "", 0},
	} {
		if name, line := m.at(c.function, c.offset); name != c.file || line != c.line {
			t.Errorf("%s+%d is %s:%d, want %s:%d", c.function, c.offset, name, line, c.file, c.line)
		}
	}
}

// Another build's lines would be wrong.
func TestLinesOfAnotherBuild(t *testing.T) {
	const file = "testdata/lines.ko"
	other := bytes.Clone(buildID(t, file))
	other[len(other)-1]++
	if _, err := readModuleLines(file, other); err == nil {
		t.Error("a file of another build was taken")
	}
}

func TestModuleFileNames(t *testing.T) {
	for name, want := range map[string]bool{
		"null_blk.ko": true, "null-blk.ko": true, "null_blk.ko.debug": true, "null_blk": false, "blk.ko": false, "null_blk.ko.xz": false,
	} {
		if isModuleFile(name, "null_blk") != want {
			t.Errorf("%s: %v, want %v", name, !want, want)
		}
	}
}
