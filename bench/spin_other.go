// SPDX-License-Identifier: GPL-2.0-only

//go:build !amd64

package bench

// spinInstructions is 0: here nobody counted them.
const spinInstructions = 0

func spin(n uint64) {
	for ; n > 0; n-- {
	}
}
