// SPDX-License-Identifier: GPL-2.0-only

// Package vmtest holds the tests that run inside the VM, as root, on the real
// driver and the real kernel: `make test` compiles them to one binary and
// boots it. On a host they do nothing: they would load modules and break
// things on purpose.
//
// What is random tells its seed: DIO_SEED=N has it again, DIO_FUZZ_TIME=10m
// lets TestFuzz go on for longer (`scripts/guest-test KERNEL -test.run TestFuzz`).
//
// The tests of the driver, by the beginnings of their names (driverTests), are run
// twice: by themselves, and all together under the auditor, by TestDriverAudited.
package vmtest
