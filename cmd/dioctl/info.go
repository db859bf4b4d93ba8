// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"dio/engine"
	"dio/ioctlapi"
)

func infoCommand() *cli.Command {
	return &cli.Command{
		Name:      "info",
		Usage:     "what a device is and can do, and which I/O APIs reach it here",
		ArgsUsage: "[DEVICE]",
		Flags:     []cli.Flag{formatFlag()},
		Action:    info,
	}
}

// infoView is the result of info.
type infoView struct {
	Schema      string       `json:"schema"`
	Device      string       `json:"device"`
	Driver      string       `json:"driver"`
	ABIVersion  uint32       `json:"abi_version"`
	Features    []string     `json:"features"`
	Capacity    uint64       `json:"capacity"`
	MemAlign    uint32       `json:"mem_align"`
	OffsetAlign uint32       `json:"offset_align"`
	PageSize    uint32       `json:"page_size"`
	Engines     []engineView `json:"engines"`
}

// engineView is an engine on this device and kernel.
type engineView struct {
	Name        string `json:"name"`
	Summary     string `json:"summary"`
	Async       bool   `json:"async"`
	Unavailable string `json:"unavailable,omitempty"` // why
}

func info(c *cli.Context) error {
	path, err := deviceOperand(c)
	if err != nil {
		return err
	}
	return withDevice(path, func(d *ioctlapi.Device) error {
		i, err := d.Info()
		if err != nil {
			return err
		}
		v := infoView{Schema: "dio.info/1", Device: path, Driver: i.DriverName(), ABIVersion: i.ABIVersion,
			Features: i.Features.Names(), Capacity: i.Capacity, MemAlign: i.MemAlign, OffsetAlign: i.OffsetAlign, PageSize: i.PageSize}
		if v.Engines, err = probeEngines(path); err != nil {
			return err
		}
		return emit(c, v, v.text)
	})
}

// probeEngines tries every engine on a file opened with O_DIRECT.
func probeEngines(path string) ([]engineView, error) {
	f, err := engine.OpenFile(path, engine.FileOptions{Read: true, Write: true, Direct: true})
	if err != nil {
		f, err = engine.OpenFile(path, engine.FileOptions{Read: true, Direct: true})
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var views []engineView
	for _, e := range engine.Engines() {
		v := engineView{Name: e.Name, Summary: e.Summary, Async: e.Async}
		var no *engine.Unavailable
		switch err := engine.Probe(e.Name, f); {
		case errors.As(err, &no):
			v.Unavailable = no.Reason
		case err != nil:
			v.Unavailable = err.Error()
		}
		views = append(views, v)
	}
	return views, nil
}

func (v *infoView) text(w io.Writer) {
	table(w,
		fmt.Sprintf("device\t%s, driver %s, ABI %d", v.Device, v.Driver, v.ABIVersion),
		fmt.Sprintf("capacity\t%s (%d bytes)", formatSize(int64(v.Capacity)), v.Capacity),
		fmt.Sprintf("O_DIRECT\taddresses and lengths multiples of %d, offsets of %d", v.MemAlign, v.OffsetAlign),
		fmt.Sprintf("page\t%d bytes", v.PageSize),
		"features\t"+strings.Join(v.Features, " "),
	)
	fmt.Fprintln(w)
	rows := []string{"ENGINE\tHERE\tWHAT IT IS, OR WHY NOT"}
	for _, e := range v.Engines {
		if e.Unavailable != "" {
			rows = append(rows, e.Name+"\tno\t"+e.Unavailable)
		} else {
			rows = append(rows, e.Name+"\tyes\t"+e.Summary)
		}
	}
	table(w, rows...)
}
