// SPDX-License-Identifier: GPL-2.0-only
/*
 * A stand-in for a module with functions in two sections, built into lines.ko:
 * gcc -g -O1 -ffile-prefix-map=$PWD=/src -c lines.c -o lines.o && ld -r --build-id=0x0123456789abcdef lines.o -o lines.ko
 */
int elsewhere(int x);

__attribute__((section(".init.text"))) int set_up(int x)
{
	return elsewhere(x) + 1;
}

int work(int x)
{
	x += 2;
	return elsewhere(x) + 3;
}
