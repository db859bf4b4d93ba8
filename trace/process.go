// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// process is what /proc/PID/stat tells of one (proc_pid_stat(5)).
type process struct {
	state   byte
	parent  int
	flags   uint64
	threads int
}

const pfExiting = 0x4 // PF_EXITING: in the middle of its exit

// parseProcess reads a line of /proc/PID/stat. The name, second of its fields,
// may hold anything; what follows the last parenthesis is plain.
func parseProcess(line string) (process, error) {
	var p process
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return p, errors.New("no name in it")
	}
	f := strings.Fields(line[end+1:])
	const state, parent, flags, threads = 0, 1, 6, 17
	if len(f) <= threads {
		return p, fmt.Errorf("%d fields after the name", len(f))
	}
	p.state = f[state][0]
	var failed [3]error
	p.parent, failed[0] = strconv.Atoi(f[parent])
	p.flags, failed[1] = strconv.ParseUint(f[flags], 10, 64)
	p.threads, failed[2] = strconv.Atoi(f[threads])
	return p, errors.Join(failed[:]...)
}

func readProcess(pid int) (process, error) {
	return readStat(fmt.Sprintf("/proc/%d/stat", pid))
}

func readStat(name string) (process, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return process{}, err
	}
	return parseProcess(string(b))
}

// over says that it has exited: a zombie has, unless it only was the first of
// its threads to end.
func (p process) over() bool {
	return p.state == 'X' || p.state == 'Z' && p.threads <= 1
}

// threadGroup is the process of one of its threads: the programs know a
// process by its first thread's number only, and any of them has a /proc/PID.
func threadGroup(tid int) (int, error) {
	name := fmt.Sprintf("/proc/%d/status", tid)
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "Tgid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", name, err)
			}
			return pid, nil
		}
	}
	return 0, fmt.Errorf("read %s: it tells no process", name)
}

// Gone says whether a process has exited.
func Gone(pid int) bool {
	p, err := readProcess(pid)
	return err != nil || p.over()
}

// exiting says whether the process is in the middle of its exit: all of its
// threads are. A first thread that has ended, alone, is for as long as the
// others run.
func exiting(pid int) bool { return allExiting(fmt.Sprintf("/proc/%d/task", pid)) }

func allExiting(tasks string) bool {
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return false
	}
	seen := false
	for _, t := range threads {
		p, err := readStat(filepath.Join(tasks, t.Name(), "stat"))
		if err != nil {
			continue // it has just gone
		}
		if p.flags&pfExiting == 0 {
			return false
		}
		seen = true
	}
	return seen
}

// descendants are the processes that a process has started, and those that they have.
func descendants(pid int) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, d := range dirs {
		id, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		if p, err := readProcess(id); err == nil { // else it has just gone
			children[p.parent] = append(children[p.parent], id)
		}
	}
	return below(children, pid), nil
}

func below(children map[int][]int, pid int) []int {
	var out []int
	todo := []int{pid}
	for len(todo) > 0 {
		next := children[todo[0]]
		delete(children, todo[0]) // once: a number may be given anew while the list is read
		todo = slices.Concat(todo[1:], next)
		out = append(out, next...)
	}
	return out
}

// initialPIDs is the name of the first PID namespace (PROC_PID_INIT_INO), whose
// numbers the programs see.
const initialPIDs = "pid:[4026531836]"

// samePIDs fails where this process knows others by other numbers than the kernel's first.
func samePIDs() error {
	name, err := os.Readlink("/proc/self/ns/pid")
	if err != nil || name == initialPIDs {
		return nil // a kernel without namespaces has one only
	}
	return errors.New("audit: processes have other numbers in this container than the kernel's programs see: " +
		"start the container with the host's PID namespace (--pid=host), or audit in a VM: dioctl vm run -- dioctl audit -- COMMAND")
}
