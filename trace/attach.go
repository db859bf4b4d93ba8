// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// plan finds the functions that only tasks call, and those of modules.
func (s *Session) plan(kernel *btf.Spec) {
	for _, h := range taskHooks {
		if h.until != "" && has(kernel, h.until) {
			continue
		}
		name := firstOf(kernel, h.names)
		if name == "" {
			if !h.old {
				s.missing(h.names[0], "this kernel has no such function", h.rules, !h.optional)
			}
			continue
		}
		s.hooks = append(s.hooks, hook{name, h.cookie, h.enter, h.exit, h.rules})
	}
	for _, u := range unwatched {
		if has(kernel, u.name) {
			s.missing(u.name, u.reason, u.rules, false)
		}
	}
	s.hooks = append(s.hooks, s.moduleIters(kernel)...)
}

// multiply makes a copy of the shared programs for each function, with the
// cookie as a constant: before 5.15 there are none.
func (s *Session) multiply(spec *ebpf.CollectionSpec) {
	for _, shared := range []string{"on_enter", "on_return"} {
		for _, h := range s.hooks {
			if shared == "on_enter" && !h.enter || shared == "on_return" && !h.exit {
				continue
			}
			p := spec.Programs[shared].Copy()
			for i, ins := range p.Instructions {
				if ins.IsBuiltinCall() && ins.Constant == int64(asm.FnGetAttachCookie) {
					constant := asm.Mov.Imm(asm.R0, int32(h.cookie))
					constant.Metadata = ins.Metadata
					p.Instructions[i] = constant
				}
			}
			spec.Programs[programOf(shared, h)] = p
		}
		delete(spec.Programs, shared)
	}
}

// programOf names the copy of a shared program that serves one function.
func programOf(shared string, h hook) string { return shared + ":" + h.name }

// program is the one for the function's entry or return.
func (s *Session) program(shared string, h hook) *ebpf.Program {
	if s.noLoop {
		return s.objs.Programs[programOf(shared, h)]
	}
	return s.objs.Programs[shared]
}

// attach puts completions and releases first: what is taken before its
// release can be seen would look leaked.
func (s *Session) attach(kernel *btf.Spec) error {
	for i, h := range dualHooks {
		p := s.objs.Programs[h.program]
		if p == nil {
			continue
		}
		name := firstOf(kernel, h.names)
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			s.missing(name, err.Error(), h.rules, true)
			continue
		}
		s.lazy = append(s.lazy, l)
		if s.noLoop {
			s.coverage.Attached = append(s.coverage.Attached, name)
			continue // an fentry program alone sees every call
		}
		s.hooks = append(s.hooks, hook{name, h.cookie(i), true, false, h.rules})
	}
	for _, t := range tracepoints {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: t.name, Program: s.objs.Programs[t.program]})
		if err != nil {
			return fmt.Errorf("attach to tracepoint %s: %w", t.name, err)
		}
		s.links = append(s.links, l)
		if !strings.Contains(t.program, "_again") {
			s.coverage.Attached = append(s.coverage.Attached, t.name)
		}
	}
	s.attachHooks(s.hooks)
	return s.noteStart()
}

// hook is one function for the shared programs.
type hook struct {
	name        string
	cookie      uint64
	enter, exit bool
	rules       []string
}

func (h hook) kind() uint64 { return h.cookie & 0xff }

// waits tells whether tasks may stay in the function until a request is done, as many
// at a time as there are requests: in all whose return is seen, but those that pin.
func (h hook) waits() bool { return h.kind() != kindPin }

// returnEach is the program of returns, for links of one function each.
const returnEach = "on_return_each"

// attachHooks attaches returns before entries, all at once; if the kernel
// refuses one of them, each for itself, so that it is known which.
func (s *Session) attachHooks(hooks []hook) {
	if len(hooks) == 0 {
		return
	}
	attach := s.attachMulti
	if !s.multi {
		attach = s.attachEach
	}
	if err := attach(hooks); err == nil {
		for _, h := range hooks {
			s.coverage.Attached = append(s.coverage.Attached, h.name)
		}
		return
	} else if len(hooks) == 1 {
		s.missing(hooks[0].name, err.Error(), hooks[0].rules, hooks[0].kind() != kindIter)
		return
	}
	s.attachHooks(hooks[:len(hooks)/2])
	s.attachHooks(hooks[len(hooks)/2:])
}

func (s *Session) attachMulti(hooks []hook) error {
	var enter, exit link.KprobeMultiOptions
	var links []link.Link
	for _, h := range hooks {
		if h.enter {
			enter.Symbols = append(enter.Symbols, h.name)
			enter.Cookies = append(enter.Cookies, h.cookie)
		}
		if !h.exit {
			continue
		}
		// Where this can't be had, for want of tracefs, with the others: few tasks then.
		if s.fewSlots && h.waits() {
			o := link.KprobeOptions{Cookie: h.cookie, RetprobeMaxActive: asleepAtOnce}
			if l, err := link.Kretprobe(h.name, s.objs.Programs[returnEach], &o); err == nil {
				links = append(links, l)
				continue
			}
		}
		exit.Symbols = append(exit.Symbols, h.name)
		exit.Cookies = append(exit.Cookies, h.cookie)
	}
	undo := func(err error) error {
		for _, l := range links {
			l.Close()
		}
		return err
	}
	if len(exit.Symbols) > 0 {
		l, err := link.KretprobeMulti(s.objs.Programs["on_return"], exit)
		if err != nil {
			return undo(fmt.Errorf("attach to returns: %w", err))
		}
		links = append(links, l)
	}
	if len(enter.Symbols) > 0 {
		l, err := link.KprobeMulti(s.objs.Programs["on_enter"], enter)
		if err != nil {
			return undo(fmt.Errorf("attach to entries: %w", err))
		}
		links = append(links, l)
	}
	s.links = append(s.links, links...)
	return nil
}

// asleepAtOnce is for how many tasks that sleep in one function the kernel
// keeps a place, each of some 60 bytes, to see their returns. A retprobe of
// its own has as many as there are CPUs, and functions that pin, or wait for
// a request, sleep for long.
const asleepAtOnce = 1024

// attachEach is attachMulti for kernels without such links: a probe for each
// function, which takes longer.
func (s *Session) attachEach(hooks []hook) error {
	var links []link.Link
	undo := func(err error) error {
		for _, l := range links {
			l.Close()
		}
		return err
	}
	for _, h := range hooks {
		o := &link.KprobeOptions{Cookie: h.cookie}
		if s.noLoop {
			o.Cookie = 0
		}
		if h.exit {
			l, err := attachReturn(h.name, s.program("on_return", h), *o)
			if err != nil {
				return undo(fmt.Errorf("attach to the return of %s: %w", h.name, err))
			}
			links = append(links, l)
		}
		if h.enter {
			l, err := link.Kprobe(h.name, s.program("on_enter", h), o)
			if err != nil {
				return undo(fmt.Errorf("attach to %s: %w", h.name, err))
			}
			links = append(links, l)
		}
	}
	s.links = append(s.links, links...)
	return nil
}

// attachReturn takes the kernel's own number of places where it can't be
// asked for more, which needs tracefs: a return that finds none is counted.
func attachReturn(function string, p *ebpf.Program, o link.KprobeOptions) (link.Link, error) {
	o.RetprobeMaxActive = asleepAtOnce
	if l, err := link.Kretprobe(function, p, &o); err == nil {
		return l, nil
	}
	o.RetprobeMaxActive = 0
	return link.Kretprobe(function, p, &o)
}
