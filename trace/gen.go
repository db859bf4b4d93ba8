// SPDX-License-Identifier: GPL-2.0-only

package trace

//go:generate go tool bpf2go -cc clang -cflags "-O2 -g -Wall -Werror -mcpu=v3" -target bpfel -type event -type op -type folio_state -type hold_key -type hold -type got -type totals -type task_state audit bpf/audit.bpf.c
//go:generate go tool bpf2go -cc clang -cflags "-O2 -g -Wall -Werror -mcpu=v3 -DWITHOUT_BPF_LOOP" -target bpfel auditNoLoop bpf/audit.bpf.c
