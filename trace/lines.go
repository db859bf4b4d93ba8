// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lines finds the source lines of modules' functions, in the debug
// information of their .ko files. Where there is none, or the file isn't the
// one that runs, it finds nothing: a wrong line is worse than none.
type lines struct {
	paths   []string // files and folders to look for them
	modules map[string]*moduleLines
}

func newLines(symbols string) *lines {
	l := &lines{modules: map[string]*moduleLines{}}
	if symbols != "" {
		l.paths = append(l.paths, symbols)
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		release := unix.ByteSliceToString(uts.Release[:])
		for _, root := range []string{"/usr/lib/debug/lib/modules", "/usr/lib/debug/usr/lib/modules", "/lib/modules"} {
			// Modules built out of tree are mostly here, and the rest is large.
			l.paths = append(l.paths, filepath.Join(root, release, "updates"), filepath.Join(root, release, "extra"),
				filepath.Join(root, release))
		}
	}
	return l
}

// at is the file and line of an instruction, offset bytes into a function.
func (l *lines) at(module, function string, offset uint64) (string, int) {
	m, ok := l.modules[module]
	if !ok {
		m = l.load(module)
		l.modules[module] = m
	}
	if m == nil {
		return "", 0
	}
	return m.at(function, offset)
}

// load reads the first file of the module that has lines and is the one that
// runs; nil if there is none.
func (l *lines) load(module string) *moduleLines {
	running, err := os.ReadFile("/sys/module/" + module + "/notes/.note.gnu.build-id")
	if err != nil {
		return nil // nothing could tell that a file is the right one
	}
	for _, path := range l.paths {
		var found *moduleLines
		filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !isModuleFile(d.Name(), module) {
				return nil
			}
			if m, err := readModuleLines(file, running); err == nil {
				found = m
				return fs.SkipAll
			}
			return nil
		})
		if found != nil {
			return found
		}
	}
	return nil
}

// isModuleFile says whether a file's name is the module's: in names of files
// a dash may stand for the underscore.
func isModuleFile(file, module string) bool {
	name := strings.TrimSuffix(strings.TrimSuffix(file, ".debug"), ".ko")
	return name != file && strings.ReplaceAll(name, "-", "_") == module
}

// moduleLines is the debug information of one module.
type moduleLines struct {
	data  *dwarf.Data
	entry map[string]uint64 // functions, by name
}

// sectionShift sets the executable sections of a .ko apart. Before it is
// loaded all of them begin at 0, and an address would mean one place in each.
const sectionShift = 32

// readModuleLines reads a .ko, or the file of debug information split from
// it, if its build ID is the one given (the whole note).
func readModuleLines(path string, buildID []byte) (*moduleLines, error) {
	image, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	note := f.Section(".note.gnu.build-id")
	if note == nil {
		return nil, fmt.Errorf("%s has no build ID", path)
	}
	if id, err := note.Data(); err != nil || !bytes.Equal(id, buildID) {
		return nil, fmt.Errorf("%s is not the module that runs", path)
	}
	if f.Section(".debug_line") == nil {
		return nil, fmt.Errorf("%s has no debug information", path)
	}
	if err := partSections(f, image); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m := &moduleLines{entry: map[string]uint64{}}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("read the symbols of %s: %w", path, err)
	}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			if _, twice := m.entry[s.Name]; twice {
				s.Value = 0 // which of them isn't known
			}
			m.entry[s.Name] = s.Value
		}
	}
	// Applies the relocations, by the symbols as they are now.
	if m.data, err = f.DWARF(); err != nil {
		return nil, fmt.Errorf("read the debug information of %s: %w", path, err)
	}
	return m, nil
}

// partSections moves the symbols of each executable section to addresses of
// its own, in the image that f reads.
func partSections(f *elf.File, image []byte) error {
	table := f.SectionByType(elf.SHT_SYMTAB)
	if f.Type != elf.ET_REL || f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || table == nil {
		return errors.New("not a 64-bit little-endian object")
	}
	const size, sectionAt, valueAt = 24, 6, 8
	end := table.Offset + table.FileSize
	if end > uint64(len(image)) || end < table.Offset {
		return errors.New("its symbols lie outside the file")
	}
	for at := table.Offset; at+size <= end; at += size {
		section := int(binary.LittleEndian.Uint16(image[at+sectionAt:]))
		if section == 0 || section >= len(f.Sections) || f.Sections[section].Flags&elf.SHF_EXECINSTR == 0 {
			continue
		}
		value := binary.LittleEndian.Uint64(image[at+valueAt:])
		binary.LittleEndian.PutUint64(image[at+valueAt:], value+uint64(section)<<sectionShift)
	}
	return nil
}

// at is the line of a function's entry (offset 0), or of the call before the
// return address. A file of the module's own is told by its place there.
func (m *moduleLines) at(function string, offset uint64) (string, int) {
	pc := m.entry[function]
	if pc == 0 {
		return "", 0
	}
	if offset > 0 {
		pc += offset - 1
	}
	unit, err := m.data.Reader().SeekPC(pc)
	if err != nil {
		return "", 0
	}
	line, ok := m.line(unit, pc)
	if !ok {
		return "", 0
	}
	name, _ := unit.Val(dwarf.AttrName).(string)
	dir, _ := unit.Val(dwarf.AttrCompDir).(string)
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	for _, base := range []string{filepath.Dir(name), dir} {
		if rel, err := filepath.Rel(base, line.File.Name); err == nil && filepath.IsLocal(rel) {
			return rel, line.Line
		}
	}
	return line.File.Name, line.Line
}

// line finds the row that covers pc. (LineReader's own search expects the
// sections of a unit in the order of their addresses.)
func (m *moduleLines) line(unit *dwarf.Entry, pc uint64) (dwarf.LineEntry, bool) {
	var row, next dwarf.LineEntry
	reader, err := m.data.LineReader(unit)
	if err != nil || reader == nil {
		return row, false
	}
	row.EndSequence = true
	for reader.Next(&next) == nil {
		if !row.EndSequence && row.File != nil && row.Address <= pc && pc < next.Address {
			return row, true
		}
		row = next
	}
	return row, false
}
