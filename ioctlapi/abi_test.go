// SPDX-License-Identifier: GPL-2.0-only

package ioctlapi

import (
	"os"
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

func TestLimitsAreTheHeaders(t *testing.T) {
	header := readHeader(t)
	for _, want := range []string{
		"#define DIO_LATENCY_MAX_NS	60000000000ULL",
		"#define DIO_CAPACITY_MAX	(1ULL << 40)",
		"#define DIO_REQUEST_MAX		(1ULL << 30)",
		"#define DIO_IN_FLIGHT_MAX	(1U << 20)",
		"#define DIO_BANDWIDTH_MIN	(1ULL << 16)",
		"#define DIO_BANDWIDTH_MAX	(1ULL << 50)",
		"#define DIO_QUEUE_DEPTH_MAX	1024U",
		"#define DIO_BUFFER_MAX		(1ULL << 30)",
		"#define DIO_BUFFERS_MAX		1024U",
		"#define DIO_ABI_VERSION		1\n",
	} {
		if !strings.Contains(header, want) {
			t.Errorf("the header no longer says %q: mend the constants here", want)
		}
	}
}
