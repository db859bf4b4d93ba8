// SPDX-License-Identifier: GPL-2.0-only

package main

import "errors"

// The exit statuses that scripts rely on.
const (
	exitGood        = 0   // all held
	exitFinding     = 1   // a rule was broken, or data differed
	exitUsage       = 2   // the command line makes no sense
	exitEnvironment = 3   // this machine or kernel can't do it, or the verdict is incomplete
	exitVM          = 125 // the VM itself failed: boot, panic, time limit
)

// statusError carries an exit status beside the error that a person reads.
// A nil err leaves the status silent: the output already said it all.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// withStatus marks err with an exit status.
func withStatus(status int, err error) error {
	return &statusError{status: status, err: err}
}

// exitStatus is the status that err stands for; an unmarked error is the
// environment's: what was asked for could not be done here.
func exitStatus(err error) int {
	if err == nil {
		return exitGood
	}
	var s *statusError
	if errors.As(err, &s) {
		return s.status
	}
	return exitEnvironment
}
