// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseProcess(t *testing.T) {
	const rest = " 1 7 7 0 -1 4194308 1 0 0 0 0 0 0 0 20 0 "
	for name, c := range map[string]struct {
		line string
		want process
		over bool
		bad  bool
	}{
		"running":               {line: "7 (a) S" + rest + "1 0", want: process{'S', 1, 4194308, 1}},
		"a name like the rest":  {line: "7 (a) Z 9 (b)) R" + rest + "2 0", want: process{'R', 1, 4194308, 2}},
		"a zombie":              {line: "7 (a) Z" + rest + "1 0", want: process{'Z', 1, 4194308, 1}, over: true},
		"its first thread over": {line: "7 (a) Z" + rest + "3 0", want: process{'Z', 1, 4194308, 3}},
		"dead":                  {line: "7 (a) X" + rest + "0 0", want: process{'X', 1, 4194308, 0}, over: true},
		"cut off":               {line: "7 (a) S 1 7", bad: true},
		"nothing":               {bad: true},
		"no numbers":            {line: "7 (a) S x 7 7 0 -1 4194308 1 0 0 0 0 0 0 0 20 0 1 0", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseProcess(c.line)
			if (err != nil) != c.bad {
				t.Fatalf("error %v", err)
			}
			if err == nil && (got != c.want || got.over() != c.over) {
				t.Errorf("%+v, over %v", got, got.over())
			}
		})
	}
}

// A thread has a number of its own, under which the programs know no process.
func TestThreadGroup(t *testing.T) {
	tids := make(chan int)
	end := make(chan bool)
	for range 2 { // one of them isn't the first thread
		go func() {
			runtime.LockOSThread()
			tids <- unix.Gettid()
			<-end
		}()
	}
	defer close(end)
	for range 2 {
		tid := <-tids
		if pid, err := threadGroup(tid); err != nil || pid != os.Getpid() {
			t.Errorf("thread %d is of process %d, %v; want %d", tid, pid, err, os.Getpid())
		}
	}
	if _, err := threadGroup(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v for a number that nobody has", err)
	}
}

func TestExiting(t *testing.T) {
	const running, ending = 4194304, 4194308
	for name, c := range map[string]struct {
		threads map[int]int // flags
		want    bool
	}{
		"running":               {threads: map[int]int{7: running}},
		"in its exit":           {threads: map[int]int{7: ending}, want: true},
		"all threads exit":      {threads: map[int]int{7: ending, 8: ending}, want: true},
		"the first has ended":   {threads: map[int]int{7: ending, 8: running}},
		"another has ended":     {threads: map[int]int{7: running, 8: ending}},
		"one went as it looked": {threads: map[int]int{7: ending, 8: 0}, want: true},
		"gone":                  {},
	} {
		t.Run(name, func(t *testing.T) {
			tasks := t.TempDir()
			for tid, flags := range c.threads {
				dir := filepath.Join(tasks, strconv.Itoa(tid))
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if flags == 0 {
					continue
				}
				line := fmt.Sprintf("%d (a) S 1 7 7 0 -1 %d 1 0 0 0 0 0 0 0 20 0 %d 0", tid, flags, len(c.threads))
				if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(line), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := allExiting(tasks); got != c.want {
				t.Errorf("exiting: %v, want %v", got, c.want)
			}
		})
	}
	if allExiting(filepath.Join(t.TempDir(), "none")) {
		t.Error("a process that isn't there is exiting")
	}
}

func TestBelow(t *testing.T) {
	got := below(map[int][]int{1: {2, 3}, 2: {4}, 4: {5}, 3: {1}, 9: {8}}, 2)
	if !slices.Equal(got, []int{4, 5}) {
		t.Errorf("below 2: %v", got)
	}
	if got := below(map[int][]int{1: {2}, 2: {1}}, 1); !slices.Equal(got, []int{2, 1}) {
		t.Errorf("in a ring: %v", got)
	}
}

func TestDescendants(t *testing.T) {
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		c.Process.Kill()
		c.Wait()
		if !Gone(c.Process.Pid) {
			t.Error("still there")
		}
	}()
	got, err := descendants(os.Getpid())
	if err != nil || !slices.Contains(got, c.Process.Pid) {
		t.Errorf("%v, %v: without %d", got, err, c.Process.Pid)
	}
	if Gone(c.Process.Pid) || exiting(c.Process.Pid) {
		t.Error("gone")
	}
}
