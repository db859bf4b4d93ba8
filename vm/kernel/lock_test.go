// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLockWaitsAloud(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "lock")
	var first, second heard
	unlock, err := lock(context.Background(), path, &first)
	if err != nil || len(first.stages) != 0 {
		t.Fatal(err, first.stages)
	}
	ctx, stop := context.WithTimeout(context.Background(), 3*lockPoll)
	defer stop()
	if _, err := lock(ctx, path, &second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a lock that is held: %v", err)
	}
	if len(second.stages) != 1 || !strings.Contains(second.stages[0], path) {
		t.Errorf("told: %q", second.stages)
	}
	time.AfterFunc(lockPoll, unlock)
	again, err := lock(context.Background(), path, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// What is run from the cache must not lie where others can have put it.
func TestCacheDirWithoutEnvironment(t *testing.T) {
	for _, xdg := range []string{"", "relative"} {
		t.Setenv("HOME", "")
		t.Setenv("XDG_CACHE_HOME", xdg)
		d := CacheDir()
		if rel, err := filepath.Rel(os.TempDir(), d); !filepath.IsAbs(d) || err == nil && !strings.HasPrefix(rel, "..") || filepath.Base(d) != "dio" {
			t.Errorf("XDG_CACHE_HOME=%q: %s", xdg, d)
		}
	}
}
