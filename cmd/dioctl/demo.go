// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"dio/engine"
	"dio/ioctlapi"
	"dio/trace/tracefs"
)

func demoCommand() *cli.Command {
	flags := func() []cli.Flag { return []cli.Flag{deviceFlag(), formatFlag()} }
	return &cli.Command{
		Name:  "demo",
		Usage: "a guided tour: real I/O on the device, each step shown and checked (root)",
		Description: "Every number comes from the driver's tracepoints and counters. The device should\n" +
			"have no other user meanwhile; its configuration and bytes are put back at the end.\n" +
			"The exit status is 1 when a check didn't hold.",
		Flags:  flags(),
		Action: func(c *cli.Context) error { return runDemo(c, tourOfAll...) },
		Subcommands: []*cli.Command{
			{Name: "direct", Usage: "what happens to the caller's pages: pinned, mapped, moved, dirtied, released", Flags: flags(),
				Action: func(c *cli.Context) error { return runDemo(c, demoDirect) }},
			{Name: "async", Usage: "what happens to requests: queued, several in flight, completed once, cancelled", Flags: flags(),
				Action: func(c *cli.Context) error { return runDemo(c, demoAsync) }},
			{Name: "tape", Usage: "a device that must not run dry: one request at a time against 2, 4, 8 in flight", Flags: flags(),
				Description: "The same blocks are written to a tape by a program that needs time for each, first one at a time,\n" +
					"then working ahead with more and more in flight: throughput, stalls and seeks of each, as the driver counted them.",
				Action: func(c *cli.Context) error { return runDemo(c, demoTape) }},
			{Name: "dirty", Usage: "what is lost when pages that the device wrote aren't marked dirty (needs zram)", Flags: flags(),
				Description: "Makes zram disks of its own, to swap to and to map, and removes them at the end. The mark is\n" +
					"left out by arming the fault dirty-missing, which is cleared after. Not part of \"all\", for an\n" +
					"auditor would rightly complain. In a VM: dioctl vm run --kmod zram -- dioctl demo dirty",
				Action: func(c *cli.Context) error { return runDemo(c, demoDirty) }},
			{Name: "dma", Usage: "hardware (QEMU's edu) that reads and writes the caller's pages by itself",
				Flags: []cli.Flag{&cli.StringFlag{Name: "device", Aliases: []string{"d"}, Value: dmaDevice, Usage: "the dio `DEVICE`, one with hardware"}, formatFlag()},
				Description: "How pages become a scatter/gather list, how that is mapped, and within the hardware's reach or not;\n" +
					"then interrupts, unmapping, and the order of all of it. In a VM: dioctl vm run --device edu -- dioctl demo dma",
				Action: func(c *cli.Context) error { return runDemo(c, demoDMA) }},
			{Name: "faults", Usage: "every bug that the driver commits on purpose, and the audit rule that catches it", Flags: flags(),
				Description: "Arms each fault that the auditor has a rule for, in turn, and audits a command that makes the driver\n" +
					"commit it; then clears all and audits the same commands again, which must be clean. Not part of \"all\", which is itself run\n" +
					"under an audit that is to be clean. Faults that were armed before are cleared at the end.",
				Action: func(c *cli.Context) error { return runDemo(c, demoFaults) }},
			{Name: "all", Usage: "direct, async and tape", Flags: flags(),
				Action: func(c *cli.Context) error { return runDemo(c, tourOfAll...) }},
		},
	}
}

// tourOfAll is what a driver without a bug passes under audit, too.
var tourOfAll = []func(*demo) error{demoDirect, demoAsync, demoTape}

// demoSize is the stretch of the device that the tour works on, at its end.
const demoSize = 1 << 20

// demo is a tour under way.
type demo struct {
	ctx    context.Context
	dev    *ioctlapi.Device
	info   ioctlapi.Info
	trace  *tracefs.Instance
	direct *engine.File // the device with O_DIRECT
	plain  *engine.File // and without
	config ioctlapi.Config
	base   int64        // where its stretch begins, bytes
	size   int          // its length, bytes
	pool   *engine.Pool // buffers of demoSize
	tour   *tourView
}

func runDemo(c *cli.Context, tours ...func(*demo) error) (err error) {
	if c.NArg() > 0 {
		return usageErrorf("demo has no tour %q: one of direct, async, tape, dirty, dma, faults, all", c.Args().First())
	}
	var d demo
	d.ctx = c.Context
	undo, err := d.begin(c.String("device"))
	defer func() { err = errors.Join(err, undo()) }()
	if err != nil {
		return err
	}
	if err := d.needsSoftware(c); err != nil {
		return err
	}
	v := demoView{Schema: "dio.demo/1", Kernel: kernelRelease(), Device: d.dev.Path(), Capacity: d.info.Capacity}
	for _, t := range tours {
		v.Tours = append(v.Tours, tourView{})
		d.tour = &v.Tours[len(v.Tours)-1]
		if err := t(&d); err != nil {
			return fmt.Errorf("demo %s: %w", d.tour.Name, err)
		}
	}
	v.count(d.trace.Lost())
	if err := emit(c, v, v.text); err != nil {
		return err
	}
	if v.Held != v.Checks {
		return withStatus(exitFinding, nil) // the last line said it
	}
	return nil
}

// needsSoftware refuses hardware for all tours but dma: they set latencies, and
// move more than it has.
func (d *demo) needsSoftware(c *cli.Context) error {
	if c.Command.Name == "dma" || d.info.Features&ioctlapi.FeatureDMA == 0 {
		return nil
	}
	return withHint(fmt.Errorf("%s is hardware, which keeps its own time", d.dev.Path()), "dioctl demo dma")
}

// begin opens all that a tour needs. undo, never nil, puts the device back as
// it was.
func (d *demo) begin(path string) (undo func() error, err error) {
	var undos []func() error
	undo = func() error {
		var errs []error
		for i := len(undos) - 1; i >= 0; i-- {
			errs = append(errs, undos[i]())
		}
		return errors.Join(errs...)
	}
	if d.dev, err = ioctlapi.Open(path); err != nil {
		return undo, err
	}
	undos = append(undos, d.dev.Close)
	if d.info, err = d.dev.Info(); err != nil {
		return undo, err
	}
	d.size = demoSize
	if d.info.Features&ioctlapi.FeatureDMA != 0 {
		d.size = int(d.info.Capacity) // all of it; and hardware has no other configuration
	}
	d.base = int64(d.info.Capacity) - int64(d.size)
	if d.base < 0 {
		return undo, withHint(fmt.Errorf("%s is too small for the tour: it has %d bytes", path, d.info.Capacity),
			fmt.Sprintf("dioctl config set --capacity %s", formatSize(16*demoSize)))
	}
	config, err := d.dev.Config()
	if err != nil {
		return undo, err
	}
	config.Fields = ioctlapi.ConfigModel | ioctlapi.ConfigFamily | ioctlapi.ConfigCompletion | ioctlapi.ConfigLatency |
		ioctlapi.ConfigBandwidth | ioctlapi.ConfigReposition
	d.config = config
	if err := d.set(ioctlapi.FamilyPin, 0); err != nil {
		return undo, err
	}
	undos = append(undos, func() error { return d.dev.SetConfig(config) })
	if d.trace, err = tracefs.Open(tracefs.Options{Name: fmt.Sprintf("dioctl-demo-%d", os.Getpid())}); err != nil {
		return undo, err
	}
	undos = append(undos, d.trace.Close)
	if err := d.trace.Enable("dio"); err != nil {
		return undo, err
	}
	for _, f := range []struct {
		to     **engine.File
		direct bool
	}{{&d.direct, true}, {&d.plain, false}} {
		if *f.to, err = engine.OpenFile(path, engine.FileOptions{Read: true, Write: true, Direct: f.direct}); err != nil {
			return undo, err
		}
		undos = append(undos, (*f.to).Close)
	}
	if d.pool, err = engine.NewPool(engine.PoolOptions{Count: 2, Size: demoSize}); err != nil {
		return undo, err
	}
	undos = append(undos, d.pool.Close)
	return undo, d.saveBytes(&undos)
}

// saveBytes keeps the stretch's bytes, to be put back.
func (d *demo) saveBytes(undos *[]func() error) error {
	saved := make([]byte, d.size)
	if n, err := unix.Pread(d.plain.FD, saved, d.base); err != nil || n != d.size {
		return fmt.Errorf("read %d bytes at %d of %s: %d came, %v", d.size, d.base, d.dev.Path(), n, err)
	}
	*undos = append(*undos, func() error {
		// Without the latency that the last step may have left.
		if err := d.set(ioctlapi.FamilyPin, 0); err != nil {
			return err
		}
		if n, err := unix.Pwrite(d.plain.FD, saved, d.base); err != nil || n != d.size {
			return fmt.Errorf("put %d bytes back at %d of %s: %d went, %v", d.size, d.base, d.dev.Path(), n, err)
		}
		return nil
	})
	return nil
}

// set chooses the family and the latency; the model keeps bytes.
func (d *demo) set(family ioctlapi.Family, latency time.Duration) error {
	model, completion := ioctlapi.ModelRAM, ioctlapi.CompletionAuto
	if d.config.Model == ioctlapi.ModelEdu {
		model, completion = d.config.Model, d.config.Completion
	}
	return d.dev.SetConfig(ioctlapi.Config{
		Fields: ioctlapi.ConfigModel | ioctlapi.ConfigFamily | ioctlapi.ConfigCompletion | ioctlapi.ConfigLatency,
		Model:  model, Family: family, Completion: completion, LatencyNS: uint64(latency)})
}

// buffers are the two pieces of memory: what is written, what is read.
func (d *demo) buffers() (out, in []byte) {
	a, b := d.pool.TryGet(), d.pool.TryGet()
	d.pool.Put(a)
	d.pool.Put(b)
	return a.Data, b.Data
}

// engine runs operations through an engine, all at once, and returns them in
// the order in which they completed.
func (d *demo) engine(name string, f *engine.File, ops ...*engine.Op) ([]*engine.Op, error) {
	q, err := engine.Open(name, f, engine.Options{Depth: len(ops), Timestamps: true})
	if err != nil {
		return nil, err
	}
	defer q.Close()
	n, err := q.Submit(ops)
	if err == nil && n != len(ops) {
		err = fmt.Errorf("%s took %d of %d operations", name, n, len(ops))
	}
	if err != nil {
		return nil, err
	}
	return q.Reap(d.ctx, len(ops), nil)
}

// seen is what the tracepoints and counters told of a stretch of work.
type seen struct {
	events  []tracefs.Event
	before  ioctlapi.Stats
	after   ioctlapi.Stats
	elapsed time.Duration
}

// watch runs f and gathers what the driver told meanwhile.
func (d *demo) watch(f func() error) (s seen, err error) {
	if _, err = d.trace.Drain(); err != nil {
		return s, err
	}
	if s.before, err = d.dev.Stats(); err != nil {
		return s, err
	}
	start := time.Now()
	if err = f(); err != nil {
		return s, err
	}
	s.elapsed = time.Since(start)
	if s.after, err = d.dev.Stats(); err != nil {
		return s, err
	}
	s.events, err = d.trace.Drain()
	return s, err
}

// of are the events of a name.
func (s *seen) of(name string) (events []tracefs.Event) {
	for _, e := range s.events {
		if e.Name == name {
			events = append(events, e)
		}
	}
	return events
}

// sum adds a field up over the events of a name.
func (s *seen) sum(name, field string) (n uint64) {
	for _, e := range s.of(name) {
		n += e.Uint(field)
	}
	return n
}

// at is when the last event of a name came for a request, on the trace's
// clock; 0: never.
func (s *seen) at(name string, req uint64) time.Duration {
	var at time.Duration
	for _, e := range s.of(name) {
		if e.Uint("req") == req {
			at = e.Time
		}
	}
	return at
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
