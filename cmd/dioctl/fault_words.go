// SPDX-License-Identifier: GPL-2.0-only

package main

import "dio/ioctlapi"

// faultWord says when a fault is committed, what goes wrong, and what shows
// it where the auditor has no rule.
type faultWord struct{ when, what, seenBy string }

var faultWords = map[ioctlapi.FaultID]faultWord{
	ioctlapi.FaultPinLeak:        {when: "direct request", what: "one page isn't released"},
	ioctlapi.FaultOverUnpin:      {when: "direct request, pin family", what: "one page is unpinned twice"},
	ioctlapi.FaultDirtyMissing:   {when: "direct read", what: "pages are released clean: data is lost at reclaim"},
	ioctlapi.FaultDirtyNeedless:  {when: "direct write", what: "pages that were only read are dirtied"},
	ioctlapi.FaultEarlyComplete:  {when: "queued direct request", what: "told complete before pages are moved and released"},
	ioctlapi.FaultDoubleComplete: {when: "polled request (io_uring-iopoll)", what: "completed twice"},
	ioctlapi.FaultLostComplete:   {when: "queued async request", what: "not completed until --hold is over"},
	ioctlapi.FaultSyncAsAsync:    {when: "splice read", what: "a synchronous kiocb gets -EIOCBQUEUED"},

	ioctlapi.FaultArrayLeak: {when: "direct request of many pages", what: "its page array isn't freed",
		seenBy: "quarantined_pages of dioctl stats; in another driver kmemleak"},
	ioctlapi.FaultZeroPagePin:    {when: "direct write from untouched memory, get family", what: "the zero page keeps a reference"},
	ioctlapi.FaultDirtyUnlocked:  {when: "direct read into tmpfs", what: "a file's page is dirtied without its lock"},
	ioctlapi.FaultDirtyLate:      {when: "direct read", what: "one page is dirtied after its release"},
	ioctlapi.FaultResultRange:    {when: "queued native AIO request", what: "told with a page more than was asked for"},
	ioctlapi.FaultWrongOffset:    {when: "direct read not at 0", what: "the bytes come from offset 0", seenBy: "reading back what was written"},
	ioctlapi.FaultLengthOverflow: {when: "direct write", what: "far more pages are pinned than the buffer has"},
	ioctlapi.FaultCancelAfterComplete: {when: "io_cancel of a done, untold request", what: "says it was cancelled",
		seenBy: "io_cancel, then a result that isn't ECANCELED"},
	ioctlapi.FaultCompleteAfterCancel: {when: "io_cancel of a queued request", what: "says it was cancelled, and goes on",
		seenBy: "io_cancel, then a result that isn't ECANCELED"},
	ioctlapi.FaultCancelFnMisuse:   {when: "queued io_uring request", what: "gets a cancel function, which is native AIO's"},
	ioctlapi.FaultUseAfterComplete: {when: "queued async request", what: "its kiocb is read after it was told", seenBy: "a kernel with KASAN"},
	ioctlapi.FaultLongtermMissing:  {when: "direct request, pin family", what: "one page stays pinned for --hold, not FOLL_LONGTERM"},
	ioctlapi.FaultLongtermFile: {when: "direct read into a file's memory", what: "it is pinned FOLL_LONGTERM for writing",
		seenBy: "from 6.5 the kernel, which refuses"},
	ioctlapi.FaultMemlockUnaccounted: {when: "registered buffer", what: "its pages aren't charged, and no limit holds",
		seenBy: "VmPin in /proc/PID/status"},
	ioctlapi.FaultInfoleak: {when: "direct read", what: "the last sector counts, and isn't moved", seenBy: "reading into a poisoned buffer"},
}

// bugView is a bug class that isn't a fault to arm.
type bugView struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// otherBugs are the rest of the catalogue in docs/driver.md.
var otherBugs = []bugView{
	{"get-for-io", "a configuration: dioctl config set --family get"},
	{"buffer-moved", "fork() beside the get family makes it, no driver by itself"},
	{"count-misuse", "kernels before 5.11 walk through all memory, newer ones print a warning"},
	{"mmap-lifetime", "a freed page that is mapped is anybody's"},
	{"teardown-open", "a freed device that is open is anybody's"},
}
