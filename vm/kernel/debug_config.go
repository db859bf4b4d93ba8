// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"crypto/sha256"
	_ "embed" // for the fragment
	"fmt"
	"strings"
)

//go:embed debug.config
var debugFragment string

// configLines are the lines of a fragment that set something.
func configLines(fragment string) []string {
	var out []string
	for _, line := range strings.Split(fragment, "\n") {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}

// debugKey changes with whatever the debug kernel is configured by.
func debugKey() string {
	sum := sha256.Sum256([]byte(strings.Join(configLines(debugFragment), "\n")))
	return fmt.Sprintf("%x", sum[:8])
}

// debugLocalVersion ends the release of a debug kernel. It tells kernels of
// another configuration or source apart, so that a module built for one is
// refused by the other.
func debugLocalVersion(sourceVersion string) string {
	sum := sha256.Sum256([]byte(debugKey() + " " + sourceVersion))
	return fmt.Sprintf("-dio-debug-%x", sum[:3])
}

// notStuck are the wanted lines that a configuration made of them doesn't
// have, each with what it says instead. Kconfig drops what lacks a dependency
// without a word.
func notStuck(wanted []string, config string) []string {
	is := map[string]string{}
	for _, line := range configLines(config) {
		if name, value, ok := strings.Cut(line, "="); ok {
			is[name] = value
		}
	}
	var out []string
	for _, line := range wanted {
		name, want, _ := strings.Cut(line, "=")
		got := is[name]
		if got == "" {
			got = "n"
		}
		if got != want {
			out = append(out, fmt.Sprintf("%s (is %s)", line, got))
		}
	}
	return out
}
