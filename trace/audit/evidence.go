// SPDX-License-Identifier: GPL-2.0-only

// Package audit holds the auditor's rules and its verdict, in plain Go: what
// was seen comes in as Evidence, what is wrong with it goes out as a Report.
// It knows no kernel and needs no privilege.
package audit

import (
	"regexp"
	"time"
)

// Kind says what an operation is.
type Kind uint32

// The kinds of operation.
const (
	KindUnknown  Kind = iota
	KindAIO           // a native AIO kiocb
	KindURing         // an io_uring read or write
	KindURingCmd      // an io_uring command
	KindSync          // a driver's read_iter or write_iter, called synchronously
	KindSyscall       // a system call in progress, where none of the others is
)

func (k Kind) String() string {
	return [...]string{"operation", "native AIO request", "io_uring request", "io_uring command",
		"synchronous read or write", "system call"}[min(int(k), 5)]
}

// Async says whether the operation is told complete by a callback.
func (k Kind) Async() bool { return k == KindAIO || k == KindURing || k == KindURingCmd }

// Frame is one function of a kernel stack.
type Frame struct {
	Function string
	Module   string // empty for the kernel's own text
	Offset   uint64 // bytes into the function
	File     string // empty when no debug information is at hand
	Line     int
}

// Stack runs from the innermost function outwards.
type Stack []Frame

// Op is one operation, as far as it is known. Counts are pages of PAGE_SIZE.
type Op struct {
	ID          uint64 // grows with time, never reused; 0: unknown
	Kind        Kind
	PID, TID    int
	Comm        string
	Start, End  time.Duration // kernel's monotonic clock; End is 0 while it runs
	Result      int64         // bytes, or a negative errno
	Bytes       bool          // Result is a count of bytes moved
	Writes      bool          // data goes from memory to the file or device; false: not, or unknown
	BlockLayer  bool          // its pages went to the block layer
	LongTerm    bool          // has FOLL_LONGTERM pins
	Queued      bool          // the driver took it, to complete it later
	Requested   uint64        // bytes that the driver's function was asked for; 0: unknown
	Longest     time.Duration // that a page was held which was released after it ended
	Completions uint32        // how often it was told complete, or returned

	Taken      uint32 // pinned
	TakenWrite uint32 // of those: with FOLL_WRITE
	Live       uint32 // still pinned
	Dirty      uint32 // write pins released with the page dirty
	Clean      uint32 // write pins released with the page clean
	Late       uint32 // released after the operation ended
	LateDirty  uint32 // of those: marked dirty only after it ended

	PinStack, CleanStack, LateStack, EndStack Stack
	Handler                                   Stack // the driver's function that got it, where known
}

// Ended says whether the operation was told complete, or returned.
func (o Op) Ended() bool { return o.Completions > 0 }

// Waits says whether the operation may wait by design, for something that need
// never happen: as commands do by which a server of ublk or FUSE fetches its next
// request. One for which pages were pinned moves data.
func (o Op) Waits() bool { return o.Kind == KindURingCmd && o.Taken == 0 }

// EventKind says what was seen.
type EventKind uint32

// The kinds of event.
const (
	EventOp             EventKind = iota + 1 // an operation ended, with something worth a look
	EventOverUnpin                           // pages were released that nobody held
	EventDirtyReadOnly                       // pages were dirtied that were only pinned for reading them
	EventCompletedAgain                      // a second completion of one operation
	EventReturnedToo                         // a completion, and a result other than -EIOCBQUEUED returned
	EventSyncQueued                          // -EIOCBQUEUED for a kiocb without ki_complete
	EventResultRange                         // a result larger than what was asked for
	EventDirtyLate                           // a page was dirtied that the operation, still running, had released
	EventDirtyUnlocked                       // a file's page was dirtied without its lock
	EventCancelFn                            // kiocb_set_cancel_fn for a kiocb that isn't native AIO's
	EventPinExcess                           // far more pages were asked for than the buffer has
)

// Event is one thing that was seen while it happened.
type Event struct {
	Kind  EventKind
	Pages uint32
	Value int64 // EventDirtyReadOnly: 1 from a dirtying call, 0 from a dirtying release; else a result
	Stack Stack
	At    time.Duration // kernel's monotonic clock
	Op    Op
}

// Held is a number of pages that are still pinned at the end, by the
// kernel's own count too.
type Held struct {
	Pages uint32
	Op    Op
}

// Totals counts all that was seen in scope.
type Totals struct {
	Operations, PinsTaken, PinsReleased, GetsTaken, Queued, Completed uint64
	Slowest                                                           time.Duration // from submission to completion
}

// Lost says what the auditor itself failed to see or to remember.
type Lost struct {
	Events         uint64  `json:"events"` // of all causes
	UntrackedPages uint64  `json:"untracked_pages"`
	Causes         []Cause `json:"causes,omitempty"`
	// Unseen: pins or completions may be among it, so that what looks as if
	// there had been none is no proof.
	Unseen bool `json:"-"`
}

// Cause is why events were lost.
type Cause struct {
	Why    string `json:"why"`
	Events uint64 `json:"events"`
}

// Add counts events that were lost; none is no cause.
func (l *Lost) Add(why string, events uint64) {
	if events > 0 {
		l.Events += events
		l.Causes = append(l.Causes, Cause{why, events})
	}
}

// AddUnseen counts events that were lost, pins or completions among them.
func (l *Lost) AddUnseen(why string, events uint64) {
	l.Add(why, events)
	l.Unseen = l.Unseen || events > 0
}

// Any says whether anything was lost.
func (l Lost) Any() bool { return l.Events > 0 || l.UntrackedPages > 0 }

// Missing is a hook that this kernel doesn't offer, with what it would have served.
type Missing struct {
	Hook   string   `json:"hook"`
	Reason string   `json:"reason"`
	Rules  []string `json:"rules"`
	// Essential: without it the rules can't be judged at all, and the
	// verdict is incomplete. Else another hook sees the same.
	Essential bool `json:"-"`
}

// Coverage is which kernel functions the auditor watched.
type Coverage struct {
	Attached []string  `json:"attached"`
	Missing  []Missing `json:"missing"`
}

// Evidence is all that the rules judge.
type Evidence struct {
	Events     []Event
	Held       []Held
	Gotten     []Held // taken with FOLL_GET: their process has gone, nothing maps them, and they aren't free
	ZeroPage   []Held // references that the zero page has more than before, and who took it last
	Unfinished []Op   // queued, and not completed when the audit ended
	Overdue    []Op   // completed, but only long after LostAfter
	Totals     Totals
	Lost       Lost
	Coverage   Coverage

	End       time.Duration // when the audit ended, kernel's monotonic clock
	LostAfter time.Duration
	Gone      func(pid int) bool // the process has exited; nil: none has
	Stuck     func(pid int) bool // the process doesn't come to the end of its exit; nil: all do
	Modules   []string           // findings of these modules only; empty: of all
	Caller    *regexp.Regexp     // findings with a function like this in their stack only
}
