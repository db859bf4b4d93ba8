// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// That KVM works holds, that it doesn't may pass, and what failed on this side
// says nothing.
func TestWhatIsRememberedOfKVM(t *testing.T) {
	refused, full := errors.New("busy"), fmt.Errorf("%w: disk full", errNotTried)
	for name, c := range map[string]struct {
		first, second error
		age           time.Duration
		tries         int
		works         bool
	}{
		"works":            {nil, refused, 100 * time.Hour, 1, true},
		"refused just now": {refused, nil, 0, 1, false},
		"refused long ago": {refused, nil, refusalAge + time.Second, 2, true},
		"clock went back":  {refused, nil, -time.Hour, 2, true},
		"not tried":        {full, nil, 0, 2, true},
	} {
		keep := filepath.Join(t.TempDir(), "deep", "kvm.json")
		answers, tries := []error{c.first, c.second}, 0
		try := func() error { tries++; return answers[tries-1] }
		works, why := remembered(context.Background(), keep, try)
		if works != (c.first == nil) || !works && !strings.Contains(why, c.first.Error()) {
			t.Errorf("%s: at first %v, %q", name, works, why)
		}
		then := time.Now().Add(-c.age)
		if err := os.Chtimes(keep, then, then); err != nil && !errors.Is(c.first, errNotTried) {
			t.Fatal(err)
		}
		if works, why := remembered(context.Background(), keep, try); works != c.works || tries != c.tries {
			t.Errorf("%s: then %v, %q, after %d tries; want %v after %d", name, works, why, tries, c.works, c.tries)
		}
	}
}

// A QEMU that can't be started, or no room for its disk, isn't KVM's doing.
func TestProbeNotTried(t *testing.T) {
	if err := probeBoot(context.Background(), "/nonexistent/qemu", "kvm", "host", probeTimeout); !errors.Is(err, errNotTried) {
		t.Errorf("no QEMU: %v", err)
	}
	if err := probeBoot(context.Background(), "/bin/false", "kvm", "host", probeTimeout); err == nil || errors.Is(err, errNotTried) {
		t.Errorf("one that fails: %v", err)
	}
	t.Setenv("TMPDIR", "/nonexistent")
	if err := probeBoot(context.Background(), "/bin/false", "kvm", "host", probeTimeout); !errors.Is(err, errNotTried) {
		t.Errorf("no temporary folder: %v", err)
	}
}

// A machine that was too busy for a guest gets a second, longer try, and only that.
func TestProbeTriesAgain(t *testing.T) {
	nothing := fmt.Errorf("%w within a moment", errNothingCame)
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		answers []error
		want    error
	}{
		"boots":            {[]error{nil}, nil},
		"refused":          {[]error{refused}, refused},
		"busy, then boots": {[]error{nothing, nil}, nil},
		"never boots":      {[]error{nothing, nothing}, errNothingCame},
		"busy, refused":    {[]error{nothing, refused}, refused},
	} {
		var limits []time.Duration
		err := probePatiently(context.Background(), func(limit time.Duration) error {
			limits = append(limits, limit)
			return c.answers[len(limits)-1]
		})
		if !errors.Is(err, c.want) || len(limits) != len(c.answers) {
			t.Errorf("%s: %v after %v, want %v after %d tries", name, err, limits, c.want, len(c.answers))
		}
		if len(limits) == 2 && limits[1] <= limits[0] {
			t.Errorf("%s: limits %v", name, limits)
		}
	}
	// Who gave up isn't kept waiting.
	ctx, cancel := context.WithCancel(context.Background())
	tries := 0
	if err := probePatiently(ctx, func(time.Duration) error { tries++; cancel(); return nothing }); !errors.Is(err, errNothingCame) || tries != 1 {
		t.Errorf("cancelled: %v after %d tries", err, tries)
	}
}
