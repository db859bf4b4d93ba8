// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// found is a kernel in an archive.
type found struct {
	apt      *apt
	suite    string
	release  string
	packages []string
}

// find looks for the newest of row in its suites.
func find(ctx context.Context, h Host, row Row, p Progress) (*found, error) {
	sources, err := machineSources(ctx)
	if err != nil {
		return nil, err
	}
	var problems []error
	for _, suite := range row.Suites {
		f, err := findIn(ctx, h, sources, row, suite, p)
		if err == nil {
			return f, nil
		}
		problems = append(problems, err)
		if !lacking(err) {
			break
		}
	}
	return nil, errors.Join(problems...)
}

// errNotThere is wrapped when an archive answered, and hasn't what was looked for.
var errNotThere = errors.New("it isn't there")

// lacking tells whether the next suite may answer for one that failed with err.
// Where this one couldn't be asked the next may have only an older kernel.
func lacking(err error) bool { return errors.Is(err, errNotThere) || errors.Is(err, ErrNoMirror) }

// findIn looks in one suite, and keeps its apt for the caller.
func findIn(ctx context.Context, h Host, sources []source, row Row, suite string, p Progress) (*found, error) {
	mirror, err := mirrorFor(h, sources, row.Distro, suite)
	if err != nil {
		return nil, err
	}
	a, err := newApt(ctx, row.Distro, suite, mirror, p)
	if err != nil {
		return nil, fmt.Errorf("private apt: %w", err)
	}
	p.Stage("kernel %s: package lists of %s", row.Name, suite)
	var f *found
	if err = a.update(ctx); err == nil {
		f, err = a.newest(ctx, row)
	}
	if err != nil {
		a.close()
		return nil, fmt.Errorf("%s: %w", suite, err)
	}
	f.suite = suite
	return f, nil
}

// newest is the newest kernel of row that the suite has, image and headers:
// by its metapackages, or else by the names of the packages.
func (a *apt) newest(ctx context.Context, row Row) (*found, error) {
	headers, err := a.names(ctx, "linux-headers-")
	if err != nil {
		return nil, err
	}
	images, err := a.names(ctx, "linux-image-")
	if err != nil {
		return nil, err
	}
	release, err := a.metaRelease(ctx, row)
	if err != nil {
		return nil, err
	}
	if release == "" {
		release = newestRelease(headers, images, row)
	}
	if release == "" {
		return nil, fmt.Errorf("kernel %s*%s with headers: %w", row.Series, row.Flavour, errNotThere)
	}
	image := "linux-image-" + release
	if !images[image] {
		image += "-unsigned" // the archive signs later, sometimes never
	}
	pkgs, err := a.closure(ctx, image, "linux-headers-"+release)
	if err != nil {
		return nil, err
	}
	if row.Distro == "ubuntu" {
		// Block devices and the like are in the extra ones.
		modules, err := a.names(ctx, "linux-modules-")
		if err != nil {
			return nil, err
		}
		for _, m := range []string{"linux-modules-" + release, "linux-modules-extra-" + release} {
			if modules[m] && !slices.Contains(pkgs, m) {
				pkgs = append(pkgs, m)
			}
		}
	}
	// Headers may name either image; one is enough.
	pkgs = slices.DeleteFunc(pkgs, func(n string) bool {
		return strings.HasPrefix(n, "linux-image-") && n != image
	})
	return &found{apt: a, release: release, packages: pkgs}, nil
}

// metaRelease follows the metapackages of row to a release; "" without any.
func (a *apt) metaRelease(ctx context.Context, row Row) (string, error) {
	if row.Meta == "" {
		return "", nil
	}
	known, err := a.names(ctx, "linux-headers-")
	if err != nil {
		return "", err
	}
	// A metapackage may lead to another.
	for pkg, hops := "linux-headers-"+row.Meta, 0; known[pkg] && hops < 4; hops++ {
		st, err := a.stanza(ctx, pkg)
		if err != nil {
			return "", err
		}
		pkg = ""
		for _, alts := range depends(st["Depends"]) {
			for _, n := range alts {
				rel, ok := strings.CutPrefix(n, "linux-headers-")
				if !ok {
					continue
				}
				if strings.HasPrefix(rel, row.Series) && strings.HasSuffix(rel, row.Flavour) {
					return rel, nil
				}
				if pkg == "" {
					pkg = n
				}
			}
		}
	}
	return "", nil
}

// newestRelease is the newest of row's releases with headers and an image.
func newestRelease(headers, images map[string]bool, row Row) string {
	best := ""
	for n := range headers {
		rel := strings.TrimPrefix(n, "linux-headers-")
		if !strings.HasPrefix(rel, row.Series) || !strings.HasSuffix(rel, row.Flavour) {
			continue
		}
		if !images["linux-image-"+rel] && !images["linux-image-"+rel+"-unsigned"] {
			continue
		}
		if best == "" || compareReleases(rel, best) > 0 {
			best = rel
		}
	}
	return best
}

// compareReleases orders releases by their numbers.
func compareReleases(a, b string) int {
	for a != "" && b != "" {
		na, ra := leadingNumber(a)
		nb, rb := leadingNumber(b)
		if na >= 0 && nb >= 0 {
			if na != nb {
				return na - nb
			}
			a, b = ra, rb
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func leadingNumber(s string) (int, string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	if i == 0 {
		return -1, s
	}
	n, err := strconv.Atoi(s[:i])
	if err != nil {
		return -1, s
	}
	return n, s[i:]
}
