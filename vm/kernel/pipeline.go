// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
)

// pipeline runs commands, the output of each the input of the next. All have
// to succeed.
func pipeline(ctx context.Context, commands ...[]string) error {
	cmds := make([]*exec.Cmd, len(commands))
	stderr := make([]bytes.Buffer, len(commands))
	for i, c := range commands {
		cmds[i] = exec.CommandContext(ctx, c[0], c[1:]...)
		cmds[i].Stderr = &stderr[i]
	}
	var errs []error
	started := 0
	for i, cmd := range cmds {
		if i < len(cmds)-1 {
			pipe, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			cmds[i+1].Stdin = pipe
			// Only the next command may hold it: it is what ends this one
			// when that one gives up.
			defer pipe.Close()
		}
		if err := cmd.Start(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", commands[i][0], err))
			break
		}
		started++
		if c, ok := cmd.Stdin.(interface{ Close() error }); ok {
			c.Close()
		}
	}
	if started < len(cmds) {
		for _, cmd := range cmds[:started] {
			_ = cmd.Process.Kill()
		}
	}
	for i, cmd := range cmds[:started] {
		if err := cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w %s", commands[i][0], err, lastLines(stderr[i].String(), 3)))
		}
	}
	return errors.Join(errs...)
}
