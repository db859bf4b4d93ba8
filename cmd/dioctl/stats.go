// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"dio/ioctlapi"
)

func statsCommand() *cli.Command {
	return &cli.Command{
		Name:      "stats",
		Usage:     "a device's counters since binding or reset",
		ArgsUsage: "[DEVICE]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "reset", Usage: "set the counters to zero after reading them (root)"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "print what changed, each interval, until interrupted"},
			&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "`TIME` between two lines of --watch"},
			formatFlag(),
		},
		Action: stats,
	}
}

// statsView is the result of stats: the driver's counters under their C names.
type statsView struct {
	Schema string `json:"schema"`
	Device string `json:"device"`
	statsCounters
}

// statsCounters is ioctlapi.Stats without its call's fields.
type statsCounters struct {
	Reads               uint64 `json:"reads"`
	Writes              uint64 `json:"writes"`
	BytesRead           uint64 `json:"bytes_read"`
	BytesWritten        uint64 `json:"bytes_written"`
	BytesCopied         uint64 `json:"bytes_copied"`
	PagesPinned         uint64 `json:"pages_pinned"`
	PagesReleased       uint64 `json:"pages_released"`
	PagesDirtied        uint64 `json:"pages_dirtied"`
	Submitted           uint64 `json:"submitted"`
	Queued              uint64 `json:"queued"`
	Completed           uint64 `json:"completed"`
	Cancelled           uint64 `json:"cancelled"`
	Failed              uint64 `json:"failed"`
	InFlight            uint64 `json:"in_flight"`
	InFlightPeak        uint64 `json:"in_flight_peak"`
	StorePages          uint64 `json:"store_pages"`
	QuarantinedPages    uint64 `json:"quarantined_pages"`
	QuarantinedRequests uint64 `json:"quarantined_requests"`
	FaultsCommitted     uint64 `json:"faults_committed"`
	DepthWaits          uint64 `json:"depth_waits"`
	Stalls              uint64 `json:"stalls"`
	Seeks               uint64 `json:"seeks"`
	Head                uint64 `json:"head"`
	InjectedErrors      uint64 `json:"injected_errors"`
	InjectedShorts      uint64 `json:"injected_shorts"`
	InjectedDelays      uint64 `json:"injected_delays"`
	InjectedReorders    uint64 `json:"injected_reorders"`
	Discards            uint64 `json:"discards"`
	BytesDiscarded      uint64 `json:"bytes_discarded"`
	Buffers             uint64 `json:"buffers"`
	BufferPages         uint64 `json:"buffer_pages"`
	DMASegments         uint64 `json:"dma_segments"`
	DMABounced          uint64 `json:"dma_bounced"`
	DMATimeouts         uint64 `json:"dma_timeouts"`
	Interrupts          uint64 `json:"interrupts"`
}

func newStatsView(path string, s ioctlapi.Stats) statsView {
	return statsView{"dio.stats/1", path, statsCounters{
		s.Reads, s.Writes, s.BytesRead, s.BytesWritten, s.BytesCopied, s.PagesPinned, s.PagesReleased, s.PagesDirtied,
		s.Submitted, s.Queued, s.Completed, s.Cancelled, s.Failed, s.InFlight, s.InFlightPeak, s.StorePages,
		s.QuarantinedPages, s.QuarantinedRequests, s.FaultsCommitted, s.DepthWaits, s.Stalls, s.Seeks, s.Head,
		s.InjectedErrors, s.InjectedShorts, s.InjectedDelays, s.InjectedReorders, s.Discards, s.BytesDiscarded,
		s.Buffers, s.BufferPages, s.DMASegments, s.DMABounced, s.DMATimeouts, s.Interrupts}}
}

func (v *statsView) text(w io.Writer) {
	table(w,
		"device\t"+v.Device,
		fmt.Sprintf("requests\t%d reads, %d writes, %d failed", v.Reads, v.Writes, v.Failed),
		fmt.Sprintf("bytes\t%s read, %s written, of both %s by copying", formatSize(int64(v.BytesRead)),
			formatSize(int64(v.BytesWritten)), formatSize(int64(v.BytesCopied))),
		fmt.Sprintf("pages\t%d pinned, %d released, %d dirtied", v.PagesPinned, v.PagesReleased, v.PagesDirtied),
		fmt.Sprintf("buffers\t%d registered now, of %d pages", v.Buffers, v.BufferPages),
		fmt.Sprintf("async\t%d submitted, %d completed, %d cancelled", v.Submitted, v.Completed, v.Cancelled),
		fmt.Sprintf("queue\t%d had to wait; in flight now %d, at most %d", v.Queued, v.InFlight, v.InFlightPeak),
		fmt.Sprintf("store\t%d pages; %d discards of %s", v.StorePages, v.Discards, formatSize(int64(v.BytesDiscarded))),
		fmt.Sprintf("disk\t%d found its queue full", v.DepthWaits),
		fmt.Sprintf("tape\t%d stalls, %d seeks; the head is at %d", v.Stalls, v.Seeks, v.Head),
		fmt.Sprintf("hardware\t%d segments by DMA, %d interrupts, %d given up; %d requests were out of its reach", v.DMASegments,
			v.Interrupts, v.DMATimeouts, v.DMABounced),
		fmt.Sprintf("injected\t%d errors, %d short transfers, %d delays, %d reorderings", v.InjectedErrors, v.InjectedShorts,
			v.InjectedDelays, v.InjectedReorders),
		fmt.Sprintf("faults\t%d committed; put aside now: %d pages, %d requests", v.FaultsCommitted, v.QuarantinedPages, v.QuarantinedRequests),
	)
}

func stats(c *cli.Context) error {
	path, err := deviceOperand(c)
	if err != nil {
		return err
	}
	if c.Bool("watch") && c.Bool("reset") {
		return usageErrorf("stats: --watch and --reset don't go together")
	}
	if c.Duration("interval") < 10*time.Millisecond {
		return usageErrorf("stats: --interval %v is too short: 10ms at least", c.Duration("interval"))
	}
	return withDevice(path, func(d *ioctlapi.Device) error {
		if c.Bool("watch") {
			return watchStats(c, d)
		}
		read := d.Stats
		if c.Bool("reset") {
			read = d.ResetStats
		}
		s, err := read()
		if err != nil {
			return err
		}
		v := newStatsView(path, s)
		return emit(c, v, v.text)
	})
}

// watchStats prints a line of rates each interval, or with JSON the whole
// counters as one object a line.
func watchStats(c *cli.Context, d *ioctlapi.Device) error {
	tick := time.NewTicker(c.Duration("interval"))
	defer tick.Stop()
	before, err := d.Stats()
	if err != nil {
		return err
	}
	for line := 0; ; line++ {
		select {
		case <-c.Context.Done():
			return nil
		case <-tick.C:
		}
		now, err := d.Stats()
		if err != nil {
			return err
		}
		if wantJSON(c) {
			if err := emitLine(c.App.Writer, newStatsView(d.Path(), now)); err != nil {
				return err
			}
			continue
		}
		if line%20 == 0 {
			fmt.Fprintf(c.App.Writer, "%9s %9s %11s %11s %9s %9s %9s %9s\n", "reads", "writes", "read", "written",
				"pinned", "released", "completed", "in flight")
		}
		fmt.Fprintf(c.App.Writer, "%9d %9d %11s %11s %9d %9d %9d %9d\n", now.Reads-before.Reads, now.Writes-before.Writes,
			formatSize(int64(now.BytesRead-before.BytesRead)), formatSize(int64(now.BytesWritten-before.BytesWritten)),
			now.PagesPinned-before.PagesPinned, now.PagesReleased-before.PagesReleased, now.Completed-before.Completed, now.InFlight)
		before = now
	}
}
