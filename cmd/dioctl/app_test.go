// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// dioctl runs the tool in this process and gives what a shell would see.
func dioctl(t *testing.T, args ...string) (status int, stdout, message string) {
	t.Helper()
	var out, errOut bytes.Buffer
	err := newApp(&out, &errOut).RunContext(context.Background(), append([]string{"dioctl"}, args...))
	if err != nil {
		message = describe(err)
	}
	return exitStatus(err), out.String(), message + errOut.String()
}

func TestUsageErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"frob", "no command"},
		{"vm build --kernel /nonexistent/vmlinuz .", "--kernel /nonexistent/vmlinuz"},
		{"--frob", "frob"},
		{"config frob", "one of get, set"},
		{"copy --frob a b", "copy --help"},
		{"copy a", "SRC and DST"},
		{"copy --engine teleport a b", "unknown engine"},
		{"copy --block-size 4x a b", "bad size"},
		{"copy --direct=maybe a b", "on, off or auto"},
		{"copy --format xml a b", "text or json"},
		{"copy --engine mmap --direct a b", "--direct"},
		{"copy FILE FILE", "same file"},
		{"copy --from-offset 1001 FILE -", "past the end"},
		{"copy --length 2k FILE -", "more than the 1000 bytes"},
		{"copy --depth 100000 FILE -", "out of range"},
		{"copy --verify FILE -", "stream"},
		{"copy /dev/zero -", "give --length"},
		{"read", "one device or file"},
		{"write a b", "one device or file"},
		{"config set", "nothing to set"},
		{"config set --family hold", "pin, get"},
		{"config set --latency 61s", "out of range"},
		{"config set --latency soon", "invalid value"},
		{"config set --max-in-flight 0", "out of range"},
		{"config get a b", "one device"},
		{"stats --watch --reset", "don't go together"},
		{"fault arm", "want one fault"},
		{"fault arm heisenbug", "pin-leak"},
		{"fault arm --every 0 pin-leak", "out of range"},
		{"fault arm --hold 1s pin-leak", "lost-complete and longterm-missing only"},
		{"fault clear a b", "at most"},
		{"fault list x", "unexpected operand"},
	} {
		args := strings.Fields(strings.ReplaceAll(c.args, "FILE", file))
		status, _, msg := dioctl(t, args...)
		if status != exitUsage || !strings.Contains(msg, c.says) {
			t.Errorf("dioctl %s: status %d, %q; want %d and %q", c.args, status, msg, exitUsage, c.says)
		}
	}
}

func TestMissingDevice(t *testing.T) {
	for _, args := range []string{"info /dev/dio77", "config get /dev/dio77", "config set --latency 0 /dev/dio77", "stats /dev/dio77",
		"read /dev/dio77", "fault drain --device /dev/dio77"} {
		status, _, msg := dioctl(t, strings.Fields(args)...)
		if status != exitEnvironment || !strings.Contains(msg, "/dev/dio77") || !strings.Contains(msg, "dioctl vm run") {
			t.Errorf("dioctl %s: status %d, %q", args, status, msg)
		}
	}
}

func TestHints(t *testing.T) {
	for _, c := range []struct {
		err  error
		says string
	}{
		{&ioctlapi.Error{Op: "open", Path: "/dev/dio0", Err: unix.EACCES}, "root"},
		{&ioctlapi.Error{Op: "set the configuration", Path: "/dev/dio0", Err: unix.EPERM}, "CAP_SYS_ADMIN"},
		{&ioctlapi.Error{Op: "read the statistics", Path: "/dev/null", Err: unix.ENOTTY}, "isn't a dio device"},
		{&ioctlapi.Error{Op: "open", Path: "/dev/dio0", Err: unix.ENXIO}, "load the driver"},
		{&os.PathError{Op: "open", Path: "/dev/dio0", Err: unix.ENOENT}, "load the driver"},
		{&os.PathError{Op: "open", Path: "/tmp/x", Err: unix.ENOENT}, ""},
	} {
		if got := hint(c.err); c.says == "" && got != "" || !strings.Contains(got, c.says) {
			t.Errorf("%v: %q, want %q", c.err, got, c.says)
		}
	}
}

func TestFaultListNamesEveryRule(t *testing.T) {
	status, out, _ := dioctl(t, "fault", "list", "--format", "json", "--device", "/dev/dio77")
	var v faultsView
	if err := json.Unmarshal([]byte(out), &v); err != nil || status != exitGood {
		t.Fatal(status, err)
	}
	if len(v.Faults) != len(ioctlapi.Faults()) || v.NoDevice == "" {
		t.Errorf("%d faults, no device: %q", len(v.Faults), v.NoDevice)
	}
	for _, f := range v.Faults {
		if f.Rule == "" || f.When == "" || f.What == "" || f.State != nil || f.Audited != (f.SeenBy == "") {
			t.Errorf("%+v", f)
		}
	}
}

func TestCopyBetweenFiles(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	data := bytes.Repeat([]byte("direct and asynchronous "), 50000)
	if err := os.WriteFile(src, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dst, make([]byte, 2*len(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, msg := dioctl(t, "copy", "--engine", "splice", "--direct=auto", "--verify", "--format", "json", src, dst)
	var v copyView
	if err := json.Unmarshal([]byte(out), &v); err != nil || status != exitGood {
		t.Fatal(status, err, msg)
	}
	if got, _ := os.ReadFile(dst); !bytes.Equal(got, data) {
		t.Error("the copy differs, or the longer target wasn't emptied")
	}
	if v.Schema != "dio.copy/1" || v.Bytes != int64(len(data)) || v.Verified == nil || !*v.Verified || len(v.SHA256) != 64 || v.Source.Engine != "splice" {
		t.Errorf("%+v", v)
	}
	// At an offset, what is around stays.
	status, _, msg = dioctl(t, "copy", "--from-offset", "3", "--to-offset", "1k", "--length", "5", src, dst)
	data = append(append(append([]byte{}, data[:1024]...), data[3:8]...), data[1029:]...)
	if got, _ := os.ReadFile(dst); status != exitGood || !bytes.Equal(got, data) {
		t.Error("copy at an offset:", status, msg)
	}
	// What can't work leaves the target alone.
	for _, args := range [][]string{{"--engine", "ioctl"}, {"--direct", "--block-size", "1000"}} {
		status, _, _ = dioctl(t, append(append([]string{"copy"}, args...), src, dst)...)
		if got, _ := os.ReadFile(dst); status == exitGood || !bytes.Equal(got, data) {
			t.Errorf("%v: status %d, the target has %d bytes", args, status, len(got))
		}
	}
	status, out, msg = dioctl(t, "read", "--discard", "--sha256", "--length", "7", src)
	if status != exitGood || !strings.Contains(out, "7 bytes") || !strings.Contains(out, "sha256") {
		t.Error(status, out, msg)
	}
}

// What stands in a repeatable flag's value is passed on whole.
func TestRepeatableFlagsKeepCommas(t *testing.T) {
	app := newApp(&bytes.Buffer{}, &bytes.Buffer{})
	run := app.Command("vm").Command("run")
	var got [][]string
	run.Action = func(c *cli.Context) error {
		spec, err := specFromFlags(c)
		got = [][]string{spec.Devices, spec.QEMU, spec.Env}
		return err
	}
	if err := app.Run([]string{"dioctl", "vm", "run", "--device", "edu,dma_mask=0xffff", "--device", "pci-testdev", "--qemu-arg", "-drive",
		"--qemu-arg", "if=none,id=a", "--env", "LIST=a,b", "--", "true"}); err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"edu,dma_mask=0xffff", "pci-testdev"}, {"-drive", "if=none,id=a"}, {"LIST=a,b"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
