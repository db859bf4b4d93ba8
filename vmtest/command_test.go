// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// commandLimit bounds a command that a test starts; an audited fio run under
// emulation takes a tenth of it.
const commandLimit = 3 * time.Minute

// outcome is what a command left behind.
type outcome struct {
	args   []string
	status int
	stdout []byte
	stderr string
}

// run starts a command and waits for it; only a command that can't be started
// or outlives the limit fails the test, the status is the caller's to judge.
func run(t *testing.T, args ...string) outcome {
	t.Helper()
	return runWithin(t, commandLimit, args...)
}

// runWithin is run for a command that makes many audits.
func runWithin(t *testing.T, limit time.Duration, args ...string) outcome {
	t.Helper()
	// Not cancelled with the test's own context: cleanups run commands, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	defer cancel()
	return outcomeOf(t, ctx, exec.CommandContext(ctx, args[0], args[1:]...))
}

// outcomeOf runs the command, which ctx bounds.
func outcomeOf(t *testing.T, ctx context.Context, cmd *exec.Cmd) outcome {
	t.Helper()
	args := cmd.Args
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s: %v (%v)\n%s", strings.Join(args, " "), err, ctx.Err(), &stderr)
	}
	return outcome{args, cmd.ProcessState.ExitCode(), stdout.Bytes(), stderr.String()}
}

// mustRun is run for a command that has to succeed.
func mustRun(t *testing.T, args ...string) outcome {
	t.Helper()
	o := run(t, args...)
	o.want(t, 0)
	return o
}

func (o outcome) want(t *testing.T, status int) {
	t.Helper()
	if o.status != status {
		t.Fatalf("%s: exit status %d, want %d\nstdout: %s\nstderr: %s",
			strings.Join(o.args, " "), o.status, status, o.stdout, o.stderr)
	}
}

// decode reads the command's standard output as one JSON object.
func decode[T any](t *testing.T, o outcome) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(o.stdout, &v); err != nil {
		t.Fatalf("%s: output is not JSON: %v\nstdout: %s\nstderr: %s", strings.Join(o.args, " "), err, o.stdout, o.stderr)
	}
	return v
}
