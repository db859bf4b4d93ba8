// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// BuildOptions tell how a module is built.
type BuildOptions struct {
	Clang bool     // by clang and LLVM's tools
	Make  []string // further arguments of make: "W=1", "C=1", targets
	Out   io.Writer
}

// Build builds the out-of-tree module in dir for img and returns the .ko
// files that are there afterwards. dir is changed as kbuild does.
func Build(ctx context.Context, img *Image, dir string, o BuildOptions, p Progress) ([]string, error) {
	if p == nil {
		p = quiet{}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if !anyFile(dir, "Kbuild", "Makefile") {
		return nil, fmt.Errorf("%s: neither Kbuild nor Makefile there: no folder of a kernel module", dir)
	}
	if img.Headers == "" {
		return nil, fmt.Errorf("kernel %s has no headers here: give them by --headers DIR", img.Name)
	}
	h, err := ThisHost()
	if err != nil {
		return nil, err
	}
	row, err := Find(Table(h), img.Name)
	if err != nil {
		row = Row{Name: img.Name, BTF: BTFImage} // by path: as it comes
	}
	btf, err := prepareBTF(ctx, img, row, p)
	if err != nil {
		return nil, err
	}
	env, err := environmentFor(ctx, row, o.Clang, p)
	if err != nil {
		return nil, err
	}
	defer env.close()
	args := []string{"-C", img.Headers, "M=" + dir, "-j" + strconv.Itoa(runtime.NumCPU())}
	args = append(append(args, env.vars...), btf...)
	args = append(args, o.Make...)
	if !anyTarget(o.Make) {
		args = append(args, "modules")
	}
	cmd := env.command(ctx, dir, img.Headers, "make", args...)
	cmd.Stdout, cmd.Stderr = o.Out, o.Out
	p.Stage("building %s for %s", filepath.Base(dir), img.Release)
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%w: run `make setup`, or install make and gcc", err)
		}
		return nil, fmt.Errorf("build %s for %s: make: %w", dir, img.Release, err)
	}
	modules, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	for _, m := range modules {
		if len(btf) > 0 && hasSection(m, ".BTF_ids") {
			return modules, fmt.Errorf("%s has kfunc tables, and the headers of %s lack resolve_btfids, which fills them in", m, img.Release)
		}
	}
	return modules, err
}

// anyTarget tells whether args hold something else than options and
// variables.
func anyTarget(args []string) bool {
	for _, a := range args {
		if !strings.HasPrefix(a, "-") && !strings.Contains(a, "=") {
			return true
		}
	}
	return false
}

func anyFile(dir string, names ...string) bool {
	for _, n := range names {
		if _, err := os.Stat(filepath.Join(dir, n)); err == nil {
			return true
		}
	}
	return false
}

// environment is where make runs, and with which variables.
type environment struct {
	vars []string
	root string // private root; "" for this machine
	tmp  string // folder to remove afterwards, or ""
}

func (e *environment) close() {
	if e.tmp != "" {
		_ = os.RemoveAll(e.tmp)
	}
}

// environmentFor picks this machine when it has what row needs, else a
// private root of the release that does.
func environmentFor(ctx context.Context, row Row, clang bool, p Progress) (*environment, error) {
	if clang {
		return clangEnvironment(ctx, row, p)
	}
	if row.Compiler == 0 { // Ubuntu's own, or a path: the machine's compiler
		return &environment{}, need("make", "gcc")
	}
	if !glibcAtLeast(row.Glibc) {
		return chrootEnvironment(ctx, row, fmt.Sprintf("gcc-%d", rootCompiler[row.Root]), p)
	}
	exact := fmt.Sprintf("gcc-%d", row.Compiler)
	if _, err := exec.LookPath(exact); err == nil {
		// Debian's headers ask for it by its triplet's name, which comes
		// with the package gcc alone.
		return &environment{vars: []string{"CC=" + exact}}, need("make")
	}
	// A newer one is good as far as it is proven.
	if v := gccMajor(ctx); v >= row.Compiler && v <= rootCompiler[row.Root] {
		return &environment{vars: []string{"CC=gcc"}}, need("make")
	}
	return chrootEnvironment(ctx, row, fmt.Sprintf("gcc-%d", rootCompiler[row.Root]), p)
}

// need checks that the programs are there.
func need(programs ...string) error {
	for _, n := range programs {
		if _, err := exec.LookPath(n); err != nil {
			return fmt.Errorf("%w: run `make setup`, or install it", err)
		}
	}
	return nil
}

func gccMajor(ctx context.Context) int {
	out, err := exec.CommandContext(ctx, "gcc", "-dumpversion").Output()
	if err != nil {
		return 0
	}
	major, _, _ := strings.Cut(strings.TrimSpace(string(out)), ".")
	n, _ := strconv.Atoi(major)
	return n
}

// glibcAtLeast tells whether programs that need that glibc run here.
func glibcAtLeast(want [2]int) bool {
	out, err := exec.Command("getconf", "GNU_LIBC_VERSION").Output()
	if err != nil {
		return false
	}
	return versionAtLeast(strings.TrimPrefix(strings.TrimSpace(string(out)), "glibc "), want)
}

func versionAtLeast(have string, want [2]int) bool {
	a, b, _ := strings.Cut(have, ".")
	major, err1 := strconv.Atoi(a)
	b, _, _ = strings.Cut(b, ".")
	minor, err2 := strconv.Atoi(b)
	if err1 != nil || err2 != nil {
		return false
	}
	return major > want[0] || major == want[0] && minor >= want[1]
}
