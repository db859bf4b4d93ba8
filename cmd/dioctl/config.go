// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"dio/ioctlapi"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "read or change how a device behaves",
		Subcommands: []*cli.Command{
			{
				Name:      "get",
				Usage:     "the configuration in force",
				ArgsUsage: "[DEVICE]",
				Flags:     []cli.Flag{formatFlag()},
				Action:    configGet,
			},
			{
				Name:      "set",
				Usage:     "change what the flags name, all of it or nothing (root)",
				ArgsUsage: "[DEVICE]",
				Description: "Requests already in flight finish as they were begun. Sizes are whole pages.\n" +
					"The configuration that is then in force is printed.",
				Flags:  configSetFlags(),
				Action: configSet,
			},
		},
	}
}

func configSetFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "model", Usage: "what kind of device: ram (keeps bytes), null (moves nothing), disk or tape (keep bytes, take their time)"},
		&cli.StringFlag{Name: "family", Usage: "how O_DIRECT holds the caller's pages: pin (FOLL_PIN) or get (FOLL_GET)"},
		&cli.StringFlag{Name: "completion", Usage: "who finishes a request: auto, inline (needs latency 0), worker or timer"},
		&cli.DurationFlag{Name: "latency", Usage: "`TIME` from submission to completion: 0, 50us, 2ms, 1s; 60s at most"},
		&cli.GenericFlag{Name: "capacity", Value: &sizeValue{}, Usage: "`SIZE` of the device, 1 TiB at most"},
		&cli.GenericFlag{Name: "store-limit", Value: &sizeValue{}, Usage: "`SIZE` of the memory that its bytes may use"},
		&cli.GenericFlag{Name: "max-request", Value: &sizeValue{}, Usage: "`SIZE` of the largest request, 1 GiB at most"},
		&cli.UintFlag{Name: "max-in-flight", Usage: "requests in flight, of the device"},
		&cli.UintFlag{Name: "max-in-flight-file", Usage: "requests in flight, of one open file"},
		&cli.GenericFlag{Name: "bandwidth", Value: &sizeValue{}, Usage: "disk, tape: `SIZE` a second, 64k at least; 0: no limit"},
		&cli.DurationFlag{Name: "jitter", Usage: "disk: `TIME` of the latency's random part; 60s at most"},
		&cli.StringFlag{Name: "distribution", Usage: "disk: of that part: uniform (0 to jitter) or exponential (jitter on average)"},
		&cli.UintFlag{Name: "queue-depth", Usage: "disk: `N` requests are worked on at a time, 1024 at most; others wait their turn"},
		&cli.DurationFlag{Name: "reposition", Usage: "tape: `TIME` to get going again after a stall or a seek; 60s at most"},
		&cli.Uint64Flag{Name: "seed", Usage: "of what is random: `N`"},
		formatFlag(),
	}
}

// configView is the result of config.
type configView struct {
	Schema          string              `json:"schema"`
	Device          string              `json:"device"`
	Model           ioctlapi.Model      `json:"model"`
	Family          ioctlapi.Family     `json:"family"`
	Completion      ioctlapi.Completion `json:"completion"`
	LatencyNS       uint64              `json:"latency_ns"`
	Capacity        uint64              `json:"capacity"`
	StoreLimit      uint64              `json:"store_limit"`
	MaxRequest      uint64              `json:"max_request"`
	MaxInFlight     uint32              `json:"max_in_flight"`
	MaxInFlightFile uint32              `json:"max_in_flight_file"`

	Bandwidth    uint64                `json:"bandwidth"` // bytes a second; 0: no limit
	JitterNS     uint64                `json:"jitter_ns"`
	Distribution ioctlapi.Distribution `json:"distribution"`
	QueueDepth   uint32                `json:"queue_depth"`
	RepositionNS uint64                `json:"reposition_ns"`
	Seed         uint64                `json:"seed"`
}

func newConfigView(path string, c ioctlapi.Config) configView {
	return configView{Schema: "dio.config/1", Device: path, Model: c.Model, Family: c.Family, Completion: c.Completion,
		LatencyNS: c.LatencyNS, Capacity: c.Capacity, StoreLimit: c.StoreLimit, MaxRequest: c.MaxRequest,
		MaxInFlight: c.MaxInFlight, MaxInFlightFile: c.MaxInFlightFile, Bandwidth: c.Bandwidth, JitterNS: c.JitterNS,
		Distribution: c.Distribution, QueueDepth: c.QueueDepth, RepositionNS: c.RepositionNS, Seed: c.Seed}
}

func (v *configView) text(w io.Writer) {
	size := func(n uint64) string { return fmt.Sprintf("%s (%d bytes)", formatSize(int64(n)), n) }
	rows := []string{
		"device\t" + v.Device,
		"model\t" + v.Model.String(),
		"family\t" + v.Family.String(),
		"completion\t" + v.Completion.String(),
		"latency\t" + time.Duration(v.LatencyNS).String(),
		"capacity\t" + size(v.Capacity),
		"store-limit\t" + size(v.StoreLimit),
		"max-request\t" + size(v.MaxRequest),
		fmt.Sprintf("max-in-flight\t%d of the device, %d of one open file", v.MaxInFlight, v.MaxInFlightFile),
	}
	bandwidth := "bandwidth\tno limit"
	if v.Bandwidth != 0 {
		bandwidth = fmt.Sprintf("bandwidth\t%s a second (%d bytes)", formatSize(int64(v.Bandwidth)), v.Bandwidth)
	}
	switch v.Model {
	case ioctlapi.ModelDisk:
		rows = append(rows, bandwidth, fmt.Sprintf("jitter\t%v, %v, seed %d", time.Duration(v.JitterNS), v.Distribution, v.Seed),
			fmt.Sprintf("queue-depth\t%d", v.QueueDepth))
	case ioctlapi.ModelTape:
		rows = append(rows, bandwidth, fmt.Sprintf("reposition\t%v", time.Duration(v.RepositionNS)))
	}
	table(w, rows...)
}

func configGet(c *cli.Context) error {
	path, err := deviceOperand(c)
	if err != nil {
		return err
	}
	return withDevice(path, func(d *ioctlapi.Device) error { return showConfig(c, d) })
}

func showConfig(c *cli.Context, d *ioctlapi.Device) error {
	cfg, err := d.Config()
	if err != nil {
		return err
	}
	v := newConfigView(d.Path(), cfg)
	return emit(c, v, v.text)
}

func configSet(c *cli.Context) error {
	path, err := deviceOperand(c)
	if err != nil {
		return err
	}
	want, err := configFromFlags(c)
	if err != nil {
		return withStatus(exitUsage, fmt.Errorf("config set: %w", err))
	}
	return withDevice(path, func(d *ioctlapi.Device) error {
		if err := d.SetConfig(want); err != nil {
			return err
		}
		return showConfig(c, d)
	})
}

// configFromFlags names in Fields what the command line sets.
func configFromFlags(c *cli.Context) (ioctlapi.Config, error) {
	var cfg ioctlapi.Config
	var firstErr error
	take := func(name string, field ioctlapi.ConfigFields, set func() error) {
		if !c.IsSet(name) {
			return
		}
		cfg.Fields |= field
		if err := set(); err != nil && firstErr == nil {
			firstErr = fmt.Errorf("--%s: %w", name, err)
		}
	}
	size := func(name string, field ioctlapi.ConfigFields, to *uint64) {
		take(name, field, func() error {
			*to = uint64(c.Generic(name).(*sizeValue).n)
			return nil
		})
	}
	count := func(name string, field ioctlapi.ConfigFields, to *uint32, most uint) {
		take(name, field, func() error {
			n := c.Uint(name)
			if n < 1 || n > most {
				return fmt.Errorf("%d is out of range: 1 to %d", n, most)
			}
			*to = uint32(n)
			return nil
		})
	}
	take("model", ioctlapi.ConfigModel, func() (err error) { cfg.Model, err = ioctlapi.ParseModel(c.String("model")); return })
	take("family", ioctlapi.ConfigFamily, func() (err error) { cfg.Family, err = ioctlapi.ParseFamily(c.String("family")); return })
	take("completion", ioctlapi.ConfigCompletion, func() (err error) {
		cfg.Completion, err = ioctlapi.ParseCompletion(c.String("completion"))
		return
	})
	duration := func(name string, field ioctlapi.ConfigFields, to *uint64) {
		take(name, field, func() error {
			d := c.Duration(name)
			if d < 0 || d > ioctlapi.LatencyMaxNS {
				return fmt.Errorf("%v is out of range: 0 to %v", d, time.Duration(ioctlapi.LatencyMaxNS))
			}
			*to = uint64(d)
			return nil
		})
	}
	take("distribution", ioctlapi.ConfigDistribution, func() (err error) {
		cfg.Distribution, err = ioctlapi.ParseDistribution(c.String("distribution"))
		return
	})
	take("seed", ioctlapi.ConfigSeed, func() error { cfg.Seed = c.Uint64("seed"); return nil })
	duration("latency", ioctlapi.ConfigLatency, &cfg.LatencyNS)
	duration("jitter", ioctlapi.ConfigJitter, &cfg.JitterNS)
	duration("reposition", ioctlapi.ConfigReposition, &cfg.RepositionNS)
	size("bandwidth", ioctlapi.ConfigBandwidth, &cfg.Bandwidth)
	count("queue-depth", ioctlapi.ConfigQueueDepth, &cfg.QueueDepth, ioctlapi.QueueDepthMax)
	size("capacity", ioctlapi.ConfigCapacity, &cfg.Capacity)
	size("store-limit", ioctlapi.ConfigStoreLimit, &cfg.StoreLimit)
	size("max-request", ioctlapi.ConfigMaxRequest, &cfg.MaxRequest)
	count("max-in-flight", ioctlapi.ConfigMaxInFlight, &cfg.MaxInFlight, ioctlapi.InFlightMax)
	count("max-in-flight-file", ioctlapi.ConfigMaxInFlightFile, &cfg.MaxInFlightFile, ioctlapi.InFlightMax)
	if firstErr == nil && cfg.Fields == 0 {
		firstErr = fmt.Errorf("nothing to set: see dioctl config set --help")
	}
	return cfg, firstErr
}
