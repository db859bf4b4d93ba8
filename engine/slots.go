// SPDX-License-Identifier: GPL-2.0-only

package engine

// slots remembers which operation each number that the kernel was given
// stands for. A number holds a generation beside the slot, so that a second
// completion of an operation is told apart from the first one of its
// successor.
type slots struct {
	ops    []*Op
	gen    []uint32
	free   []uint32
	used   int
	strays int
}

func newSlots(n int) slots {
	s := slots{ops: make([]*Op, n), gen: make([]uint32, n), free: make([]uint32, n)}
	for i := range s.free {
		s.free[i] = uint32(n - 1 - i)
	}
	return s
}

// take gives op a slot; one must be free.
func (s *slots) take(op *Op) uint32 {
	slot := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.ops[slot] = op
	s.used++
	op.slot, op.cancel = slot, false
	return slot
}

// ticket is what the kernel gets for a slot in use.
func (s *slots) ticket(slot uint32) uint64 { return uint64(s.gen[slot])<<32 | uint64(slot) }

// finish gives the operation of a completion, or nil when there is none.
func (s *slots) finish(ticket uint64) *Op {
	slot, gen := uint32(ticket), uint32(ticket>>32)
	if uint64(slot) >= uint64(len(s.ops)) || s.ops[slot] == nil || s.gen[slot] != gen {
		s.strays++
		return nil
	}
	op := s.ops[slot]
	s.release(slot)
	return op
}

// release frees a slot; its old ticket no longer counts.
func (s *slots) release(slot uint32) {
	s.ops[slot] = nil
	s.gen[slot] = (s.gen[slot] + 1) & 0x7fffffff // the top bit marks the queues' own requests
	s.free = append(s.free, slot)
	s.used--
}

// holds tells whether op is in flight here.
func (s *slots) holds(op *Op) bool {
	return uint64(op.slot) < uint64(len(s.ops)) && s.ops[op.slot] == op
}
