// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"os"
	"testing"
)

// TestMain keeps these tests off the host: the guest's runner sets DIO_GUEST.
func TestMain(m *testing.M) {
	if os.Getenv("DIO_GUEST") != "1" {
		fmt.Println("vmtest: these tests run inside the VM that `make test` boots; nothing was run here")
		os.Exit(0)
	}
	os.Exit(m.Run())
}
