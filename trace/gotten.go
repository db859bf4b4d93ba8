// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unsafe"

	"dio/trace/audit"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What judge_get answers; bpf/state.h has the other half.
const (
	gotFreed    = 0
	gotUnjudged = 1
	gotHeld     = 1 << 16
	gotZero     = 1 << 17
)

// gets is what became of the folios that were taken with FOLL_GET.
type gets struct {
	held     []audit.Held // nothing maps them, their process has gone, and they aren't freed
	zero     []audit.Held // references that the zero page has more than before
	alive    int          // folios whose process lives
	unjudged int          // folios of files, or still mapped, or pinned
}

// judgeGets asks of each folio that was gotten and not freed what it is now.
// Folios of processes that live aren't judged: they are in use.
func (s *Session) judgeGets() (gets, error) {
	var out gets
	got, err := readMap[uint64, auditGot](s.objs.Maps["gets"])
	if err != nil || len(got) == 0 {
		return out, err
	}
	gone := map[uint32]bool{}
	for _, g := range got {
		if _, known := gone[g.Tgid]; !known {
			gone[g.Tgid] = Gone(int(g.Tgid))
		}
	}
	byOp := map[uint64]audit.Held{}
	for folio, g := range got {
		if !gone[g.Tgid] {
			out.alive++
			continue
		}
		state, err := s.objs.Programs["judge_get"].Run(&ebpf.RunOptions{Context: []uint64{folio, g.Mapping, uint64(g.Base)}})
		if err != nil {
			return out, fmt.Errorf("ask for a page's references: %w", err)
		}
		op := audit.Op{
			ID: g.Op, Kind: audit.Kind(g.Kind), PID: int(g.Tgid), TID: int(g.Tid), Comm: comm(g.Comm), PinStack: s.stacks.get(g.Stack),
		}
		switch {
		case state == gotFreed:
		case state&gotZero != 0:
			op.Taken = g.Pages
			out.zero = append(out.zero, audit.Held{Pages: state &^ gotZero, Op: op})
		case state&gotHeld == 0:
			out.unjudged++
		default:
			h, ok := byOp[g.Op]
			if !ok {
				h.Op = op
			}
			h.Pages += state &^ gotHeld
			h.Op.Taken += g.Pages
			byOp[g.Op] = h
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byOp)) {
		out.held = append(out.held, byOp[id])
	}
	return out, nil
}

// gotten adds to the evidence what is known of the folios taken with FOLL_GET.
func (s *Session) gotten(e *audit.Evidence, t auditTotals) error {
	g, err := s.judgeGets()
	if err != nil {
		return err
	}
	e.Gotten, e.ZeroPage = g.held, g.zero
	reason := fmt.Sprintf("inline in the kernel: of %d pages taken by get_user_pages (FOLL_GET) neither the release nor a bare SetPageDirty "+
		"can be seen; anonymous memory of processes that have gone was checked for being freed", t.GetsTaken)
	var but []string
	if g.alive > 0 {
		but = append(but, fmt.Sprintf("%d of processes that still run", g.alive))
	}
	if g.unjudged > 0 {
		but = append(but, fmt.Sprintf("%d of files, or mapped or pinned by others", g.unjudged))
	}
	if t.GetsUntracked > 0 {
		but = append(but, fmt.Sprintf("%d pages that there was no room to remember", t.GetsUntracked))
	}
	if len(but) > 0 {
		reason += "; not judged were folios: " + strings.Join(but, ", ")
	}
	e.Coverage.Missing = append(slices.Clone(e.Coverage.Missing), audit.Missing{Hook: "put_page", Reason: reason, Rules: pinRules})
	return nil
}

// drainCPUs makes every CPU give up the references to pages that it keeps for
// the sake of batching, which would look like leaks: the kernel does it when it
// is asked to move pages. It is best effort: what doesn't work is waited for.
func drainCPUs() {
	mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return
	}
	defer unix.Munmap(mem)
	mem[0] = 1
	page, node, status := unsafe.Pointer(&mem[0]), int32(0), int32(0)
	unix.Syscall6(unix.SYS_MOVE_PAGES, 0, 1, uintptr(unsafe.Pointer(&page)), uintptr(unsafe.Pointer(&node)), uintptr(unsafe.Pointer(&status)), 0)
}
