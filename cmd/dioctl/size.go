// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sizeUnits are powers of 1024, as pages and blocks are.
var sizeUnits = map[string]uint{"": 0, "k": 10, "m": 20, "g": 30, "t": 40}

// parseSize reads a count of bytes: 512, 4k, 1M, 2GiB. Units are powers of
// 1024, in either case, with or without "iB" or "B".
func parseSize(s string) (int64, error) {
	digits := strings.TrimLeft(s, "0123456789")
	number, unit := s[:len(s)-len(digits)], strings.ToLower(strings.TrimSpace(digits))
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	shift, known := sizeUnits[unit]
	if number == "" || !known || strings.EqualFold(strings.TrimSpace(digits), "i") {
		return 0, fmt.Errorf("bad size %q: want a number with an optional k, M, G or T, such as 4k, 1M or 2GiB", s)
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("bad size %q: too large", s)
	}
	return int64(n << shift), nil
}

// formatSize writes bytes for people: exact where a unit divides them, else
// with one decimal.
func formatSize(n int64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		switch unit := int64(1) << u.shift; {
		case n >= unit && n%unit == 0:
			return fmt.Sprintf("%d %s", n>>u.shift, u.name)
		case n >= unit:
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// sizeValue is a size as a command line's flag.
type sizeValue struct {
	n   int64
	set bool
}

func (v *sizeValue) Set(s string) (err error) {
	v.n, err = parseSize(s)
	v.set = err == nil
	return err
}

func (v *sizeValue) String() string {
	if v == nil || !v.set {
		return ""
	}
	return strconv.FormatInt(v.n, 10)
}
