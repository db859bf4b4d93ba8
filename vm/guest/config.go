// SPDX-License-Identifier: GPL-2.0-only

// Package guest is the VM's PID 1: it mounts what a normal system has,
// loads modules, runs one command, hands its streams, files and status to
// the host over a virtio-serial port, and powers off.
//
// Everything that touches the kernel is behind the System interface, so
// the order of events is tested without a VM and without root.
package guest

import (
	"encoding/json"
	"fmt"
	"os"

	"dio/vm/wire"
)

// ConfigPath is where the host leaves the Config in the guest.
const ConfigPath = "/etc/dio/run.json"

// PortName is the virtio-serial port's name.
const PortName = "dio"

// DiskPath is where the host's --disk is mounted.
const DiskPath = "/mnt/disk"

// Config is what the host asks PID 1 to do.
type Config struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"` // added to, and winning over, the normal environment
	Dir  string   `json:"dir,omitempty"` // working directory, "/root" when empty

	// Early are the modules that the port and the disk need, Modules those that
	// the command wants: paths in the guest, in loading order.
	Early   []string `json:"early,omitempty"`
	Modules []string `json:"modules,omitempty"`

	Stdin bool       `json:"stdin,omitempty"` // the host sends input; else /dev/null
	TTY   *wire.Size `json:"tty,omitempty"`   // run on a pseudo terminal of that size
	Outs  []string   `json:"outs,omitempty"`  // files and directories to send back, by stream number
	Disk  bool       `json:"disk,omitempty"`  // mount the first nvme disk at DiskPath
}

func loadConfig(path string) (*Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(c.Args) == 0 {
		return nil, fmt.Errorf("%s: no command", path)
	}
	return &c, nil
}
