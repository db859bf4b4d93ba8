// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// archive is an apt-cache that knows these packages, each with what it depends on.
func archive(t *testing.T, packages map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, depends := range packages {
		text := fmt.Sprintf("Package: %s\nVersion: 1\nDepends: %s\nDescription: of %s\n more of it\n\n", name, depends, name)
		if err := os.WriteFile(filepath.Join(dir, name+".deb822"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := `#!/bin/sh
cd "` + dir + `" || exit 1
while [ $# -gt 0 ] && [ "$1" != pkgnames ] && [ "$1" != show ]; do shift; done # options
case $1 in
pkgnames) ls | sed -n "s/^\($2.*\)[.]deb822/\1/p" ;;
show) for last; do :; done; cat "$last.deb822" ;;
*) exit 1 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "apt-cache"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// The metapackages lead to a release, though the archive has newer ones of its
// series that they don't speak of yet, and others' kernels beside them.
func TestNewestByMetapackage(t *testing.T) {
	for _, c := range []struct {
		name     string
		row      Row
		packages map[string]string
		release  string
		with     []string // among what is to be fetched
		without  []string
	}{
		{
			name: "Debian", row: Row{Distro: "debian", Meta: "6.12-cloud-amd64", Series: "6.12.", Flavour: "-cloud-amd64"},
			packages: map[string]string{
				"linux-image-6.12-cloud-amd64":                    "linux-image-6.12.9+deb12-cloud-amd64 (= 6.12.9-1)",
				"linux-headers-6.12-cloud-amd64":                  "linux-headers-6.12.9+deb12-cloud-amd64 (= 6.12.9-1)",
				"linux-image-6.12.9+deb12-cloud-amd64":            "kmod, linux-base (>= 4.3~)",
				"linux-headers-6.12.9+deb12-cloud-amd64":          "linux-headers-6.12.9+deb12-common, linux-image-6.12.9+deb12-cloud-amd64 | linux-image-6.12.9+deb12-cloud-amd64-unsigned, linux-kbuild-6.12.9+deb12",
				"linux-headers-6.12.9+deb12-common":               "",
				"linux-kbuild-6.12.9+deb12":                       "libc6 (>= 2.36)",
				"linux-image-6.12.10+deb12-cloud-amd64-unsigned":  "kmod",
				"linux-headers-6.12.10+deb12-cloud-amd64":         "linux-headers-6.12.10+deb12-common",
				"linux-headers-6.12.10+deb12-common":              "",
				"linux-image-6.12.9+deb12-cloud-amd64-unsigned":   "kmod",
				"linux-headers-6.1.0-40-cloud-amd64":              "linux-headers-6.1.0-40-common",
				"linux-image-6.12.9+deb12-amd64":                  "kmod",
				"linux-headers-6.12-cloud-amd64-and-nothing-else": "",
			},
			release: "6.12.9+deb12-cloud-amd64",
			with:    []string{"linux-image-6.12.9+deb12-cloud-amd64", "linux-headers-6.12.9+deb12-common", "linux-kbuild-6.12.9+deb12"},
			without: []string{"linux-image-6.12.9+deb12-cloud-amd64-unsigned", "libc6", "kmod"},
		},
		{
			name: "Ubuntu, through two metapackages", row: Row{Distro: "ubuntu", Meta: "virtual", Flavour: "-generic"},
			packages: map[string]string{
				"linux-headers-virtual":                "linux-headers-generic",
				"linux-headers-generic":                "linux-headers-6.8.0-52-generic",
				"linux-image-virtual":                  "linux-image-6.8.0-52-generic, linux-firmware",
				"linux-headers-6.8.0-52-generic":       "linux-headers-6.8.0-52, libc6",
				"linux-headers-6.8.0-52":               "",
				"linux-image-6.8.0-52-generic":         "kmod, linux-modules-6.8.0-52-generic",
				"linux-modules-6.8.0-52-generic":       "",
				"linux-modules-extra-6.8.0-52-generic": "",
				"linux-headers-6.11.0-17-generic":      "linux-hwe-6.11-headers-6.11.0-17",
				"linux-image-6.11.0-17-generic":        "kmod",
			},
			release: "6.8.0-52-generic",
			with:    []string{"linux-image-6.8.0-52-generic", "linux-headers-6.8.0-52", "linux-modules-6.8.0-52-generic", "linux-modules-extra-6.8.0-52-generic"},
			without: []string{"linux-image-6.11.0-17-generic", "linux-firmware", "libc6"},
		},
		{
			name: "no metapackage", row: Row{Distro: "debian", Series: "7.2.", Flavour: "-cloud-amd64"},
			packages: map[string]string{
				"linux-headers-7.2.9+deb13-cloud-amd64":         "",
				"linux-image-7.2.9+deb13-cloud-amd64":           "",
				"linux-headers-7.2.12+deb13-cloud-amd64":        "",
				"linux-image-7.2.12+deb13-cloud-amd64-unsigned": "",
				"linux-headers-7.2.13+deb13-cloud-amd64":        "", // its image isn't there yet
			},
			release: "7.2.12+deb13-cloud-amd64",
			with:    []string{"linux-image-7.2.12+deb13-cloud-amd64-unsigned", "linux-headers-7.2.12+deb13-cloud-amd64"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			archive(t, c.packages)
			f, err := (&apt{dir: t.TempDir()}).newest(context.Background(), c.row)
			if err != nil || f.release != c.release {
				t.Fatalf("%+v, %v, want %s", f, err, c.release)
			}
			for _, p := range c.with {
				if !slices.Contains(f.packages, p) {
					t.Errorf("%s isn't to be fetched: %s", p, strings.Join(f.packages, " "))
				}
			}
			for _, p := range c.without {
				if slices.Contains(f.packages, p) {
					t.Errorf("%s is to be fetched: %s", p, strings.Join(f.packages, " "))
				}
			}
		})
	}
}
