// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"testing"
)

// auditedTests go through every data path; under the auditor they are clean.
const auditedTests = "^TestDriver(Flags|NowaitSlow|Polled|UringFixed|AsyncVectors|UringFsync|UringCancel|Splice|Sendfile|" +
	"Eventfd|Completions|Order|DirectSegments|MmapProcesses|MmapFork)$"

func TestDriverPathsAudited(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o, v := audit(t, self, "-test.run", auditedTests)
	if o.status != 0 || v.Verdict != "clean" || v.Lost.Events != 0 || v.Lost.UntrackedPages != 0 {
		t.Errorf("status %d, verdict %s, lost %+v\n%s%s", o.status, v.Verdict, v.Lost, o.stdout, o.stderr)
	}
	if v.Pins.Taken < 1000 || v.Pins.Taken != v.Pins.Released || v.Completions.Queued < 200 || v.Completions.Queued != v.Completions.Completed {
		t.Errorf("pins %+v, completions %+v: the tests make far more", v.Pins, v.Completions)
	}
}
