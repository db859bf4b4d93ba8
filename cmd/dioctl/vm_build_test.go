// SPDX-License-Identifier: GPL-2.0-only

package main

import "testing"

func TestBuildWarnings(t *testing.T) {
	for log, want := range map[string]int{
		"": 0,
		"make: Entering directory '/x'\n  CC [M]  main.o\n  MODPOST Module.symvers\n1 warning generated.\n":                              0,
		"warning: the compiler differs from the one used to build the kernel\n  The kernel was built by: gcc-13\n  You are using: gcc\n": 0,
		"/tmp/kmod/main.c:3:5: warning: unused variable 'x' [-Wunused-variable]\n    3 | int x;\n":                                       1,
		"main.c:3:5: warning: unused variable 'x' [-Wunused-variable]\nmain.c:4:5: warning: unused variable 'y'":                         2,
		"dio.o: warning: objtool: dio_ioctl+0x2f2: indirect call found in RETPOLINE build\n":                                             1,
		"WARNING: modpost: dio: section mismatch in reference: dio_probe+0x1 (section: .text) -> dio_setup (section: .init.text)\n":      1,
	} {
		if got := buildWarnings(log); got != want {
			t.Errorf("%d warnings, want %d, in\n%s", got, want, log)
		}
	}
}
