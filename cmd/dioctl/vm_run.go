// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/urfave/cli/v2"

	"dio/vm"
)

// machineFlags are those of every subcommand that boots.
func machineFlags() []cli.Flag {
	return append(kernelFlags(),
		&cli.StringSliceFlag{Name: "file", Aliases: []string{"f"}, Usage: "put the file or folder `PATH` at the same path in the guest, with the shared libraries it needs (repeatable)"},
		&cli.StringSliceFlag{Name: "module", Aliases: []string{"m"}, Usage: "load `KO` before the command, after dio.ko (repeatable)"},
		&cli.BoolFlag{Name: "no-dio", Usage: "don't load dio.ko"},
		&cli.StringSliceFlag{Name: "kmod", Usage: "load the kernel's own module `NAME` and what it needs (repeatable)"},
		&cli.StringFlag{Name: "disk", Usage: "make an ext4 disk of the folder `DIR`, at /mnt/disk in the guest"},
		&cli.BoolFlag{Name: "icount", Usage: "count time by instructions: emulated, one CPU, repeatable"},
		&cli.IntFlag{Name: "cpus", Usage: "`N` CPUs", Value: vm.DefaultCPUs},
		&cli.StringFlag{Name: "memory", Usage: "memory, such as 2G (default: 1G, with the debug kernel 2G, and what the files take)"},
		&cli.DurationFlag{Name: "timeout", Usage: "kill the VM after `D`", Value: vm.DefaultTimeout},
		&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "`NAME=VALUE`, or NAME alone for its value here, in the command's environment (repeatable)"},
		&cli.StringSliceFlag{Name: "device", Usage: "add QEMU's device `NAME[,PROPERTY=VALUE...]`, such as edu (repeatable)"},
		&cli.StringSliceFlag{Name: "qemu-arg", Usage: "`ARG` for QEMU as it is (repeatable)"},
		&cli.StringFlag{Name: "append", Usage: "`WORDS` for the kernel's command line"},
		&cli.StringFlag{Name: "console", Usage: "keep the console's log in `FILE`"},
		&cli.StringFlag{Name: "kmsg", Usage: "keep the kernel's whole log, and what kmemleak found, in `FILE` (default: a temporary file, when the kernel complained)"},
	)
}

// specFromFlags is the Spec of the flags; the command is the caller's.
func specFromFlags(c *cli.Context) (vm.Spec, error) {
	s := vm.Spec{
		Files: c.StringSlice("file"), KernelModules: c.StringSlice("kmod"), Disk: c.String("disk"),
		Icount: c.Bool("icount"), CPUs: c.Int("cpus"), Timeout: c.Duration("timeout"),
		Devices: c.StringSlice("device"), QEMU: c.StringSlice("qemu-arg"), Append: c.String("append"),
		Console: c.String("console"), Stdout: c.App.Writer, Stderr: c.App.ErrWriter,
	}
	usage := func(format string, args ...any) (vm.Spec, error) {
		return s, withStatus(exitUsage, fmt.Errorf(format, args...))
	}
	if s.CPUs < 1 || s.CPUs > 255 {
		return usage("--cpus %d: want 1 to 255", s.CPUs)
	}
	if s.Timeout <= 0 {
		return usage("--timeout %v: want more than nothing, such as 10m", s.Timeout)
	}
	if m := c.String("memory"); m != "" {
		var err error
		if s.Memory, err = vm.ParseMemory(m); err != nil {
			return usage("--memory %w", err)
		}
	}
	for _, e := range c.StringSlice("env") {
		name, _, given := strings.Cut(e, "=")
		if name == "" {
			return usage("--env %q: want NAME=VALUE", e)
		}
		if !given {
			v, ok := os.LookupEnv(name)
			if !ok {
				continue
			}
			e = name + "=" + v
		}
		s.Env = append(s.Env, e)
	}
	for i, f := range s.Files {
		if _, err := os.Stat(f); err == nil {
			continue
		}
		// A bare name may be a program's.
		at, err := exec.LookPath(f)
		if err != nil {
			return usage("--file %s: no such file here, and no program of that name", f)
		}
		s.Files[i] = at
	}
	if dir, err := os.Getwd(); err == nil {
		s.Dir = dir
	}
	return s, nil
}

// machineFor finds QEMU, the kernel and the modules: what is cheap to miss
// before what is dear to fetch.
func machineFor(c *cli.Context, s *vm.Spec) error {
	var err error
	if s.Emulator, err = vm.FindQEMU(c.Context); err != nil {
		return withStatus(exitEnvironment, err)
	}
	if s.Kernel, err = chosenKernel(c.Context, c); err != nil {
		return err
	}
	return modulesFor(c, s)
}

// modulesFor adds the dio.ko of the Spec's kernel and --module's.
func modulesFor(c *cli.Context, s *vm.Spec) error {
	if !c.Bool("no-dio") {
		p, err := wantModule(s.Kernel)
		if err != nil {
			return err
		}
		s.Modules = append(s.Modules, p)
	}
	s.Modules = append(s.Modules, c.StringSlice("module")...)
	for _, m := range s.Modules {
		if _, err := os.Stat(m); err != nil {
			return withStatus(exitUsage, fmt.Errorf("--module: %w", err))
		}
	}
	return nil
}

func vmRunCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "boot, run one command as root, bring back its output, status and files",
		ArgsUsage: "-- CMD ARGS...",
		Description: "The guest's root holds busybox, dioctl, CMD and the files given by --file. The exit\n" +
			"status is CMD's; 125 when the VM itself failed (boot, panic, time limit), with the\n" +
			"end of its console. Complaints of the guest's kernel (WARNING, BUG, lockdep, KASAN,\n" +
			"kmemleak, hung task ...) are told on standard error; with --strict they are a 125.",
		Flags: append(machineFlags(),
			&cli.StringSliceFlag{Name: "out", Aliases: []string{"o"}, Usage: "bring the file or folder back: `GUEST:HOST` (repeatable)"},
			&cli.BoolFlag{Name: "strict", Usage: "exit 125 when the guest's kernel complained"},
			&cli.BoolFlag{Name: "no-stdin", Aliases: []string{"n"}, Usage: "no standard input for CMD, as from /dev/null"},
			&cli.BoolFlag{Name: "summary", Usage: "tell kernel, accelerator and times on standard error at the end"},
		),
		Action: vmRun,
	}
}

func vmRun(c *cli.Context) error {
	if c.NArg() == 0 {
		return withStatus(exitUsage, errors.New("vm run: no command: want dioctl vm run [OPTIONS] -- CMD [ARG]"))
	}
	spec, err := specFromFlags(c)
	if err != nil {
		return err
	}
	spec.Args = c.Args().Slice()
	if !c.Bool("no-stdin") {
		spec.Stdin = os.Stdin
	}
	for _, o := range c.StringSlice("out") {
		out, err := vm.ParseOut(o)
		if err != nil {
			return withStatus(exitUsage, fmt.Errorf("--out %w", err))
		}
		spec.Outs = append(spec.Outs, out)
	}
	if err := machineFor(c, &spec); err != nil {
		return err
	}
	p := progressTo(os.Stderr)
	spec.Progress = showBoot(p)
	res, err := vm.Run(c.Context, spec)
	p.Clear()
	return vmVerdict(c, res, err)
}

// showBoot shows the stages on a terminal; a pipe is spared them.
func showBoot(p *progress) func(string) {
	return func(stage string) {
		switch {
		case !p.terminal:
		case stage == vm.StageRunning:
			p.Clear()
		default:
			p.Stage("%s ...", stage)
		}
	}
}

// keepKmsg writes the kernel's log to the file at p. Without one, a log with
// complaints goes to a temporary file: they mean little without what is said
// around them. It returns where the log is, "" when nowhere.
func keepKmsg(p string, res vm.Result) (string, error) {
	if p == "" {
		if len(res.Complaints) == 0 || res.Kmsg == "" {
			return "", nil
		}
		f, err := os.CreateTemp("", "dio-kmsg-*.log")
		if err != nil {
			return "", err
		}
		_, err = f.WriteString(res.Kmsg)
		return f.Name(), errors.Join(err, f.Close())
	}
	return p, os.WriteFile(p, []byte(res.Kmsg), 0o644)
}

// vmVerdict tells what the kernel had to say and turns a run's end into an
// exit status.
func vmVerdict(c *cli.Context, res vm.Result, err error) error {
	for _, line := range res.Complaints {
		fmt.Fprintf(os.Stderr, "vm: kernel complaint: %s\n", line)
	}
	if at, kerr := keepKmsg(c.String("kmsg"), res); kerr != nil {
		fmt.Fprintf(os.Stderr, "vm: the kernel's log: %v\n", kerr)
	} else if len(res.Complaints) > 0 && at != "" {
		fmt.Fprintf(os.Stderr, "vm: the kernel's whole log: %s\n", at)
	}
	for _, e := range res.OutErrors {
		fmt.Fprintf(os.Stderr, "vm: %v\n", e)
	}
	var failed *vm.Error
	switch {
	case errors.Is(err, context.Canceled), errors.As(err, &failed):
		return withStatus(exitVM, err)
	case err != nil:
		return withStatus(exitEnvironment, err)
	}
	if c.Bool("summary") {
		fmt.Fprintf(os.Stderr, "vm: kernel %s, %s, first word after %.2f s, %.2f s in all, status %d\n",
			res.Release, res.Accel, res.Booted.Seconds(), res.Took.Seconds(), res.Status)
	}
	switch {
	case c.Bool("strict") && len(res.Complaints) > 0:
		return withStatus(exitVM, fmt.Errorf("vm: complaints of the guest's kernel: %d (the command's own status: %d)", len(res.Complaints), res.Status))
	case res.Status != 0:
		return withStatus(res.Status, nil)
	case len(res.OutErrors) > 0:
		return withStatus(exitVM, errors.New("vm: not every output could be brought back"))
	}
	return nil
}
