// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// DebugCost is what building the debug kernel takes, in words.
const DebugCost = "10 to 25 minutes on 2 cores"

// debugSource is the package that the debug kernel is built from: it is in
// the suites of the kernel debugSeries.
const (
	debugSeries = "6.12"
	debugSource = "linux-source-" + debugSeries
)

// debugSpace is what sources and objects take while it is built.
const debugSpace = 5 << 30

// debugBuild is one build of the debug kernel.
type debugBuild struct {
	apt     *apt
	version string // of the source package
	work    string // folder with the sources and objects, kept until it is done
	p       Progress
}

func (b *debugBuild) tree() string { return filepath.Join(b.work, "source") }

// fetchDebug builds the debug kernel of the newest source, unless that is
// here. What a build that was interrupted has done is not done again.
func fetchDebug(ctx context.Context, h Host, p Progress) (*Image, error) {
	img, err := buildDebug(ctx, h, p)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", Debug, err)
	}
	return img, nil
}

func buildDebug(ctx context.Context, h Host, p Progress) (*Image, error) {
	if err := debugToolsHere(ctx); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, filepath.Join(kernelDir(Debug), "lock"), p)
	if err != nil {
		return nil, err
	}
	defer unlock()
	b, err := findDebug(ctx, h, p)
	if err != nil {
		return nil, err
	}
	defer b.apt.close()
	if img, err := Fetched(Debug); err == nil && strings.HasSuffix(img.Release, debugLocalVersion(b.version)) {
		return img, nil
	}
	if err := b.source(ctx); err != nil {
		return nil, err
	}
	b.apt.close() // others may want it while this builds
	if err := b.configure(ctx); err != nil {
		return nil, err
	}
	if err := b.compile(ctx); err != nil {
		return nil, err
	}
	m, done, err := b.layDown(ctx)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(done)
	if err := writeMeta(done, m); err != nil {
		return nil, err
	}
	dir := filepath.Join(kernelDir(Debug), m.Release)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Rename(done, dir); err != nil {
		return nil, err
	}
	if err := pointAt(filepath.Join(kernelDir(Debug), "current"), m.Release); err != nil {
		return nil, err
	}
	p.Stage("removing what was only needed to build %s", m.Release)
	if err := removeOthers(kernelDir(Debug), m.Release, "current", "lock"); err != nil {
		return nil, err
	}
	return Fetched(Debug)
}

// removeOthers empties dir but for the names to keep: older kernels, and
// what builds left.
func removeOthers(dir string, keep ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
next:
	for _, e := range entries {
		for _, k := range keep {
			if e.Name() == k {
				continue next
			}
		}
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// findDebug looks for the source package where kernel 6.12 of this host
// comes from.
func findDebug(ctx context.Context, h Host, p Progress) (*debugBuild, error) {
	row, err := Find(Table(h), debugSeries)
	if err != nil {
		return nil, err
	}
	sources, err := machineSources(ctx)
	if err != nil {
		return nil, err
	}
	var problems []error
	for _, suite := range row.Suites {
		a, version, err := candidate(ctx, h, sources, row.Distro, suite, debugSource, p)
		if err == nil {
			return &debugBuild{apt: a, version: version, p: p, work: filepath.Join(kernelDir(Debug), ".build")}, nil
		}
		problems = append(problems, err)
		if !lacking(err) {
			break
		}
	}
	return nil, errors.Join(problems...)
}

// candidate is the suite's private apt and the version of pkg in it.
func candidate(ctx context.Context, h Host, sources []source, distro, suite, pkg string, p Progress) (_ *apt, version string, err error) {
	mirror, err := mirrorFor(h, sources, distro, suite)
	if err != nil {
		return nil, "", err
	}
	a, err := newApt(ctx, distro, suite, mirror, p)
	if err != nil {
		return nil, "", fmt.Errorf("private apt: %w", err)
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	p.Stage("kernel %s: package lists of %s", Debug, suite)
	if err := a.update(ctx); err != nil {
		return nil, "", fmt.Errorf("%s: %w", suite, err)
	}
	names, err := a.names(ctx, pkg)
	if err != nil {
		return nil, "", err
	}
	if !names[pkg] {
		return nil, "", fmt.Errorf("%s: package %s: %w", suite, pkg, errNotThere)
	}
	st, err := a.stanza(ctx, pkg)
	if err != nil {
		return nil, "", err
	}
	if st["Version"] == "" {
		return nil, "", fmt.Errorf("%s: %s has no version", suite, pkg)
	}
	return a, st["Version"], nil
}

// source fetches and unpacks the sources into the work folder.
func (b *debugBuild) source(ctx context.Context) error {
	ready := filepath.Join(b.work, "unpacked")
	if version, err := os.ReadFile(ready); err == nil && strings.TrimSpace(string(version)) == b.version {
		return nil
	}
	// Half an unpacking, or other sources.
	if err := os.RemoveAll(b.work); err != nil {
		return err
	}
	if err := roomFor(kernelDir(Debug), debugSpace); err != nil {
		return err
	}
	if err := os.MkdirAll(b.tree(), 0o755); err != nil {
		return err
	}
	b.p.Stage("fetching %s %s (150 MB)", debugSource, b.version)
	if err := b.apt.download(ctx, b.work, []string{debugSource}, b.p); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(b.work, debugSource+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("fetched %s: found %q, %w", debugSource, debs, err)
	}
	b.p.Stage("unpacking %s", filepath.Base(debs[0]))
	err = pipeline(ctx,
		[]string{"dpkg-deb", "--fsys-tarfile", debs[0]},
		[]string{"tar", "-xO", "./usr/src/" + debugSource + ".tar.xz"},
		[]string{"tar", "-xJ", "--no-same-owner", "--strip-components=1", "-C", b.tree()})
	if err != nil {
		return fmt.Errorf("unpack %s: %w (%s)", filepath.Base(debs[0]), err, damaged(b.tree()))
	}
	return errors.Join(os.Remove(debs[0]), os.WriteFile(ready, []byte(b.version+"\n"), 0o644))
}
