// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"regexp"
	"strings"
)

// complaint matches what a kernel prints when something is wrong with it
// or with a driver. A module that is out of tree, unsigned or tainting is
// none: those lines match nothing here.
var complaint = regexp.MustCompile(strings.Join([]string{
	`\bWARNING: `,
	`\bBUG: `, `\bkernel BUG at `, `\bOops\b`, `\bKernel panic\b`,
	`\bKASAN: `, `\bKCSAN: `, `\bKMSAN: `, `\bKFENCE: `, `\bUBSAN: `, `\bDMA-API: .*(?:error|leak|device driver)`,
	`\bpossible recursive locking\b`, `\bpossible circular locking\b`, `\bpossible irq lock inversion\b`,
	`\binconsistent lock state\b`, `\bsuspicious RCU usage\b`, `\bheld lock freed\b`, `\bbad unlock balance\b`,
	`\block held when returning to user space\b`, `\bInvalid wait context\b`, `\bMAX_LOCK_DEPTH too low\b`,
	`\bscheduling while atomic\b`, `\bsleeping function called from invalid context\b`,
	`\bkmemleak: unreferenced object\b`, `^unreferenced object 0x`, // as PID 1 sends them: the run's, not the boot's
	`\bblocked for more than \d+ seconds\b`, `\bhung_task:`,
	`\bsoft lockup\b`, `\bhard LOCKUP\b`, `\brcu: .*(?:detected stall|self-detected)`, `\bdetected stalls? on CPU`,
	`\bgeneral protection fault\b`, `\bunable to handle\b`, `\bdouble fault\b`, `\bstack segment fault\b`,
	`\binvalid opcode: `, `\bdivide error: `, `\bstack guard page was hit\b`, `\bkernel stack overflow\b`,
	`\brefcount_t: `, `\blist_(?:add|del) corruption\b`, `\bcorruption\. (?:next|prev)->`,
	`\bBad page (?:state|map|cache)\b`, `\bnonzero _(?:ref|map)count\b`, `\bpage dumped because\b`,
	`\bBad rss-counter state\b`, `\bpage allocation failure\b`, `\bOut of memory: Killed process\b`,
	`\bslab-out-of-bounds\b`, `\buse-after-free\b`, `\bObject already free\b`, `\bRedzone overwritten\b`,
	`\bObjects remaining in `, `\bObjects remaining on `, `\bkobject.*tried to init an initialized object\b`,
	`\bDEBUG_LOCKS_WARN_ON\b`, `\bODEBUG: `, `\bunregister_netdevice: waiting\b`, `\bcall trace.*sysfs: cannot create duplicate\b`,
}, "|"))

// innocent are lines that match above on every boot of some stock kernel
// and say nothing of a driver.
var innocent = regexp.MustCompile(strings.Join([]string{
	`\bWARNING: (?:No|Unable to find) .*(?:MTRR|IOMMU)`,
	`\bBUG: .*BIOS\b`, `\[Firmware (?:Bug|Warn)\]`,
	`\bSpectre\b`, `\bSpeculative Return Stack Overflow: `, `\bMDS: `, `\bRETBleed: `,
	`\bdebug is enabled\.`, `\bUBSAN: .*enabled\b`, `\bKFENCE: .*enabled\b`, `\bkfence: initialized\b`,
}, "|"))

// stamp is what the console puts before a message: its time, on some
// kernels who called.
var stamp = regexp.MustCompile(`^(?:<\d+>)?(\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?)`)

// message is a console line without its stamp.
func message(line string) string { return line[len(stamp.FindString(line)):] }

// Complaints are the lines of a kernel log with which a kernel says that
// something is wrong, in order, each once. A line is told twice when the
// console and the kernel's own log both have it, so lines that differ in
// nothing, time included, count once.
func Complaints(logs ...string) []string {
	var out []string
	seen := map[string]bool{}
	for _, log := range logs {
		for _, line := range strings.Split(log, "\n") {
			line = strings.TrimRight(line, "\r ")
			if seen[line] || !complaint.MatchString(message(line)) || innocent.MatchString(line) {
				continue
			}
			seen[line] = true
			out = append(out, line)
		}
	}
	return out
}
