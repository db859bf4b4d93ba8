// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"dio/vm/wire"
)

// watchKmsg sends the kernel's log to the host as it grows. The serial
// console shows only warnings and worse, for it is slow, and a long run
// overwrites the kernel's own ring; what the host judges is complete here.
// The function returned sends what is left and ends the watch.
func (i *pid1) watchKmsg() func() {
	log, err := i.sys.Kmsg()
	if err != nil {
		_ = i.out.SendText(wire.Note, fmt.Sprintf("the kernel's log can't be read: %v; only the console's is judged", err))
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(i.out.Stream(wire.Kmsg, 0), log)
	}()
	return func() {
		log.Drain()
		<-done
	}
}

// consoleLine turns a record of /dev/kmsg, "prio,seq,usec,flags;text\n" and
// lines of properties, into what the console prints for it.
func consoleLine(rec string) (string, bool) {
	head, text, ok := strings.Cut(rec, ";")
	if !ok {
		return "", false
	}
	f := strings.Split(head, ",")
	if len(f) < 3 {
		return "", false
	}
	usec, err := strconv.ParseUint(f[2], 10, 64)
	if err != nil {
		return "", false
	}
	text, _, _ = strings.Cut(text, "\n")
	return fmt.Sprintf("[%5d.%06d] %s\n", usec/1e6, usec%1e6, text), true
}
