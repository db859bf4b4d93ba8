// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Row is one kernel of the table: where it comes from and what builds
// modules for it. Exact versions vanish from mirrors within weeks, so a row
// names the newest of a series.
type Row struct {
	Name string

	// Distro is whose archive has it: "debian" or "ubuntu"; "" for a
	// kernel that is built here.
	Distro string
	// Suites are where to look, in this order.
	Suites []string
	// Meta is the metapackages' common ending: linux-image-META and
	// linux-headers-META lead to the newest of the series. "" where
	// backports keep several series and the metapackage only one.
	Meta string
	// Series is how release names of the series begin, Flavour how they end.
	Series, Flavour string

	// Compiler is the gcc that the kernel was built with, Glibc what its
	// build tools need. A machine that lacks either builds in a private
	// root of the suite Root.
	Compiler int
	Glibc    [2]int
	Root     string

	// BTF tells how a module gets its type information.
	BTF BTF
}

// BTF is where the base of a module's type information comes from.
type BTF int

// The ways.
const (
	BTFNone    BTF = iota // the kernel can't load a module's
	BTFImage              // from the vmlinux within the image
	BTFHeaders            // the headers bring a vmlinux
)

// Host is what of this machine decides about kernels.
type Host struct {
	ID       string // of os-release: debian, ubuntu
	Codename string // bookworm, trixie, noble
	Version  string // 12, 13, 24.04
}

// ThisHost reads os-release.
func ThisHost() (Host, error) {
	for _, p := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if f, err := os.Open(p); err == nil {
			defer f.Close()
			return parseOSRelease(bufio.NewScanner(f)), nil
		}
	}
	return Host{}, errors.New("this system has no os-release: its distribution is unknown")
}

func parseOSRelease(sc *bufio.Scanner) Host {
	v := map[string]string{}
	for sc.Scan() {
		if k, val, ok := strings.Cut(sc.Text(), "="); ok {
			v[k] = strings.Trim(val, `"'`)
		}
	}
	h := Host{ID: v["ID"], Codename: v["VERSION_CODENAME"], Version: v["VERSION_ID"]}
	if h.ID != "debian" && h.ID != "ubuntu" {
		for _, like := range strings.Fields(v["ID_LIKE"]) {
			if like == "ubuntu" && v["UBUNTU_CODENAME"] != "" {
				h.ID, h.Codename = "ubuntu", v["UBUNTU_CODENAME"]
				break
			}
		}
	}
	return h
}

// Debug is the name of the kernel that is configured and built here, with
// every checker that the kernel has.
const Debug = "debug"

// Stock is the name of Ubuntu's own kernel of this machine's release.
const Stock = "stock"

const cloud = "-cloud-amd64"

// Table is every kernel by name, for this machine.
func Table(h Host) []Row {
	rows := []Row{
		{Name: "5.10", Distro: "debian", Suites: []string{"bullseye-security", "bullseye"}, Series: "5.10.", Flavour: cloud,
			Compiler: 10, Glibc: [2]int{2, 14}, Root: "bookworm", BTF: BTFNone},
		{Name: "6.1", Distro: "debian", Suites: []string{"bookworm-security", "bookworm"}, Series: "6.1.", Flavour: cloud,
			Compiler: 12, Glibc: [2]int{2, 34}, Root: "bookworm", BTF: BTFImage},
		{Name: "6.12", Distro: "debian", Suites: []string{"bookworm-security"}, Meta: "6.12-cloud-amd64", Series: "6.12.", Flavour: cloud,
			Compiler: 12, Glibc: [2]int{2, 34}, Root: "bookworm", BTF: BTFHeaders},
		{Name: "7.2", Distro: "debian", Suites: []string{"trixie-backports"}, Series: "7.2.", Flavour: cloud,
			Compiler: 14, Glibc: [2]int{2, 38}, Root: "trixie", BTF: BTFHeaders},
		{Name: "7.3", Distro: "debian", Suites: []string{"trixie-backports"}, Series: "7.3.", Flavour: cloud,
			Compiler: 14, Glibc: [2]int{2, 38}, Root: "trixie", BTF: BTFHeaders},
	}
	// Debian 13 has a 6.12 of its own, for its own compiler.
	if h.ID == "debian" && h.Codename == "trixie" {
		for i := range rows {
			if rows[i].Name == "6.12" {
				r := &rows[i]
				r.Suites, r.Meta = []string{"trixie-security", "trixie"}, "cloud-amd64"
				r.Compiler, r.Glibc, r.Root = 14, [2]int{2, 38}, "trixie"
			}
		}
	}
	if h.ID == "ubuntu" {
		rows = append(rows, Row{Name: Stock, Distro: "ubuntu", Suites: []string{h.Codename + "-updates", h.Codename}, Meta: "virtual",
			BTF: BTFImage, Flavour: "-generic"})
	}
	return append(rows, Row{Name: Debug, BTF: BTFHeaders})
}

// Default is the name of the kernel taken when none is named: the release's
// stock kernel on Ubuntu, 6.12 elsewhere.
func Default(h Host) string {
	if h.ID == "ubuntu" {
		return Stock
	}
	return "6.12"
}

// ErrUnknown is wrapped for a name that isn't in the table.
var ErrUnknown = errors.New("unknown kernel")

// Find is the row of that name.
func Find(rows []Row, name string) (Row, error) {
	var names []string
	for _, r := range rows {
		if r.Name == name {
			return r, nil
		}
		names = append(names, r.Name)
	}
	return Row{}, fmt.Errorf("%w: %q: want one of %s, or the path to a vmlinuz", ErrUnknown, name, strings.Join(names, ", "))
}
