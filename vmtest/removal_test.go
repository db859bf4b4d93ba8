// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"os"
	"os/exec"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

const (
	driverFolder = "/sys/bus/platform/drivers/dio/"
	softwareName = "dio.0" // the platform device behind /dev/dio0
)

func unbind(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(driverFolder+"unbind", []byte(softwareName), 0); err != nil {
		t.Fatal(err)
	}
}

// bind brings the device back, with the configuration it had.
func bind(t *testing.T, config ioctlapi.Config) {
	t.Helper()
	d := rebind(t)
	defer d.Close()
	if err := d.SetConfig(config); err != nil {
		t.Fatal(err)
	}
}

// rebind brings the device back as it is at first.
func rebind(t *testing.T) *ioctlapi.Device {
	t.Helper()
	if err := os.WriteFile(driverFolder+"bind", []byte(softwareName), 0); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		d, err := ioctlapi.Open(ioctlapi.DefaultPath)
		if err == nil {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatal("the device didn't come back:", err)
		}
	}
}

// touch reads and writes a byte of a mapping; false: SIGBUS.
func touch(p *byte) (alive bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { alive = recover() == nil }()
	*p++
	return
}

// The device is removed under whoever waits: all are told ENODEV at once, and
// from then on nothing of it works but to look at its counts.
func TestRemovalInFlight(t *testing.T) {
	d := openDevice(t)
	config, err := d.Config()
	if err != nil {
		t.Fatal(err)
	}
	noPins(t, d) // looks at the old device's counts when all is over
	direct, buffered := openRaw(t, unix.O_DIRECT), openRaw(t, 0)
	page := os.Getpagesize()
	m, err := unix.Mmap(buffered, scratch, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	private, err := unix.Mmap(buffered, scratch, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(private)
	if !touch(&m[0]) || !touch(&private[0]) {
		t.Fatal("SIGBUS before the removal")
	}
	if private[0] == m[0] {
		t.Fatal("writing to a private mapping wrote to the device")
	}
	// One request is kept untold by a fault, and must be told all the same.
	lost := ioctlapi.Fault{Fault: ioctlapi.FaultLostComplete, Every: 1, Count: 1, HoldMS: 600000}
	if err := d.ArmFault(lost); err != nil {
		t.Fatal(err)
	}
	waiting := config
	waiting.Completion, waiting.LatencyNS = ioctlapi.CompletionAuto, uint64(time.Millisecond)
	if err := d.SetConfig(waiting); err != nil {
		t.Fatal(err)
	}
	mem, aio := anonymous(t, 16), newAIO(t, 16)
	t.Cleanup(func() {
		// When all goes well the device isn't there any more.
		if _, err := d.Drain(); err != nil && !errors.Is(err, unix.ENODEV) {
			t.Error(err)
		}
	})
	if err := aio.submit(control(aioRead, direct, mem[:page], scratch)); err != nil {
		t.Fatal(err)
	}
	aio.none()
	waiting.LatencyNS = uint64(50 * time.Second)
	if err := d.SetConfig(waiting); err != nil {
		t.Fatal(err)
	}

	calls := map[string]func() (int, error){
		"direct read":    func() (int, error) { return unix.Pread(direct, mem[1*page:][:page], scratch) },
		"direct write":   func() (int, error) { return unix.Pwrite(direct, mem[2*page:][:page], scratch) },
		"buffered read":  func() (int, error) { return unix.Pread(buffered, mem[3*page:][:page], scratch) },
		"buffered write": func() (int, error) { return unix.Pwrite(buffered, mem[4*page:][:page], scratch) },
		"ioctl":          func() (int, error) { n, err := transferAt(d, mem[5*page:][:page], 0); return int(n), err },
		"fsync":          func() (int, error) { return 0, unix.Fsync(direct) },
	}
	type ended struct {
		name string
		n    int
		err  error
	}
	ends := make(chan ended)
	for name, call := range calls {
		if name == "fsync" {
			continue
		}
		go func() { n, err := call(); ends <- ended{name, n, err} }()
	}
	const async = 5
	for i := range async {
		if err := aio.submit(control(aioRead, direct, mem[(6+i)*page:][:page], scratch)); err != nil {
			t.Fatal(err)
		}
	}
	engines := []string{"io_uring", "io_uring-iopoll", "splice"}
	if hasCommands(t, d) {
		engines = append(engines, "uring_cmd", "uring_cmd-iopoll")
	}
	var children []*doomed
	for _, engine := range engines {
		children = append(children, startDoomed(t, exec.Command("dioctl", "read", "--engine", engine, "--direct", "--length", "64k", ioctlapi.DefaultPath)))
	}
	// The lost one is in flight, too. Each program has one request of 64 KiB.
	waitInFlight(t, d, uint64(1+len(calls)-1+async+len(children)))
	go func() { n, err := calls["fsync"](); ends <- ended{"fsync", n, err} }()
	time.Sleep(50 * time.Millisecond)

	for _, c := range children {
		c.alive(t)
	}
	began := time.Now()
	unbind(t)
	for range calls {
		select {
		case e := <-ends:
			// An fsync only waits, and has nothing to say against those it waited for.
			if e.name != "fsync" && !errors.Is(e.err, unix.ENODEV) || e.name == "fsync" && e.err != nil && !errors.Is(e.err, unix.ENODEV) {
				t.Errorf("%s: %d, %v, want ENODEV", e.name, e.n, e.err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("somebody still waits 20 s after the removal")
		}
	}
	results := map[int64]int{}
	for range async + 1 {
		results[aio.wait(10*time.Second).res]++
	}
	if results[-int64(unix.ENODEV)] != async || results[int64(page)] != 1 {
		t.Errorf("native AIO was told %v, want %d times ENODEV, and a page for the one that was done but held back", results, async)
	}
	aio.none()
	for _, c := range children {
		c.wait(t, 20*time.Second, unix.ENODEV)
	}
	t.Logf("all were told within %v", time.Since(began))

	// What is left.
	for name, call := range calls {
		if n, err := call(); !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s afterwards: %d, %v, want ENODEV", name, n, err)
		}
	}
	if err := aio.submit(control(aioRead, direct, mem[:page], scratch)); err != nil {
		t.Error(err)
	} else if e := aio.wait(10 * time.Second); e.res != -int64(unix.ENODEV) {
		t.Errorf("native AIO afterwards: %d, want ENODEV", e.res)
	}
	if touch(&m[0]) || touch(&m[page]) {
		t.Error("the mapping is still there")
	}
	if touch(&private[0]) {
		t.Error("a private mapping's own copy of a page is still there")
	}
	if _, err := unix.Mmap(buffered, 0, page, unix.PROT_READ, unix.MAP_SHARED); !errors.Is(err, unix.ENODEV) {
		t.Errorf("mmap afterwards: %v, want ENODEV", err)
	}
	if err := d.SetConfig(config); !errors.Is(err, unix.ENODEV) {
		t.Errorf("configuration afterwards: %v, want ENODEV", err)
	}
	if _, err := d.Discard(scratch, 512); !errors.Is(err, unix.ENODEV) {
		t.Errorf("discard afterwards: %v, want ENODEV", err)
	}
	if err := d.ArmFault(lost); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a fault afterwards: %v, want ENODEV", err)
	}
	if _, err := unix.Open(ioctlapi.DefaultPath, unix.O_RDWR, 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("open afterwards: %v, want ENOENT", err)
	}
	if s, err := d.Stats(); err != nil || s.InFlight != 0 || s.PagesPinned != s.PagesReleased || s.QuarantinedRequests != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := d.Info(); err != nil {
		t.Error(err)
	}

	// A new device takes the name; the old files don't come to life again.
	bind(t, config)
	fresh := openDevice(t)
	if s, err := fresh.Stats(); err != nil || s.Reads != 0 || s.StorePages != 0 {
		t.Errorf("the new device isn't new: %+v, %v", s, err)
	}
	if n, err := unix.Pwrite(openRaw(t, unix.O_DIRECT), mem[:page], scratch); n != page || err != nil {
		t.Errorf("the new device: %d, %v", n, err)
	}
	if n, err := calls["direct read"](); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the old file: %d, %v", n, err)
	}
	if err := unix.DeleteModule("dio", unix.O_NONBLOCK); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("unload under open files: %v, want EWOULDBLOCK", err)
	}
}
