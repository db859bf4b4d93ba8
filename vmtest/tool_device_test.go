// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/ioctlapi"
)

// What the tool says of the device is what the driver says; and of each engine that
// it works, as the other tests rely on, or why not.
func TestToolInfo(t *testing.T) {
	d := openDevice(t)
	info, err := d.Info()
	if err != nil {
		t.Fatal(err)
	}
	v := decode[struct {
		Schema      string   `json:"schema"`
		Device      string   `json:"device"`
		Driver      string   `json:"driver"`
		ABIVersion  uint32   `json:"abi_version"`
		Features    []string `json:"features"`
		Capacity    uint64   `json:"capacity"`
		MemAlign    uint32   `json:"mem_align"`
		OffsetAlign uint32   `json:"offset_align"`
		PageSize    uint32   `json:"page_size"`
		Engines     []struct {
			Name        string `json:"name"`
			Summary     string `json:"summary"`
			Async       bool   `json:"async"`
			Unavailable string `json:"unavailable"`
		} `json:"engines"`
	}](t, mustRun(t, "dioctl", "info", "--format", "json", device))
	if v.Schema != "dio.info/1" || v.Device != device || v.Driver != "dio" || v.ABIVersion != ioctlapi.ABIVersion ||
		!slices.Equal(v.Features, info.Features.Names()) || v.Capacity != info.Capacity || v.MemAlign != info.MemAlign ||
		v.OffsetAlign != info.OffsetAlign || int(v.PageSize) != os.Getpagesize() {
		t.Errorf("%+v, the driver says %+v", v, info)
	}
	var names []string
	for _, e := range v.Engines {
		names = append(names, e.Name)
		known, err := engine.Lookup(e.Name)
		if err != nil || e.Summary != known.Summary || e.Async != known.Async {
			t.Errorf("%+v: %v, %+v", e, err, known)
		}
		works := !strings.HasPrefix(e.Name, "uring_cmd") || hasCommands(t, d)
		if (e.Unavailable == "") != works {
			t.Errorf("%s works: %v, yet %q", e.Name, works, e.Unavailable)
		}
	}
	if !slices.Equal(names, engine.Names()) {
		t.Errorf("engines %v, want %v", names, engine.Names())
	}
}

// The rules of all actions, in their order: one that is set, with what it was set to
// and how often it was met, and the others, which aren't.
func TestToolInjectList(t *testing.T) {
	d := openDevice(t)
	rule := ioctlapi.Inject{Action: ioctlapi.InjectDelay, Every: 2, Flags: ioctlapi.InjectReads, Offset: scratch, Length: 4096, Count: 5, DelayNS: 1000}
	inject(t, d, rule)
	fd, mem := openRaw(t, 0), anonymous(t, 1)
	for range 4 {
		if _, err := unix.Pread(fd, mem, scratch); err != nil {
			t.Fatal(err)
		}
	}
	type told struct {
		Action    string `json:"action"`
		Flags     uint32 `json:"flags"`
		Every     uint32 `json:"every"`
		Seed      uint64 `json:"seed"`
		Offset    uint64 `json:"offset"`
		Length    uint64 `json:"length"`
		Count     uint64 `json:"count"`
		DelayNS   uint64 `json:"delay_ns"`
		Occasions uint64 `json:"occasions"`
		Armed     uint32 `json:"armed"`
	}
	v := decode[struct {
		Schema string `json:"schema"`
		Device string `json:"device"`
		Rules  []told `json:"rules"`
	}](t, mustRun(t, "dioctl", "inject", "list", "--format", "json"))
	want := []told{{Action: "eio"}, {Action: "short"}, {"delay", ioctlapi.InjectReads, 2, 0, scratch, 4096, 3, 1000, 4, 1}, {Action: "reorder"}}
	if v.Schema != "dio.inject/1" || v.Device != device || !slices.Equal(v.Rules, want) {
		t.Errorf("%+v, want the rules %+v", v, want)
	}
}

// A line each interval, of what there is by then, until an interrupt, which is how
// it's meant to end.
func TestToolStatsWatch(t *testing.T) {
	fd, mem := openRaw(t, 0), anonymous(t, 1)
	before, err := openDevice(t).Stats()
	if err != nil {
		t.Fatal(err)
	}
	read := func() {
		if _, err := unix.Pread(fd, mem, scratch); err != nil {
			t.Error(err)
		}
	}

	lines, end := watch(t, "--format", "json")
	for seen := 0; seen < 3; {
		var v struct {
			Schema string `json:"schema"`
			Device string `json:"device"`
			Reads  uint64 `json:"reads"`
		}
		line := lines(t)
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Schema != "dio.stats/1" || v.Device != device {
			t.Fatalf("%v: %q", err, line)
		}
		// Each line that tells of a read gives the cue for the next one.
		if v.Reads == before.Reads+uint64(seen) {
			seen++
			read()
		}
	}
	end(t)

	lines, end = watch(t)
	if heading := strings.Fields(lines(t)); len(heading) != 9 || heading[0] != "reads" || heading[7] != "in" {
		t.Errorf("heading %q", heading)
	}
	read()
	for {
		// What changed since the line before: one read of a page, once.
		if fields := strings.Fields(lines(t)); len(fields) > 1 && fields[0] == "1" {
			if line := strings.Join(fields, " "); line != "1 0 4 KiB 0 B 0 0 0 0" {
				t.Errorf("a read of a page: %q", line)
			}
			break
		}
	}
	end(t)
}

// watch starts `dioctl stats --watch`: what it says next, and its end by an interrupt.
func watch(t *testing.T, flags ...string) (next func(*testing.T) string, end func(*testing.T)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "dioctl", append([]string{"stats", "--watch", "--interval", "50ms"}, flags...)...)
	lines, interrupt := onPipe(t, cmd)
	next = func(t *testing.T) string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("stats --watch ended: %v", lines.Err())
		}
		return lines.Text()
	}
	return next, func(t *testing.T) {
		t.Helper()
		interrupt()
		for lines.Scan() { // what was on its way
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("interrupted: %v", err)
		}
	}
}
