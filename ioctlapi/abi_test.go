// SPDX-License-Identifier: GPL-2.0-only

package ioctlapi

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// cField is a struct member as the header declares it.
type cField struct {
	name         string
	offset, size uintptr
}

const headerPath = "../kmod/uapi/dio.h"

func readHeader(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(headerPath)
	if err != nil {
		t.Fatal(err)
	}
	comments := regexp.MustCompile(`(?s)/\*.*?\*/`)
	return comments.ReplaceAllString(string(b), " ")
}

// cLayout lays a struct of the header out as a 64-bit C compiler does.
func cLayout(t *testing.T, header, name string) (fields []cField, size uintptr) {
	t.Helper()
	body := regexp.MustCompile(`(?s)struct ` + name + ` \{(.*?)\};`).FindStringSubmatch(header)
	if body == nil {
		t.Fatalf("%s: no struct %s", headerPath, name)
	}
	member := regexp.MustCompile(`^(__u32|__u64|char)\s+(\w+)(?:\[(\d+)\])?$`)
	var align uintptr = 1
	for _, decl := range strings.Split(body[1], ";") {
		if decl = strings.TrimSpace(decl); decl == "" {
			continue
		}
		m := member.FindStringSubmatch(decl)
		if m == nil {
			t.Fatalf("struct %s: this test doesn't understand %q", name, decl)
		}
		unit := map[string]uintptr{"__u32": 4, "__u64": 8, "char": 1}[m[1]]
		n := uintptr(1)
		if m[3] != "" {
			v, _ := strconv.Atoi(m[3])
			n = uintptr(v)
		}
		if size%unit != 0 {
			t.Errorf("struct %s: %s at %d isn't naturally aligned: 32-bit callers would differ", name, m[2], size)
		}
		fields = append(fields, cField{m[2], size, unit * n})
		size += unit * n
		align = max(align, unit)
	}
	if size%align != 0 {
		t.Errorf("struct %s: %d bytes, not a multiple of %d: padding at the end", name, size, align)
	}
	return fields, size
}

var mirrors = []struct {
	c      string
	mirror any
}{
	{"dio_info", Info{}}, {"dio_config", Config{}}, {"dio_stats", Stats{}},
	{"dio_transfer", Transfer{}}, {"dio_fault", Fault{}}, {"dio_drain", Drain{}}, {"dio_inject", Inject{}}, {"dio_discard", Discard{}},
	{"dio_uring_cmd", URingCmd{}},
	{"dio_buffer_register", BufferRegister{}}, {"dio_buffer_unregister", BufferUnregister{}},
}

func TestLayoutIsTheHeaders(t *testing.T) {
	header := readHeader(t)
	for _, m := range mirrors {
		fields, size := cLayout(t, header, m.c)
		gt := reflect.TypeOf(m.mirror)
		if gt.Size() != size {
			t.Errorf("struct %s: %d bytes in C, %d in Go", m.c, size, gt.Size())
		}
		if gt.NumField() != len(fields) {
			t.Errorf("struct %s: %d fields in C, %d in Go", m.c, len(fields), gt.NumField())
			continue
		}
		for i, f := range fields {
			gf := gt.Field(i)
			if tag := gf.Tag.Get("json"); tag != f.name || gf.Offset != f.offset || gf.Type.Size() != f.size {
				t.Errorf("struct %s: C has %s at %d of %d bytes, Go has %s at %d of %d",
					m.c, f.name, f.offset, f.size, tag, gf.Offset, gf.Type.Size())
			}
		}
	}
}

func TestCommandsAreTheHeaders(t *testing.T) {
	header := readHeader(t)
	ours := map[string]uint32{
		"INFO": cmdInfo, "GET_CONFIG": cmdGetConfig, "SET_CONFIG": cmdSetConfig, "STATS": cmdStats,
		"TRANSFER": cmdTransfer, "FAULT_ARM": cmdFaultArm, "FAULT_GET": cmdFaultGet,
		"FAULT_CLEAR": cmdFaultClear, "DRAIN": cmdDrain,
		"BUFFER_REGISTER": cmdBufferRegister, "BUFFER_UNREGISTER": cmdBufferUnregister,
		"DISCARD": cmdDiscard, "INJECT": cmdInject, "INJECT_GET": cmdInjectGet, "INJECT_CLEAR": cmdInjectClear,
		"URING_READ": URingRead, "URING_WRITE": URingWrite, "URING_FLUSH": URingFlush, "URING_DISCARD": URingDiscard,
	}
	define := regexp.MustCompile(`#define DIO_(?:IOC_)?(\w+)\s+_IOWR\(DIO_IOC_MAGIC, (0x[0-9a-f]+), struct (\w+)\)`)
	seen := 0
	for _, m := range define.FindAllStringSubmatch(header, -1) {
		nr, _ := strconv.ParseUint(m[2], 0, 8)
		_, size := cLayout(t, header, m[3])
		// _IOC(_IOC_READ|_IOC_WRITE, 0xD1, nr, size), written out.
		want := uint32(3)<<30 | uint32(size)<<16 | 0xD1<<8 | uint32(nr)
		if got, ok := ours[m[1]]; !ok || got != want {
			t.Errorf("DIO_IOC_%s is %#x, here %#x", m[1], want, got)
		}
		seen++
	}
	if seen != len(ours) {
		t.Errorf("%d commands in the header, %d here", seen, len(ours))
	}
	// One by hand, so that the arithmetic above isn't only compared with itself.
	if cmdInfo != 0xC038D100 {
		t.Errorf("DIO_IOC_INFO is %#x, want 0xC038D100", cmdInfo)
	}
}

// headerNames collects the header's NAME = value or (1ULL << n) constants
// that begin with prefix, lower-case and without it.
func headerNames(header, pattern string) map[string]uint64 {
	out := map[string]uint64{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(header, -1) {
		v, _ := strconv.ParseUint(m[2], 10, 64)
		out[strings.ToLower(m[1])] = v
	}
	return out
}

func TestNamesAreTheHeaders(t *testing.T) {
	header := readHeader(t)
	tests := []struct {
		what, pattern string
		names         []string
	}{
		{"model", `DIO_MODEL_(\w+) = (\d+)`, modelNames},
		{"family", `DIO_FAMILY_(\w+) = (\d+)`, familyNames},
		{"distribution", `DIO_DISTRIBUTION_(\w+) = (\d+)`, distributionNames},
		{"inject", `DIO_INJECT_(\w+) = (\d+)`, injectNames},
		{"completion", `DIO_COMPLETION_(\w+) = (\d+)`, completionNames},
		{"fault", `DIO_FAULT_(\w+) = (\d+)`, faultNames},
		{"feature", `#define DIO_FEATURE_(\w+)\s+\(1ULL << (\d+)\)`, featureNames},
		{"config", `#define DIO_CONFIG_(\w+)\s+\(1ULL << (\d+)\)`, configFieldNames},
	}
	for _, tt := range tests {
		c := headerNames(header, tt.pattern)
		if len(c) != len(tt.names) {
			t.Errorf("%s: %d names in the header, %d here", tt.what, len(c), len(tt.names))
		}
		for i, n := range tt.names {
			key := strings.TrimSuffix(strings.ReplaceAll(n, "-", "_"), "_ns")
			if v, ok := c[key]; !ok || v != uint64(i) {
				t.Errorf("%s %s: %d here, in the header %d (there: %v)", tt.what, n, i, v, ok)
			}
		}
	}
}

// numbers are the constants that stand for a plain number of the header's: limits,
// units and bits. Enums, features and commands have tests of their own.
var numbers = []struct {
	c, mirror string
	value     uint64
}{
	{"ABI_VERSION", "ABIVersion", ABIVersion},
	{"LATENCY_MAX_NS", "LatencyMaxNS", LatencyMaxNS},
	{"CAPACITY_MAX", "CapacityMax", CapacityMax},
	{"REQUEST_MAX", "RequestMax", RequestMax},
	{"IN_FLIGHT_MAX", "InFlightMax", InFlightMax},
	{"BANDWIDTH_MIN", "BandwidthMin", BandwidthMin},
	{"BANDWIDTH_MAX", "BandwidthMax", BandwidthMax},
	{"QUEUE_DEPTH_MAX", "QueueDepthMax", QueueDepthMax},
	{"BUFFER_MAX", "BufferMax", BufferMax},
	{"BUFFERS_MAX", "BuffersMax", BuffersMax},
	{"URING_BLOCK", "URingBlock", URingBlock},
	{"TRANSFER_WRITE", "TransferWrite", TransferWrite},
	{"TRANSFER_BUFFER", "TransferBuffer", TransferBuffer},
	{"BUFFER_WRITABLE", "BufferWritable", BufferWritable},
	{"INJECT_READS", "InjectReads", InjectReads},
	{"INJECT_WRITES", "InjectWrites", InjectWrites},
	{"STATS_RESET", "statsReset", statsReset},
	{"IOC_MAGIC", "iocMagic", iocMagic},
}

// cNumber evaluates a constant of the header as Go, whose operators are C's but for
// the suffixes of numbers.
func cNumber(t *testing.T, name, expr string) uint64 {
	t.Helper()
	plain := regexp.MustCompile(`\b(0x[0-9a-fA-F]+|\d+)[uUlL]+\b`).ReplaceAllString(expr, "$1")
	v, err := types.Eval(token.NewFileSet(), nil, token.NoPos, plain)
	if err != nil || v.Value == nil {
		t.Fatalf("DIO_%s: this test doesn't understand %q: %v", name, expr, err)
	}
	n, exact := constant.Uint64Val(constant.ToInt(v.Value))
	if !exact {
		t.Fatalf("DIO_%s: %q is %v, no 64-bit number", name, expr, v.Value)
	}
	return n
}

// untypedNumbers are the package's exported constants that are plain numbers.
func untypedNumbers(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			consts, ok := decl.(*ast.GenDecl)
			if !ok || consts.Tok != token.CONST {
				continue
			}
			typed := false // as enums and commands are
			for _, spec := range consts.Specs {
				spec := spec.(*ast.ValueSpec)
				if len(spec.Values) > 0 { // else it repeats the one before
					typed = spec.Type != nil
				}
				for i, name := range spec.Names {
					text := false
					if i < len(spec.Values) {
						lit, ok := spec.Values[i].(*ast.BasicLit)
						text = ok && lit.Kind == token.STRING
					}
					if name.IsExported() && !typed && !text {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

func TestNumbersAreTheHeaders(t *testing.T) {
	header, rows := readHeader(t), map[string]bool{}
	defines := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#define DIO_(\w+)[ \t]+(\S.*?)[ \t]*$`).FindAllStringSubmatch(header, -1) {
		defines[m[1]] = m[2]
	}
	for _, n := range numbers {
		rows[n.mirror] = true
		expr, ok := defines[n.c]
		if !ok {
			t.Errorf("%s: no DIO_%s in the header", n.mirror, n.c)
			continue
		}
		delete(defines, n.c)
		if v := cNumber(t, n.c, expr); v != n.value {
			t.Errorf("DIO_%s is %d in the header, %s %d here", n.c, v, n.mirror, n.value)
		}
	}
	for name, expr := range defines {
		if !strings.HasPrefix(name, "FEATURE_") && !strings.HasPrefix(name, "CONFIG_") && !strings.HasPrefix(expr, "_IOWR(") {
			t.Errorf("DIO_%s, %s in the header, is compared with nothing here", name, expr)
		}
	}

	// The header only speaks of it; the driver has it.
	rows["HoldMaxMS"] = true
	fault, err := os.ReadFile("../kmod/fault.c")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^#define DIO_HOLD_MS_MAX[ \t]+(\w+)$`).FindSubmatch(fault); m == nil {
		t.Error("kmod/fault.c has no DIO_HOLD_MS_MAX")
	} else if v := cNumber(t, "HOLD_MS_MAX", string(m[1])); v != HoldMaxMS {
		t.Errorf("DIO_HOLD_MS_MAX is %d in the driver, HoldMaxMS %d here", v, HoldMaxMS)
	}

	for _, name := range untypedNumbers(t) {
		if !rows[name] {
			t.Errorf("%s is compared with nothing of the header", name)
		}
		delete(rows, name)
	}
	for name := range rows {
		if token.IsExported(name) {
			t.Errorf("this package no longer has %s", name)
		}
	}
}
