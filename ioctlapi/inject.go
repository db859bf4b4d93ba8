// SPDX-License-Identifier: GPL-2.0-only

package ioctlapi

import "unsafe"

// InjectAction is what goes wrong with a request that meets a rule (enum
// dio_inject_action).
type InjectAction uint32

const (
	InjectNone    InjectAction = 0
	InjectEIO     InjectAction = 1 // fails after its time; nothing is moved
	InjectShort   InjectAction = 2 // moves half
	InjectDelay   InjectAction = 3 // takes Inject.DelayNS longer
	InjectReorder InjectAction = 4 // ends after one that came later
	injectCount                = 5
)

var injectNames = []string{"none", "eio", "short", "delay", "reorder"}

// String is the action's name, as ParseInjectAction takes it.
func (a InjectAction) String() string { return enumString("action", injectNames, uint32(a)) }

// MarshalText makes JSON carry names. It never fails.
func (a InjectAction) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// InjectActions are all actions that can have a rule.
func InjectActions() []InjectAction {
	out := make([]InjectAction, 0, injectCount-1)
	for a := InjectNone + 1; a < injectCount; a++ {
		out = append(out, a)
	}
	return out
}

// ParseInjectAction is the reverse of InjectAction.String, for actions that can
// have a rule.
func ParseInjectAction(s string) (InjectAction, error) {
	v, err := enumParse("action", injectNames[1:], s)
	if err != nil {
		return InjectNone, err
	}
	return InjectAction(v + 1), nil
}

// Bits of Inject.Flags; none of them stands for both.
const (
	InjectReads  = 1 << 0
	InjectWrites = 1 << 1
)

// Inject is the rule of one action (struct dio_inject). An occasion is a
// request of the wanted direction that touches the byte range.
type Inject struct {
	Size      uint32       `json:"size"` // set by the call
	Action    InjectAction `json:"action"`
	Flags     uint32       `json:"flags"`     // InjectReads, InjectWrites; 0: both
	Every     uint32       `json:"every"`     // each Nth occasion, 1 or more
	Seed      uint64       `json:"seed"`      // not 0: each occasion with odds of 1 in Every
	Offset    uint64       `json:"offset"`    // bytes
	Length    uint64       `json:"length"`    // bytes; 0: to the end
	Count     uint64       `json:"count"`     // times at most, 0: no limit; out: what remains
	DelayNS   uint64       `json:"delay_ns"`  // nanoseconds; delay: how long; reorder: at most so long, 0: 100 ms
	Occasions uint64       `json:"occasions"` // out: since the rule was set
	Injected  uint64       `json:"injected"`  // out: since the device was bound
	Armed     uint32       `json:"armed"`     // out: 1 when there is such a rule and it isn't used up
	Reserved  uint32       `json:"reserved"`  // 0
}

// Inject sets the rule of i.Action, in place of an earlier one. EPERM: needs
// CAP_SYS_ADMIN. EINVAL: Action is InjectNone or unknown, Every is 0, the range
// wraps, or DelayNS doesn't fit the action or is over LatencyMaxNS. EOPNOTSUPP:
// hardware knows no InjectDelay and InjectReorder.
func (d *Device) Inject(i Inject) error {
	i.Size = uint32(unsafe.Sizeof(i))
	return d.call("inject "+i.Action.String(), cmdInject, unsafe.Pointer(&i))
}

// Injection reads the rule of an action and how often it was met. EINVAL: a is
// InjectNone or unknown.
func (d *Device) Injection(a InjectAction) (Inject, error) {
	i := Inject{Size: uint32(unsafe.Sizeof(Inject{})), Action: a}
	err := d.call("read the injection of "+a.String(), cmdInjectGet, unsafe.Pointer(&i))
	return i, err
}

// ClearInject removes the rule of an action, or all of them with InjectNone.
// EPERM: needs CAP_SYS_ADMIN. EINVAL: a is unknown.
func (d *Device) ClearInject(a InjectAction) error {
	i := Inject{Size: uint32(unsafe.Sizeof(Inject{})), Action: a}
	op := "clear the injection of " + a.String()
	if a == InjectNone {
		op = "clear all injections"
	}
	return d.call(op, cmdInjectClear, unsafe.Pointer(&i))
}
