// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"testing"
)

// fioReport is what the tests read of fio's own report.
type fioReport struct {
	Jobs []struct {
		Error int `json:"error"`
		Read  struct {
			IOBytes uint64 `json:"io_bytes"`
		} `json:"read"`
		Write struct {
			IOBytes uint64 `json:"io_bytes"`
		} `json:"write"`
	} `json:"jobs"`
}

// fioArgs are fio's arguments. A block carries the seed, and one of another
// run's is a mismatch.
func fioArgs(engine string, direct bool, size string, seed int) []string {
	flag := "--direct=0"
	if direct {
		flag = "--direct=1"
	}
	return []string{
		"fio", "--name=verify", "--filename=/dev/dio0", "--ioengine=" + engine, flag, "--rw=randwrite", "--bssplit=4k/60:64k/40",
		"--size=" + size, "--iodepth=8", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", fmt.Sprintf("--randseed=%d", seed),
		"--thread", "--output-format=json", "--runtime=60",
	}
}

// fio writes blocks with checksums at random places and reads every one back.
func TestFioVerify(t *testing.T) {
	seed := 0
	for _, engine := range []string{"psync", "libaio", "io_uring"} {
		for _, direct := range []bool{true, false} {
			seed++
			t.Run(fmt.Sprintf("%s/direct=%v", engine, direct), func(t *testing.T) {
				configure(t, "--latency", "100us")
				o := mustRun(t, fioArgs(engine, direct, "4M", seed)...)
				// fio puts remarks before its report
				o.stdout = o.stdout[max(0, bytes.IndexByte(o.stdout, '{')):]
				report := decode[fioReport](t, o)
				if len(report.Jobs) != 1 {
					t.Fatalf("%d jobs in fio's report, want 1", len(report.Jobs))
				}
				job := report.Jobs[0]
				if job.Error != 0 || job.Write.IOBytes < 4<<20 || job.Read.IOBytes < 4<<20 {
					t.Errorf("error %d, %d bytes written, %d verified; want 0 and 4 MiB of each", job.Error, job.Write.IOBytes, job.Read.IOBytes)
				}
			})
		}
	}
}

// The auditor keeps up with fio and finds nothing to say.
func TestFioAudited(t *testing.T) {
	for i, engine := range []string{"psync", "libaio", "io_uring"} {
		t.Run(engine, func(t *testing.T) {
			configure(t, "--latency", "100us")
			args := append([]string{"dioctl", "audit", "--format", "json", "--"}, fioArgs(engine, true, "2M", 100+i)...)
			o := run(t, args...)
			v := verdictOf(t, o)
			if o.status != 0 || v.Verdict != "clean" || v.Pins.Taken < 1024 || v.Pins.Taken != v.Pins.Released {
				t.Errorf("exit %d, %s, pins %+v: %s", o.status, v.Verdict, v.Pins, o.stdout)
			}
		})
	}
}
