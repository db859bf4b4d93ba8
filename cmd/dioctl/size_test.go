// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"math"
	"testing"
)

func TestParseSize(t *testing.T) {
	good := map[string]int64{
		"0": 0, "1": 1, "512": 512, "512B": 512, "4k": 4096, "4K": 4096, "4KB": 4096, "4KiB": 4096, "1M": 1 << 20,
		"2GiB": 2 << 30, "2 GiB": 2 << 30, "1t": 1 << 40, "9223372036854775807": math.MaxInt64, "8388607T": 8388607 << 40,
	}
	for s, want := range good {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "k", "-1", "+1", "1.5k", "4x", "4kk", "4i", "0x10", "9223372036854775808", "8388608T", "99999999999999999999", "1 2"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q was taken for %d", s, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 64 << 20: "64 MiB", 1<<30 + 1<<29: "1.5 GiB", 1 << 40: "1 TiB"} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
