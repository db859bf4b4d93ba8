// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// bigFile is the real file of 16 MiB or more that the runner put into the guest.
func bigFile(t *testing.T) string {
	t.Helper()
	path := os.Getenv("DIO_BIGFILE")
	if path == "" {
		t.Fatal("DIO_BIGFILE names no file: the runner has to put one into the guest")
	}
	return path
}

// sourceFile cuts the first n bytes of the real file into one of its own.
func sourceFile(t *testing.T, n int64) string {
	t.Helper()
	in, err := os.Open(bigFile(t))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	path := filepath.Join(t.TempDir(), "source")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(out, in, n); err != nil {
		t.Fatalf("copy %d bytes of %s: %v", n, bigFile(t), err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
