// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"dio/vm"
)

// probed is what `vm probe` found.
type probed struct {
	Schema      string    `json:"schema"`
	Accelerator string    `json:"accelerator"` // "kvm" or "tcg"
	Reason      string    `json:"reason"`
	QEMU        probeQEMU `json:"qemu"`
}

type probeQEMU struct {
	Path    string `json:"path"`
	Version string `json:"version"`
}

func vmProbeCommand() *cli.Command {
	return &cli.Command{
		Name:  "probe",
		Usage: "tell how VMs run on this machine: with KVM or emulated, why, and by which QEMU",
		Description: "KVM is tried by booting 512 bytes with it. That it works is remembered until this\n" +
			"machine boots again, that it doesn't for ten minutes. Exit status: 0 when KVM works,\n" +
			"1 when only emulation does, 3 when there is no usable QEMU.",
		Flags: []cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "again", Usage: "try anew, whatever is remembered"},
		},
		Action: vmProbe,
	}
}

func vmProbe(c *cli.Context) error {
	if c.NArg() > 0 {
		return withStatus(exitUsage, fmt.Errorf("vm probe: %q: it takes no operands", c.Args().First()))
	}
	if c.Bool("again") {
		if err := vm.ForgetProbe(); err != nil {
			return withStatus(exitEnvironment, err)
		}
	}
	q, err := vm.FindQEMU(c.Context)
	if err != nil {
		return withStatus(exitEnvironment, err)
	}
	r := probeReport(q)
	err = emit(c, r, func(w io.Writer) {
		table(w, "accelerator\t"+r.Accelerator, "reason\t"+r.Reason, "qemu\t"+r.QEMU.Path, "version\t"+r.QEMU.Version)
	})
	if err == nil && !q.KVM {
		return withStatus(exitFinding, nil)
	}
	return err
}

func probeReport(q *vm.QEMU) probed {
	r := probed{Schema: "dio.probe/1", Accelerator: "tcg", Reason: q.WhyNoKVM, QEMU: probeQEMU{q.Path, q.Version}}
	if q.KVM {
		r.Accelerator, r.Reason = "kvm", "a guest was seen to boot with it"
	}
	return r
}
