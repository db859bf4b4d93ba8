// SPDX-License-Identifier: GPL-2.0-only

package tracefs

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Event is one line of the trace.
type Event struct {
	Comm   string
	TID    int
	CPU    int
	Flags  string        // "..s1.": what the CPU was at; "" where the trace doesn't say
	Time   time.Duration // on the kernel's monotonic clock
	Name   string        // "dio_pin"
	Fields map[string]string
	Words  []string // what isn't name=value, in order
}

// Uint is a field as a number; 0 when it isn't there or isn't one.
func (e *Event) Uint(field string) uint64 {
	n, _ := strconv.ParseUint(e.Fields[field], 0, 64)
	return n
}

// Int is a field as a number that may be negative.
func (e *Event) Int(field string) int64 {
	n, _ := strconv.ParseInt(e.Fields[field], 0, 64)
	return n
}

// Has tells whether a word is there.
func (e *Event) Has(word string) bool {
	for _, w := range e.Words {
		if w == word {
			return true
		}
	}
	return false
}

// InSoftirq tells whether it happened in a softirq, as what a timer does.
func (e *Event) InSoftirq() bool { return len(e.Flags) > 2 && e.Flags[2] == 's' }

// line is "comm-tid (tgid) [cpu] flags seconds: name: text"; the tgid and the
// flags depend on the kernel and its options.
var line = regexp.MustCompile(`^\s*(.+)-(\d+)\s+(?:\([ \d-]+\)\s+)?\[(\d+)\]\s+(?:(\S+)\s+)?(\d+)\.(\d+):\s+(\w+):\s*(.*)$`)

// ParseEvent reads a line of the trace; false: it is none.
func ParseEvent(s string) (Event, bool) {
	m := line.FindStringSubmatch(s)
	if m == nil {
		return Event{}, false
	}
	e := Event{Comm: m[1], Flags: m[4], Name: m[7], Fields: map[string]string{}}
	e.TID, _ = strconv.Atoi(m[2])
	e.CPU, _ = strconv.Atoi(m[3])
	seconds, _ := strconv.ParseInt(m[5], 10, 64)
	fraction, _ := strconv.ParseInt((m[6] + "000000000")[:9], 10, 64)
	e.Time = time.Duration(seconds)*time.Second + time.Duration(fraction)
	for _, w := range strings.Fields(m[8]) {
		if k, v, ok := strings.Cut(w, "="); ok {
			e.Fields[k] = v
		} else {
			e.Words = append(e.Words, w)
		}
	}
	return e, true
}

var lostLine = regexp.MustCompile(`^CPU:\d+ \[LOST (\d+ )?EVENTS\]`)

// parseLost reads the line that tells of events without room; when the kernel
// doesn't say how many, one.
func parseLost(s string) (uint64, bool) {
	m := lostLine.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(m[1]), 10, 64)
	if err != nil {
		n = 1
	}
	return n, true
}
