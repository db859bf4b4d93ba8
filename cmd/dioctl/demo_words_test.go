// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"dio/engine"
	"dio/ioctlapi"
)

// What the tour says that the driver calls stands in the driver's source.
func TestDemoWordsAreTheDrivers(t *testing.T) {
	var source []byte
	for _, pattern := range []string{"*.c", "*.h"} {
		files, err := filepath.Glob("../../kmod/" + pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source = append(source, b...)
		}
	}
	words := []string{moveWord, mapWord()}
	for _, family := range []ioctlapi.Family{ioctlapi.FamilyPin, ioctlapi.FamilyGet} {
		take, dirty, release := familyWords(family, engine.Read)
		_, _, plain := familyWords(family, engine.Write)
		words = append(words, take, dirty, release, plain)
	}
	calls := 0
	for _, w := range words {
		for _, name := range regexp.MustCompile(`\w+_\w+|memcpy|PageReserved`).FindAllString(w, -1) {
			calls++
			if !regexp.MustCompile(`\b` + name + `\(`).Match(source) {
				t.Errorf("%q: the driver doesn't call %s", w, name)
			}
		}
	}
	if calls < len(words) {
		t.Errorf("%d names in %q", calls, words)
	}
}
