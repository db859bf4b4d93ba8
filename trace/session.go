// SPDX-License-Identifier: GPL-2.0-only

// Package trace watches, with eBPF, what drivers do with the pages and
// requests they are given. It needs no driver of its own and knows none: it
// hooks the core kernel's functions.
package trace

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"dio/trace/audit"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Options say what to watch.
type Options struct {
	// All watches every process; else only those of Targets and their descendants.
	All bool
	// Targets are thread groups to watch from the start. With neither All nor
	// Targets, the children that this process starts are watched.
	Targets []int
	// Symbols is a .ko with debug information, or a folder of them, to look at
	// before the usual places; "": only those.
	Symbols string
}

// Session is a running audit, until Evidence is asked for. Close it.
type Session struct {
	types    *btf.Cache
	maps     map[string]*ebpf.Map // outlive objs, which gets its own handles
	objs     *ebpf.Collection
	links    []link.Link
	lazy     []link.Link // may outlive the session for a moment
	reader   *ringbuf.Reader
	multi    bool // one link can serve many functions
	fewSlots bool // but lets few tasks be in them, where it serves their returns (before 6.14)
	noLoop   bool // before 5.17: no bpf_loop, and perhaps no cookies
	hooks    []hook
	symbols  string // Options.Symbols
	coverage audit.Coverage
	atStart  auditTotals // when all was attached
	done     sync.WaitGroup

	skippedAtStart, skippedAtEnd map[string]uint64 // how often the kernel had skipped each program

	mu     sync.Mutex
	events []auditEvent
	bad    uint64 // ring records that made no sense
	deaf   error  // why events weren't read to their end; nil: they were

	overdue map[uint64]audit.Op
	exits   map[int]time.Duration // since when processes with overdue operations are in their exit
	stacks  stacks
}

// Start loads and attaches the programs. What the kernel lacks is in the
// evidence's coverage; an error means that nothing can be audited here.
func Start(o Options) (*Session, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("audit: root is needed to load eBPF programs: run it with sudo, or in a VM: dioctl vm run -- dioctl audit -- COMMAND")
	}
	if err := samePIDs(); err != nil {
		return nil, err
	}
	// Before 5.11 maps are charged against RLIMIT_MEMLOCK.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("audit: raise the limit of locked memory: %w", err)
	}
	s := &Session{overdue: map[uint64]audit.Op{}, types: btf.NewCache(), symbols: o.Symbols}
	version, err := features.LinuxVersionCode()
	if err != nil {
		return nil, fmt.Errorf("audit: tell the kernel's version: %w", err)
	}
	s.noLoop = version < 5<<16|17<<8
	load := loadAudit
	if s.noLoop {
		load = loadAuditNoLoop
	}
	spec, err := load()
	if err != nil {
		return nil, fmt.Errorf("audit: read the programs: %w", err)
	}
	// Creating the maps and decoding the kernel's types take as long as each
	// other, which is much under emulation.
	created := make(chan error, 1)
	go func() { created <- s.createMaps(spec) }()
	kernel, err := s.types.Kernel()
	if err := <-created; err != nil {
		s.Close()
		return nil, explainLoad(err)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("audit: the kernel's type information (/sys/kernel/btf/vmlinux) can't be read: %w: "+
			"boot a kernel built with CONFIG_DEBUG_INFO_BTF, such as the distribution's", err)
	}
	s.plan(kernel)
	if err := s.load(spec, kernel, version, o); err != nil {
		s.Close()
		return nil, explainLoad(err)
	}
	if err := s.attach(kernel); err != nil {
		s.Close()
		return nil, explainLoad(err)
	}
	for _, pid := range o.Targets {
		if err := watchBelow(pid, descendants, s.watch); err != nil {
			s.Close()
			return nil, fmt.Errorf("audit: watch the processes below %d: %w", pid, err)
		}
	}
	s.done.Add(1)
	go s.read()
	return s, nil
}

// watch brings processes into scope.
func (s *Session) watch(pids ...int) error {
	for _, pid := range pids {
		if err := s.objs.Maps["targets"].Put(uint32(pid), uint32(1)); err != nil {
			return fmt.Errorf("watch process %d: %w", pid, err)
		}
	}
	return nil
}

// watchBelow brings the descendants of a process into scope. Whoever is started by one
// that is watched is seen; by one that isn't yet, after it was looked for, isn't: so
// until none is new, but not for ever.
func watchBelow(pid int, descendants func(int) ([]int, error), watch func(...int) error) error {
	seen := map[int]bool{}
	for range 10 {
		pids, err := descendants(pid)
		if err != nil {
			return err
		}
		pids = slices.DeleteFunc(pids, func(p int) bool { return seen[p] })
		if len(pids) == 0 {
			break
		}
		if err := watch(pids...); err != nil {
			return err
		}
		for _, p := range pids {
			seen[p] = true
		}
	}
	return nil
}

// explainLoad adds what a person can do about the usual refusals.
func explainLoad(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		hint := "the system refuses eBPF: a container needs CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN; a VM always works: dioctl vm run"
		if lockedDown() {
			hint = "the kernel is locked down (Secure Boot) and refuses to let programs read kernel memory: boot without lockdown, or audit in a VM"
		}
		// What the library says behind it is for those who program with it.
		what, _, _ := strings.Cut(err.Error(), unix.EPERM.Error())
		return fmt.Errorf("audit: %s%w: %s", what, unix.EPERM, hint)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("audit: %w: this kernel is too old for the auditor: 5.10 or newer is needed", err)
	default:
		return fmt.Errorf("audit: %w", err)
	}
}

func lockedDown() bool {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	return err == nil && !slices.Contains([]string{"", "[none] integrity confidentiality\n"}, string(b))
}

// has says whether the kernel has the function, by its type information.
func has(kernel *btf.Spec, name string) bool {
	var f *btf.Func
	return kernel.TypeByName(name, &f) == nil
}

// hasMember says whether a struct of the kernel has such a member.
func hasMember(kernel *btf.Spec, name, member string) bool {
	var s *btf.Struct
	return kernel.TypeByName(name, &s) == nil && slices.ContainsFunc(s.Members, func(m btf.Member) bool { return m.Name == member })
}

func firstOf(kernel *btf.Spec, names []string) string {
	for _, n := range names {
		if has(kernel, n) {
			return n
		}
	}
	return ""
}

func (s *Session) missing(hook, reason string, rules []string, essential bool) {
	s.coverage.Missing = append(s.coverage.Missing,
		audit.Missing{Hook: hook, Reason: reason, Rules: rules, Essential: essential})
}

// createMaps creates the maps that don't depend on settings.
func (s *Session) createMaps(spec *ebpf.CollectionSpec) error {
	s.maps = map[string]*ebpf.Map{}
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue
		}
		created, err := ebpf.NewMap(m)
		if err != nil {
			return fmt.Errorf("create map %s: %w", name, err)
		}
		s.maps[name] = created
	}
	return nil
}

func (s *Session) load(spec *ebpf.CollectionSpec, kernel *btf.Spec, version uint32, o Options) error {
	for _, h := range dualHooks {
		name := firstOf(kernel, h.names)
		if name == "" {
			delete(spec.Programs, h.program)
			s.missing(h.names[0], "this kernel has no such function", h.rules, !h.optional)
			continue
		}
		spec.Programs[h.program].AttachTo = name
	}
	// Absent without CONFIG_FPROBE (Debian's 6.1) and before 5.18.
	s.multi = has(kernel, "register_fprobe_ips")
	s.fewSlots = s.multi && hasMember(kernel, "fprobe", "rethook")
	if s.noLoop {
		s.multiply(spec)
	}
	for _, p := range spec.Programs {
		if p.Type == ebpf.Kprobe {
			p.AttachType = ebpf.AttachNone
			if s.multi {
				p.AttachType = ebpf.AttachTraceKprobeMulti
			}
		}
	}
	if s.fewSlots {
		each := spec.Programs["on_return"].Copy()
		each.AttachType = ebpf.AttachNone
		spec.Programs[returnEach] = each
	}
	settings := map[string]uint32{"self_tgid": uint32(os.Getpid())}
	if o.All {
		settings["audit_all"] = 1
	}
	if version < 6<<16|3<<8 {
		settings["foll_longterm"] = 1 << 16 // FOLL_LONGTERM moved in 6.3
	}
	for name, value := range settings {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	objs, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Cache: s.types, MapReplacements: s.maps,
	})
	if err != nil {
		return fmt.Errorf("load the programs: %w", err)
	}
	s.objs = objs
	s.stacks.read = func(id uint32, pcs *[32]uint64) error { return objs.Maps["stacks"].Lookup(id, pcs) }
	targets := o.Targets
	if len(targets) == 0 && !o.All {
		targets = []int{os.Getpid()}
	}
	if err := s.watch(targets...); err != nil {
		return err
	}
	s.reader, err = ringbuf.NewReader(objs.Maps["events"])
	if err != nil {
		return fmt.Errorf("open the ring of events: %w", err)
	}
	return nil
}

// read collects events until the ring is closed.
func (s *Session) read() {
	defer s.done.Done()
	for {
		record, err := s.reader.Read()
		if err != nil {
			if !errors.Is(err, ringbuf.ErrClosed) && !errors.Is(err, ringbuf.ErrFlushed) {
				s.mu.Lock()
				s.deaf = err
				s.mu.Unlock()
			}
			return
		}
		event, ok := decodeEvent(record.RawSample)
		s.mu.Lock()
		if ok {
			s.events = append(s.events, event)
		} else {
			s.bad++
		}
		s.mu.Unlock()
	}
}

// Close detaches everything. Programs on core-kernel functions may be detached
// a moment later, by the kernel; those on modules are gone when it returns, so
// that a driver can be unloaded.
func (s *Session) Close() error {
	background := detachInBackground(s.lazy)
	defer background()
	var closing sync.WaitGroup
	for _, l := range slices.Concat(s.lazy, s.links) {
		closing.Go(func() { l.Close() })
	}
	closing.Wait()
	s.lazy, s.links = nil, nil
	if s.reader != nil {
		s.reader.Close()
		s.done.Wait()
	}
	if s.objs != nil {
		s.objs.Close()
		s.objs = nil
	}
	for _, m := range s.maps {
		m.Close()
	}
	s.maps = nil
	return nil
}

// now is the clock of the programs: bpf_ktime_get_ns.
func now() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}
