// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// rootClang is the clang of each suite that private roots are made of.
var rootClang = map[string]string{"bookworm": "clang-14", "trixie": "clang-19"}

// Stock kernels are configured for gcc, and their headers hand its options
// to whatever compiles a module. These are the ones that clang refuses;
// none changes what the code means; of -mindirect-branch see clangScript.
var gccOnly = []string{
	"-mindirect-branch*", "-fconserve-stack", "-fno-conserve-stack", "-mrecord-mcount", "-fmin-function-alignment=*",
	"-mpreferred-stack-boundary=*", "-fno-allow-store-data-races", "-fno-ipa-sra", "-flive-patching=*", "-fplugin*",
	"-fdiagnostics-show-context*", "-fno-var-tracking*", "-femit-struct-debug-baseonly", "-fsanitize=bounds-strict",
	"-mno-fp-ret-in-387", "-mskip-rax-setup", "-mstack-protector-guard*",
}

// newerClang are those that clang learned at some time. Where it hasn't yet,
// objtool must not look for their effect: the configuration's names to unset.
var newerClang = []struct {
	option string
	unset  []string
}{
	{"-mfunction-return=thunk-extern", []string{"CONFIG_RETHUNK=", "CONFIG_MITIGATION_RETHUNK="}},
	{"-mharden-sls=all", []string{"CONFIG_SLS=", "CONFIG_MITIGATION_SLS="}},
	{"-ftrivial-auto-var-init=zero", nil},
	{"-fzero-call-used-regs=used-gpr", nil},
	{"-fstrict-flex-arrays=3", nil},
}

// clangEnvironment builds by clang: this machine's where the kernel's own
// tools run on it, else that of a private root.
func clangEnvironment(ctx context.Context, row Row, p Progress) (*environment, error) {
	env, clang := &environment{}, "clang"
	if row.Compiler != 0 && !glibcAtLeast(row.Glibc) {
		clang = rootClang[row.Root]
		var err error
		if env, err = chrootEnvironment(ctx, row, clang, p); err != nil {
			return nil, err
		}
	} else if err := need("make", clang); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "dio-clang-")
	if err != nil {
		return nil, err
	}
	env.tmp = tmp
	drop := append([]string(nil), gccOnly...)
	for _, n := range newerClang {
		if env.command(ctx, tmp, tmp, clang, "-Werror", n.option, "-c", "-o", "/dev/null", "-x", "c", "/dev/null").Run() != nil {
			drop = append(drop, n.option)
			env.vars = append(env.vars, n.unset...)
		}
	}
	cc := filepath.Join(tmp, "clang")
	err = errors.Join(os.Chmod(tmp, 0o755), os.WriteFile(cc, []byte(clangScript(clang, drop)), 0o755))
	if err != nil {
		env.close()
		return nil, err
	}
	env.vars = append(env.vars, "CC="+cc)
	return env, nil
}

// clangScript is a clang that passes over the options to drop, has its own name
// for gcc's retpolines, and passes over warnings that only headers made for gcc
// give: those that a kernel configured for clang turns off.
func clangScript(clang string, drop []string) string {
	return `#!/bin/sh
for a do
	shift
	case $a in
	-mindirect-branch=thunk-extern) set -- "$@" -mretpoline-external-thunk ;;
	` + strings.Join(drop, " | ") + `) ;;
	*) set -- "$@" "$a" ;;
	esac
done
exec ` + clang + ` "$@" -Qunused-arguments -Wno-unknown-warning-option -Wno-duplicate-decl-specifier \
	-Wno-address-of-packed-member -Wno-microsoft-anon-tag -Wno-gnu-variable-sized-type-not-at-end -Wno-enum-enum-conversion
`
}
