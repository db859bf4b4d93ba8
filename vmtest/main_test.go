// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"dio/vm"
)

// TestMain keeps these tests off the host (the guest's runner sets DIO_GUEST)
// and fails the run for any complaint that the guest's kernel made in it.
func TestMain(m *testing.M) {
	runHelper()
	if os.Getenv("DIO_GUEST") != "1" {
		fmt.Println("vmtest: these tests run inside the VM that `make test` boots; nothing was run here")
		os.Exit(0)
	}
	status := m.Run()
	if os.Getenv(bufferHelper) != "" {
		os.Exit(status) // who started this child looks at the log, and may
	}
	complaints, err := kernelComplaints()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		status = 1
	}
	for _, line := range complaints {
		fmt.Fprintln(os.Stderr, "vmtest: the kernel complained:", line)
		status = 1
	}
	os.Exit(status)
}

// kernelComplaints are the complaints in the kernel's log up to now.
func kernelComplaints() ([]string, error) {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return nil, fmt.Errorf("size of the kernel's log: %w", err)
	}
	log := make([]byte, size)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, log)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's log: %w", err)
	}
	return vm.Complaints(string(log[:n])), nil
}
