// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// dioctl write puts its input where it was told to and leaves alone what is around;
// dioctl read gives those bytes and no others. On the device and on a file alike.
func TestToolReadAndWrite(t *testing.T) {
	const piped, filed = "from standard input", "from a file"
	input := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(input, []byte(filed), 0o600); err != nil {
		t.Fatal(err)
	}
	around := bytes.Repeat([]byte{0xee}, 3*os.Getpagesize())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, around, 0o600); err != nil {
		t.Fatal(err)
	}
	pwrite(t, openRaw(t, 0), around, 0)

	want := bytes.Clone(around)
	copy(want[4090:], piped) // over a page boundary
	copy(want[8200:], filed)
	for _, target := range []string{device, file} {
		t.Run(filepath.Base(target), func(t *testing.T) {
			mustRun(t, "sh", "-c", `printf "%s" "$1" | dioctl write --offset 4090 --verify "$2"`, "sh", piped, target)
			mustRun(t, "dioctl", "write", "-i", input, "--offset", "8200", "--sync", target)
			f, err := os.Open(target)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got := make([]byte, len(want))
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v; written elsewhere, or something else: %q, %q", err, got[4080:4120], got[8190:8220])
			}

			slice := want[4088:][:30]
			if o := mustRun(t, "dioctl", "read", "--offset", "4088", "--length", "30", target); !bytes.Equal(o.stdout, slice) {
				t.Errorf("to standard output: %q, want %q", o.stdout, slice)
			}
			output := filepath.Join(t.TempDir(), "output")
			mustRun(t, "dioctl", "read", "--offset", "4088", "--length", "30", "--output", output, target)
			if got, err := os.ReadFile(output); err != nil || !bytes.Equal(got, slice) {
				t.Errorf("to a file: %v, %q, want %q", err, got, slice)
			}
		})
	}
	if st, err := os.Stat(file); err != nil || st.Size() != int64(len(around)) {
		t.Errorf("the file has another size: %v, %v", st, err)
	}
}
