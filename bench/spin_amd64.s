// SPDX-License-Identifier: GPL-2.0-only

#include "textflag.h"

// func spin(n uint64)
TEXT ·spin(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX
again:
	DECQ CX
	JNZ  again
	RET
