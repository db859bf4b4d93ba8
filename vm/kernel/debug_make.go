// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
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
	"syscall"
	"time"
)

// debugTools are the programs that building a kernel takes, with the package
// of each.
var debugTools = [][2]string{{"gcc", "gcc"}, {"make", "make"}, {"ld", "binutils"}, {"flex", "flex"}, {"bison", "bison"}, {"bc", "bc"},
	{"pahole", "dwarves"}, {"xz", "xz-utils"}, {"tar", "tar"}, {"dpkg-deb", "dpkg"}}

// debugToolsHere names all that is missing at once.
func debugToolsHere(ctx context.Context) error {
	var packages []string
	for _, t := range debugTools {
		if _, err := exec.LookPath(t[0]); err != nil {
			packages = append(packages, t[1])
		}
	}
	if _, err := exec.LookPath("gcc"); err == nil {
		// The kernel's own tools read and write ELF files.
		cmd := exec.CommandContext(ctx, "gcc", "-E", "-x", "c", "-")
		cmd.Stdin = strings.NewReader("#include <gelf.h>\n#include <zlib.h>\n")
		if err := cmd.Run(); err != nil {
			packages = append(packages, "libelf-dev")
		}
	}
	if len(packages) == 0 {
		return nil
	}
	return fmt.Errorf("it is built here, which takes what this machine lacks: run `make debug` or `scripts/setup debug`, or install %s", strings.Join(packages, " "))
}

// configure makes the configuration and checks that it is what was wanted.
func (b *debugBuild) configure(ctx context.Context) error {
	wanted := append(configLines(debugFragment), fmt.Sprintf("CONFIG_LOCALVERSION=%q", debugLocalVersion(b.version)))
	at := filepath.Join(b.tree(), ".config")
	if config, err := os.ReadFile(at); err == nil && len(notStuck(wanted, string(config))) == 0 {
		return nil // and make goes on where it was interrupted
	}
	b.p.Stage("configuring %s with every checker", debugSource)
	if err := b.make(ctx, nil, "tinyconfig"); err != nil {
		return err
	}
	config, err := os.ReadFile(at)
	if err != nil {
		return err
	}
	// What comes later in the file holds.
	config = append(config, strings.Join(wanted, "\n")+"\n"...)
	if err := os.WriteFile(at, config, 0o644); err != nil {
		return err
	}
	if err := b.make(ctx, nil, "olddefconfig"); err != nil {
		return err
	}
	if config, err = os.ReadFile(at); err != nil {
		return err
	}
	if missing := notStuck(wanted, string(config)); len(missing) > 0 {
		_ = os.Remove(at)
		return fmt.Errorf("configure %s %s: these did not stick, so a checker would be missing: %s", debugSource, b.version, strings.Join(missing, ", "))
	}
	return nil
}

// compile builds image and modules.
func (b *debugBuild) compile(ctx context.Context) error {
	b.p.Stage("compiling the debug kernel: once, %s; an interrupted build goes on later", DebugCost)
	return b.make(ctx, newSteps(b.p), "-j"+strconv.Itoa(runtime.NumCPU()), "bzImage", "modules")
}

// make runs make in the sources. What it prints goes to a log beside them
// and, line by line, to watch.
func (b *debugBuild) make(ctx context.Context, watch io.Writer, args ...string) error {
	logAt := filepath.Join(b.work, "make.log")
	log, err := os.OpenFile(logAt, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	var problems bytes.Buffer
	cmd := exec.CommandContext(ctx, "make", args...)
	cmd.Dir = b.tree()
	cmd.Env = b.environ()
	cmd.Stdout, cmd.Stderr = io.Writer(log), io.MultiWriter(log, &problems)
	if watch != nil {
		cmd.Stdout = io.MultiWriter(log, watch)
	}
	// All of make's children end with it, in order: it removes the files
	// that they were writing.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("make %s: stopped: %w", strings.Join(args, " "), ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("make %s: %w: %s (all of it: %s)", strings.Join(args, " "), err, lastLines(problems.String(), 6), logAt)
	}
	return nil
}

// environ is make's: kbuild takes dozens of variables, and one that is set
// for something else (ARCH, O, MAKEFLAGS ...) must not bend this build.
func (b *debugBuild) environ() []string {
	env := []string{"LC_ALL=C", "KBUILD_BUILD_USER=dio", "KBUILD_BUILD_HOST=dio", "DIO_HEADERS=" + b.headers()}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "CCACHE_DIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// debugSteps is about how many steps kbuild tells of.
const debugSteps = 2500

// steps counts what kbuild says it does, "  CC      mm/gup.o".
type steps struct {
	p     Progress
	n     int
	rest  []byte
	start time.Time
	shown time.Time // the last line
	told  time.Time // the last stage
}

// How often a terminal sees a step, and a pipe how far the build is.
const (
	stepEvery  = 200 * time.Millisecond
	stageEvery = 2 * time.Minute
)

func newSteps(p Progress) *steps {
	now := time.Now()
	return &steps{p: p, start: now, told: now}
}

func (s *steps) Write(b []byte) (int, error) {
	s.rest = append(s.rest, b...)
	for {
		i := bytes.IndexByte(s.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		s.line(string(s.rest[:i]), time.Now())
		s.rest = s.rest[i+1:]
	}
}

func (s *steps) line(text string, now time.Time) {
	f := strings.Fields(text)
	if !strings.HasPrefix(text, "  ") || len(f) < 2 || f[0] != strings.ToUpper(f[0]) {
		return
	}
	s.n++
	if now.Sub(s.told) >= stageEvery {
		s.told = now
		s.p.Stage("compiling the debug kernel: step %d of about %d after %v", s.n, max(debugSteps, s.n), now.Sub(s.start).Round(time.Second))
	}
	if now.Sub(s.shown) >= stepEvery {
		s.shown = now
		_, _ = fmt.Fprintf(s.p, "%d: %s\n", s.n, f[len(f)-1])
	}
}

// headers is where the tree for building modules is laid down, within out.
func (b *debugBuild) headers() string { return filepath.Join(b.out(), "tree/usr/src/headers") }

// out is the finished kernel's folder while it is being made.
func (b *debugBuild) out() string { return filepath.Join(b.work, "out") }

// layDown puts image, modules and headers into a folder of their own and
// returns it with its description.
func (b *debugBuild) layDown(ctx context.Context) (*meta, string, error) {
	text, err := os.ReadFile(filepath.Join(b.tree(), "include/config/kernel.release"))
	if err != nil {
		return nil, "", err
	}
	release := strings.TrimSpace(string(text))
	if !strings.HasSuffix(release, debugLocalVersion(b.version)) {
		return nil, "", fmt.Errorf("it was built as %s, not as ...%s", release, debugLocalVersion(b.version))
	}
	b.p.Stage("laying down %s", release)
	if err := os.RemoveAll(b.out()); err != nil {
		return nil, "", err
	}
	tree := filepath.Join(b.out(), "tree")
	for _, d := range []string{filepath.Join(tree, "boot"), b.headers()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, "", err
		}
	}
	if err := b.make(ctx, nil, "modules_install", "INSTALL_MOD_PATH="+tree, "INSTALL_MOD_STRIP=1", "DEPMOD=true"); err != nil {
		return nil, "", err
	}
	// Links into the sources, which go.
	for _, link := range []string{"build", "source"} {
		if err := os.RemoveAll(filepath.Join(tree, "lib/modules", release, link)); err != nil {
			return nil, "", err
		}
	}
	// The kernel's own script knows what modules are built with.
	if err := b.make(ctx, nil, "run-command", `KBUILD_RUN_COMMAND=sh $(srctree)/scripts/package/install-extmod-build "$$DIO_HEADERS"`); err != nil {
		return nil, "", err
	}
	if err := copyFile(filepath.Join(b.tree(), ".config"), filepath.Join(b.headers(), ".config")); err != nil {
		return nil, "", err
	}
	if err := copyFile(filepath.Join(b.tree(), "arch/x86/boot/bzImage"), filepath.Join(tree, "boot/vmlinuz-"+release)); err != nil {
		return nil, "", err
	}
	// Type information, and symbols, but none of the 200 MB of DWARF.
	strip := exec.CommandContext(ctx, "strip", "--strip-debug", "-o", filepath.Join(b.headers(), "vmlinux"), filepath.Join(b.tree(), "vmlinux"))
	if out, err := strip.CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("strip vmlinux: %w: %s", err, bytes.TrimSpace(out))
	}
	if !hasSection(filepath.Join(b.headers(), "vmlinux"), ".BTF") {
		return nil, "", errors.New("vmlinux has no type information: is pahole too old?")
	}
	if err := os.Rename(b.headers(), filepath.Join(tree, "usr/src/linux-headers-"+release)); err != nil {
		return nil, "", err
	}
	m, err := layOut(tree, release)
	if err != nil {
		return nil, "", err
	}
	m.Config = debugKey()
	return m, b.out(), nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}
