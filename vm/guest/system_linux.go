// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dio/vm/wire"
)

// Linux is the System of a real guest.
type Linux struct{}

// Mkdir makes one directory.
func (Linux) Mkdir(path string, mode uint32) error { return unix.Mkdir(path, mode) }

// Empty tells whether the folder has nothing in it.
func (Linux) Empty(path string) bool {
	entries, err := os.ReadDir(path)
	return err != nil || len(entries) == 0
}

// Mount mounts one file system.
func (Linux) Mount(source, target, fstype string, flags uintptr, data string) error {
	return unix.Mount(source, target, fstype, flags, data)
}

// LoadModule loads one uncompressed module; one that is there is no error.
func (Linux) LoadModule(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FinitModule(fd, "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// poll calls look until it finds something or patience ends.
func poll(what string, patience time.Duration, look func() (string, error)) (string, error) {
	end := time.Now().Add(patience)
	for {
		found, err := look()
		if err != nil || found != "" {
			return found, err
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("%s did not appear in %v", what, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// OpenPort opens the virtio-serial port of that name.
func (Linux) OpenPort(name string, patience time.Duration) (io.ReadWriter, error) {
	dev, err := poll("virtio-serial port "+name, patience, func() (string, error) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == name {
				dev := "/dev/" + filepath.Base(filepath.Dir(n))
				if _, err := os.Stat(dev); err == nil {
					return dev, nil
				}
			}
		}
		return "", err
	})
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dev, err)
	}
	return rawFile(fd), nil
}

// FindDisk is the first nvme namespace.
func (Linux) FindDisk(patience time.Duration) (string, error) {
	return poll("the nvme disk", patience, func() (string, error) {
		found, err := filepath.Glob("/dev/nvme*n1")
		if len(found) == 0 {
			return "", err
		}
		return found[0], nil
	})
}

// Settle names the host, brings loopback up and makes the links that
// programs expect in /dev.
func (Linux) Settle() {
	_ = unix.Sethostname([]byte("dio"))
	for _, l := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"fd/0", "/dev/stdin"},
		{"fd/1", "/dev/stdout"}, {"fd/2", "/dev/stderr"}} {
		_ = unix.Symlink(l[0], l[1])
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if req, err := unix.NewIfreq("lo"); err == nil && unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req) == nil {
		req.SetUint16(req.Uint16() | unix.IFF_UP)
		_ = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	}
}

// Wait reaps any child.
func (Linux) Wait() (int, unix.WaitStatus, error) {
	var ws unix.WaitStatus
	pid, err := unix.Wait4(-1, &ws, 0, nil)
	return pid, ws, err
}

// Kill sends sig to the process, or to the group -pid.
func (Linux) Kill(pid int, sig unix.Signal) error { return unix.Kill(pid, sig) }

// Kmsg opens the kernel's log at its first record.
func (Linux) Kmsg() (Output, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/kmsg: %w", err)
	}
	d, err := newDrainable(fd)
	if err != nil {
		return nil, err
	}
	d.read = readRecords
	return d, nil
}

// readRecords fills p with console lines of as many records as fit.
func readRecords(fd int, p []byte) (int, error) {
	rec := make([]byte, 8<<10)
	n := 0
	for len(p)-n > len(rec) {
		m, err := unix.Read(fd, rec)
		switch {
		case errors.Is(err, unix.EPIPE):
			n += copy(p[n:], "[records were overwritten before they were read]\n")
		case err != nil:
			if n > 0 {
				return n, nil
			}
			return 0, err
		default:
			if line, ok := consoleLine(string(rec[:m])); ok {
				n += copy(p[n:], line)
			}
		}
	}
	return n, nil
}

// writeExisting writes to a file that must be there, as one of the kernel's.
func writeExisting(p, text string) error {
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Greeting tells the kernel's release and its age.
func (Linux) Greeting() wire.Greeting {
	var g wire.Greeting
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		g.Release = unix.ByteSliceToString(u.Release[:])
	}
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) == nil {
		g.Uptime = float64(ts.Nano()) / 1e9
	}
	return g
}

// PowerOff ends the machine.
func (Linux) PowerOff() error {
	_ = unix.Kill(-1, unix.SIGKILL)
	_ = unix.Unmount(DiskPath, unix.MNT_DETACH)
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		return fmt.Errorf("power off: %w", err)
	}
	select {} // PID 1 must not return
}

// rawFile reads and writes a descriptor with plain system calls: the port
// is used by one thread each way, so Go's poller would only cost.
type rawFile int

func (f rawFile) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (f rawFile) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(int(f), p[done:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, err
		default:
			done += n
		}
	}
	return done, nil
}

func (f rawFile) Close() error { return unix.Close(int(f)) }
