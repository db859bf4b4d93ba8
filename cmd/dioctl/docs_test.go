// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each row of the walk from the book points at code: the functions that it names in
// front of a file are defined in that file.
func TestBookPointsAtCode(t *testing.T) {
	book, err := os.ReadFile("../../docs/book.md")
	if err != nil {
		t.Fatal(err)
	}
	pointer := regexp.MustCompile("`(\\w+)\\(\\)`|\\]\\(([^)]+)\\)")
	rows := 0
	for _, line := range strings.Split(string(book), "\n") {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "|") || len(cells) != 4 || strings.HasSuffix(cells[2], "in dio") {
			continue
		}
		rows++
		if cells[2] == "same" {
			continue
		}
		var names []string
		for _, m := range pointer.FindAllStringSubmatch(cells[2], -1) {
			if m[1] != "" {
				names = append(names, m[1])
				continue
			}
			source, err := os.ReadFile(filepath.Join("../../docs", m[2]))
			if err != nil || len(names) == 0 {
				t.Errorf("%s: %v, functions %q", cells[0], err, names)
			}
			for _, name := range names {
				if !regexp.MustCompile(`(?m)^\w.*\b` + name + `\(.*[^;]$`).Match(source) {
					t.Errorf("%s: %s doesn't define %s()", cells[0], m[2], name)
				}
			}
			names = nil
		}
		if len(names) > 0 {
			t.Errorf("%s: %q, in which file?", cells[0], names)
		}
	}
	if rows < 17 {
		t.Errorf("only %d rows", rows)
	}
}
