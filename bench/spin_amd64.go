// SPDX-License-Identifier: GPL-2.0-only

package bench

// spinInstructions is how many instructions a turn of spin has.
const spinInstructions = 2

// spin turns n times, 1 or more, and does nothing else.
//
//go:noescape
func spin(n uint64)
