# SPDX-License-Identifier: GPL-2.0-only
#
# Every target works from a bare checkout: it installs or fetches what it lacks
# (packages through sudo when not root), says what it does, and is quick the
# second time. For build, run, guest-test, vng and bench KERNEL=NAME picks another
# kernel of `build/dioctl vm kernels`; test and lint have theirs.

# Where Debian keeps mke2fs and depmod; a user's PATH may lack these folders.
export PATH := $(PATH):/usr/sbin:/sbin

.DELETE_ON_ERROR:
.PHONY: help run test build setup lint vng matrix debug bench generate check-generated host-test guest-test clean

help:
	@echo 'make run        the guided tour: real I/O on a real kernel in a VM, audited'
	@echo 'make test       every test, on the host and in the VM'
	@echo 'make build      build/dioctl and build/<kernel>/dio.ko'
	@echo 'make vng        the guest tests again, through virtme-ng'
	@echo 'make matrix     the guest tests on every kernel (JOBS=2: two at a time)'
	@echo 'make debug      the guest tests on a kernel with every checker, built once (10 to 25 minutes)'
	@echo 'make bench      what a request costs, beside null_blk and brd, against what is wanted'
	@echo 'make lint       the style and type checkers of C, Go and the hosted workflow'
	@echo 'make generate   the eBPF objects, from trace/bpf, and the manual pages, docs/man'
	@echo 'make clean      removes build/; the cache of kernels stays'
	@echo 'KERNEL=NAME     another kernel, for run, build, guest-test, vng and bench'

GO      ?= go
DIOCTL  := build/dioctl
CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dio

setup:
	@scripts/setup run

# The tool: static, so that one file serves the host, the guest's /init and the
# guest's commands. Go's own build cache decides what has to be compiled.
$(DIOCTL): setup FORCE
	@mkdir -p build
	@scripts/build-bpf
	@CGO_ENABLED=0 $(GO) build -trimpath -overlay build/bpf/overlay.json -ldflags='-s -w' -o $@ ./cmd/dioctl

FORCE:

build: $(DIOCTL)
	@scripts/build-module $(KERNEL) >/dev/null

run: build
	@scripts/tour $(KERNEL)

host-test: setup
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 $(GO) test ./...

guest-test: build
	@scripts/guest-test $(KERNEL)

test:
	@scripts/test

vng: build
	@scripts/setup vng
	@scripts/vng $(KERNEL)

matrix: $(DIOCTL)
	@scripts/matrix

debug: $(DIOCTL)
	@scripts/setup debug
	@DIO_VM_TESTS=1 DIO_KERNEL=debug CGO_ENABLED=0 $(GO) test -count=1 -timeout 15m -run TestVMCheckers ./vm
	@scripts/guest-test debug

bench: build
	@scripts/setup bench
	@scripts/bench $(KERNEL)

lint: $(DIOCTL)
	@scripts/setup lint
	@scripts/lint

generate:
	@scripts/setup run
	$(GO) generate ./trace/...
	@$(MAKE) --no-print-directory $(DIOCTL)
	scripts/man docs/man

check-generated:
	@scripts/check-generated

clean:
	rm -rf build
