// SPDX-License-Identifier: GPL-2.0-only

package tracefs

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseEvent(t *testing.T) {
	for _, c := range []struct {
		line string
		want Event
	}{
		{"          dioctl-123     [001] .....    12.345678: dio_submit: req=7 async direct read offset=4096 bytes=8192 model=0",
			Event{Comm: "dioctl", TID: 123, CPU: 1, Time: 12345678 * time.Microsecond, Flags: ".....", Name: "dio_submit"}},
		{"     kworker/u8:2-45      [000] d..1. 99.000001: dio_complete: req=7 async result=-5",
			Event{Comm: "kworker/u8:2", TID: 45, Time: 99*time.Second + time.Microsecond, Flags: "d..1.", Name: "dio_complete"}},
		{" a b-c-9 (   12) [000] 1.5: dio_pin: req=1", Event{Comm: "a b-c", TID: 9, Time: 1500 * time.Millisecond, Name: "dio_pin"}},
		{"          <idle>-0       [003] ..s1. 5.000000: dio_move:", Event{Comm: "<idle>", CPU: 3, Time: 5 * time.Second, Flags: "..s1.", Name: "dio_move"}},
	} {
		e, ok := ParseEvent(c.line)
		if !ok || e.Comm != c.want.Comm || e.TID != c.want.TID || e.CPU != c.want.CPU || e.Time != c.want.Time || e.Name != c.want.Name ||
			e.Flags != c.want.Flags || e.InSoftirq() != strings.Contains(c.line, "..s1.") {
			t.Errorf("%q: %+v, %v", c.line, e, ok)
		}
	}
	e, _ := ParseEvent("x-1 [000] ..... 1.0: dio_submit: req=7 async direct read offset=4096 result=-5")
	if e.Uint("req") != 7 || e.Int("result") != -5 || e.Uint("nothing") != 0 || !e.Has("direct") || e.Has("offset") || len(e.Words) != 3 {
		t.Errorf("%+v", e)
	}
	for _, bad := range []string{"", "# tracer: nop", "CPU:1 [LOST 12 EVENTS]", "no event here"} {
		if e, ok := ParseEvent(bad); ok {
			t.Errorf("%q was taken for %+v", bad, e)
		}
	}
}

func TestSplitKeepsHalfLinesAndCountsLosses(t *testing.T) {
	var i Instance
	text := "a-1 [000] ..... 1.0: dio_pin: req=1\nCPU:0 [LOST 3 EVENTS]\nCPU:0 [LOST EVENTS]\na-1 [000] ..... 1.1: dio_pin: req=2\n"
	for cut := range len(text) {
		i = Instance{}
		events := i.split([]byte(text[cut:]), i.split([]byte(text[:cut]), nil))
		if len(events) != 2 || events[1].Uint("req") != 2 || i.Lost() != 4 || len(i.rest) != 0 {
			t.Fatalf("cut at %d: %+v, %d lost", cut, events, i.Lost())
		}
	}
}

func TestRootSaysHowToMount(t *testing.T) {
	if _, err := rootIn(t.TempDir()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "mount -t tracefs") {
		t.Error(err)
	}
}
