// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"dio/vm/kernel"
)

func vmCommand() *cli.Command {
	return &cli.Command{
		Name:  "vm",
		Usage: "run a command, a shell or a module build against a kernel of choice, in a disposable VM",
		Subcommands: []*cli.Command{
			vmRunCommand(),
			vmShellCommand(),
			vmKernelsCommand(),
			vmFetchCommand(),
			vmBuildCommand(),
			vmProbeCommand(),
		},
	}
}

// kernelFlags choose the kernel, for every vm subcommand that wants one.
func kernelFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "kernel", Aliases: []string{"k"}, EnvVars: []string{"DIO_KERNEL"},
			Usage: "`NAME` of a kernel (see `dioctl vm kernels`) or path to a vmlinuz; default: this system's"},
		&cli.StringFlag{Name: "headers", Usage: "prepared headers `DIR`, for a kernel given by its path"},
	}
}

// chosenKernel fetches the kernel of the flags, unless it is here.
func chosenKernel(ctx context.Context, c *cli.Context) (*kernel.Image, error) {
	p := progressTo(os.Stderr)
	defer p.Clear()
	img, err := kernel.Get(ctx, c.String("kernel"), c.String("headers"), p)
	if err != nil {
		if errors.Is(err, kernel.ErrUnknown) {
			return nil, withStatus(exitUsage, err)
		}
		return nil, withStatus(exitEnvironment, err)
	}
	return img, nil
}

// ownModule is the dio.ko built for the kernel of that name, beside the
// running program.
func ownModule(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the running program: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(self), name, "dio.ko"), nil
}

// wantModule is ownModule, if it is there.
func wantModule(img *kernel.Image) (string, error) {
	if strings.Contains(img.Name, "/") {
		return "", withStatus(exitUsage, fmt.Errorf("no dio.ko is known for the kernel %s: give one by --module, or say --no-dio", img.Name))
	}
	p, err := ownModule(img.Name)
	if err != nil {
		return "", withStatus(exitEnvironment, err)
	}
	if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
		return "", withStatus(exitEnvironment, fmt.Errorf("%s is not there: run `make build` (with KERNEL=%s), give a module by --module, or say --no-dio", p, img.Name))
	} else if err != nil {
		return "", withStatus(exitEnvironment, err)
	}
	return p, nil
}
