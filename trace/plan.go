// SPDX-License-Identifier: GPL-2.0-only

package trace

import "dio/trace/audit"

// A cookie tells the shared programs which function fired; bpf/audit.bpf.c
// has the other half of this.
const (
	kindPin uint64 = iota + 1
	kindAIO
	kindURing
	kindURingCmd
	kindIter
	kindSplice
	kindDirtyFolio
	kindDirtyPage
	kindReleaseFolio
	kindReleaseFolios
	kindBioPages
	kindURingDone
	kindDual
	kindCancelFn
	kindAddPin
	kindAddPins

	cookieWrites   = 1 << 8 // of a submission: data moves out of memory
	cookieGet      = 1 << 16
	cookieLongTerm = 1 << 17

	// cookieHandler is where the number of a driver's function begins; all
	// fits into the 31 bits that old kernels have room for.
	cookieHandler = 18
	maxHandlers   = 1<<(31-cookieHandler) - 1
)

// pin says at which arguments a pin function has its page array, its flags, and
// the number of pages; 0: none.
func pin(pages, flags, asked uint64) uint64 {
	return kindPin | pages<<8 | flags<<12 | asked<<cookieHandler
}

// taskHook is a function that only tasks call: all of them share two
// programs, for entry and return.
type taskHook struct {
	names  []string // the first that the kernel has
	cookie uint64
	enter  bool
	exit   bool
	rules  []string
	// One that is absent where it never was is no gap.
	optional bool
	// until names a function of newer kernels, which don't need the hook; "": all do.
	until string
	// old is one that newer kernels have no more: that it is absent isn't told.
	old bool
}

// unwatched are functions that could be hooked, and why they aren't.
var unwatched = []struct {
	name, reason string
	rules        []string
}{
	{"get_user_pages_fast_only", "not watched: it takes pages without sleeping or not at all, and KVM's guests call it for each of theirs", getRules},
	{"get_user_pages_remote", "not watched: the kernel itself takes pages of other processes with it, for each exec and each look into /proc", getRules},
}

var (
	getRules = []string{audit.RulePinLeak, audit.RuleZeroPagePin, audit.RuleLengthOverflow}
	pinRules = []string{audit.RulePinLeak, audit.RuleOverUnpin, audit.RuleDirtyMissing, audit.RuleDirtyNeedless, audit.RuleDirtyLate,
		audit.RuleEarlyComplete, audit.RuleLengthOverflow, audit.RuleLongtermMissing}
	dirtyRules = []string{audit.RuleDirtyMissing, audit.RuleDirtyNeedless, audit.RuleDirtyLate, audit.RuleDirtyUnlocked,
		audit.RuleEarlyComplete}
	completeRules = []string{audit.RuleEarlyComplete, audit.RuleDoubleComplete, audit.RuleLostComplete, audit.RuleResultRange}
)

// taskHooks are attached in this order where each needs a link of its own: what
// ends something before what begins it, which would seem never to end.
var taskHooks = []taskHook{
	{names: []string{"folio_mark_dirty", "set_page_dirty"}, cookie: kindDirtyFolio, enter: true, rules: dirtyRules},
	{names: []string{"set_page_dirty_lock"}, cookie: kindDirtyPage, enter: true, rules: dirtyRules},
	{names: []string{"unpin_folio"}, cookie: kindReleaseFolio, enter: true, rules: pinRules, optional: true},
	{names: []string{"unpin_folios"}, cookie: kindReleaseFolios, enter: true, rules: pinRules, optional: true},
	{names: []string{"bio_iov_iter_get_pages"}, cookie: kindBioPages, enter: true, rules: []string{audit.RuleEarlyComplete}},
	{names: []string{"kiocb_done"}, cookie: kindURingDone, enter: true, rules: completeRules, until: "bpf_loop"},
	{names: []string{"kiocb_set_cancel_fn"}, cookie: kindCancelFn, enter: true, rules: []string{audit.RuleCancelFnMisuse}},
	{names: []string{"folio_add_pin"}, cookie: kindAddPin, enter: true, rules: pinRules, optional: true},
	{names: []string{"folio_add_pins"}, cookie: kindAddPins, enter: true, rules: pinRules, optional: true},
	{names: []string{"pin_user_pages"}, cookie: pin(3, 2, 1), enter: true, exit: true, rules: pinRules},
	{names: []string{"pin_user_pages_fast"}, cookie: pin(3, 2, 1), enter: true, exit: true, rules: pinRules},
	{names: []string{"pin_user_pages_unlocked"}, cookie: pin(2, 3, 1), enter: true, exit: true, rules: pinRules},
	{names: []string{"pin_user_pages_remote"}, cookie: pin(4, 3, 2), enter: true, exit: true, rules: pinRules},
	{names: []string{"pin_user_pages_locked"}, cookie: pin(3, 2, 1), enter: true, exit: true, rules: pinRules, old: true},
	{names: []string{"pin_user_pages_fast_only"}, cookie: pin(3, 2, 1), enter: true, exit: true, rules: pinRules, old: true},
	{names: []string{"memfd_pin_folios"}, cookie: pin(3, 0, 0) | cookieLongTerm, enter: true, exit: true, rules: pinRules, optional: true},
	{names: []string{"get_user_pages"}, cookie: pin(3, 2, 1) | cookieGet, enter: true, exit: true, rules: getRules},
	{names: []string{"get_user_pages_fast"}, cookie: pin(3, 2, 1) | cookieGet, enter: true, exit: true, rules: getRules},
	{names: []string{"get_user_pages_unlocked"}, cookie: pin(2, 3, 1) | cookieGet, enter: true, exit: true, rules: getRules},
	{names: []string{"get_user_pages_locked"}, cookie: pin(3, 2, 1) | cookieGet, enter: true, exit: true, rules: getRules, old: true},
	{names: []string{"aio_read"}, cookie: kindAIO, enter: true, exit: true, rules: completeRules},
	{names: []string{"aio_write"}, cookie: kindAIO | cookieWrites, enter: true, exit: true, rules: completeRules},
	{names: []string{"io_read"}, cookie: kindURing, enter: true, exit: true, rules: completeRules},
	{names: []string{"io_write"}, cookie: kindURing | cookieWrites, enter: true, exit: true, rules: completeRules},
	{names: []string{"io_uring_cmd"}, cookie: kindURingCmd, enter: true, exit: true, rules: completeRules, optional: true},
	{names: []string{"copy_splice_read", "generic_file_splice_read"}, cookie: kindSplice, enter: true, exit: true, rules: []string{audit.RuleSyncAsAsync}, optional: true},
}

// dualHook is a function that interrupts call too. The kernel skips a
// program that interrupts one of its own kind, so each has a program of its
// own beside the shared one. Its place in the list is its number in the
// programs (enum dual_function).
type dualHook struct {
	program  string
	names    []string
	rules    []string
	optional bool
}

func (dualHook) cookie(i int) uint64 { return kindDual | uint64(i)<<8 }

var dualHooks = []dualHook{
	{program: "on_aio_complete", names: []string{"aio_complete_rw"}, rules: completeRules},
	{program: "on_uring_complete", names: []string{"io_complete_rw"}, rules: completeRules},
	{program: "on_uring_complete_poll", names: []string{"io_complete_rw_iopoll"}, rules: completeRules},
	{program: "on_uring_cmd_done", names: []string{"io_uring_cmd_done", "__io_uring_cmd_done"}, rules: completeRules, optional: true},
	{program: "on_unpin_page", names: []string{"unpin_user_page"}, rules: pinRules},
	{program: "on_unpin_pages", names: []string{"unpin_user_pages"}, rules: pinRules},
	{program: "on_unpin_pages_dirty", names: []string{"unpin_user_pages_dirty_lock"}, rules: pinRules},
	{program: "on_unpin_folio", names: []string{"unpin_user_folio"}, rules: pinRules, optional: true},
	{program: "on_bio_release", names: []string{"__bio_release_pages", "bio_release_pages"}, rules: []string{audit.RuleEarlyComplete}},
	{program: "on_unpin_range", names: []string{"unpin_user_page_range_dirty_lock"}, rules: pinRules, optional: true},
}

// tracepoints are raw tracepoints, the same on every kernel.
var tracepoints = []struct {
	program, name string
	rules         []string
}{
	{"on_sys_exit", "sys_exit", pinRules},
	{"on_sys_exit_again", "sys_exit", pinRules},
	{"on_sys_enter", "sys_enter", nil},
	{"on_fork", "sched_process_fork", pinRules},
	{"on_fork_again", "sched_process_fork", pinRules},
	{"on_exit", "sched_process_exit", nil},
	{"on_page_free", "mm_page_free", []string{audit.RulePinLeak}},
}
