// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"strings"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// errnoCell is what a cause comes to on a path: an errno, or a reason why the path
// can't have it.
type errnoCell struct {
	why     string
	want    error
	retried bool // a ring that polls may try again by itself until there is room
}

func is(want error) errnoCell { return errnoCell{want: want} }
func na(why string) errnoCell { return errnoCell{why: why} }
func mayBe(e error) errnoCell { return errnoCell{want: e, retried: true} }

// by is what of those paths is of a direction or an access.
func by(of string, paths ...string) string {
	return strings.Join(strings.Fields(strings.Join(paths, " ")), "/"+of+" ") + "/" + of
}

// errnoCause is one way to be refused.
type errnoCause struct {
	name string
	// Why there is no such thing without O_DIRECT; or for reads, for writes, unless a
	// cell that names the path with that direction says otherwise.
	copied, reads, writes string
	set                   func(k *errnoRun, c *ioctlapi.Config)
	begin                 func(k *errnoRun, cell errnoCell) (end func())
	call                  func(k *errnoRun, c *errnoCall)
	// Each path once, by its name or with /read, /write, /direct or /copied.
	cells map[string]errnoCell
}

// Reasons that come more than once.
const (
	anyPlace    = "without O_DIRECT nothing has to be aligned"
	noAlignment = "no alignment is asked for"
	ownPages    = "splice out brings pages of its own, which are whole"
	kernelPages = "the pages are a pipe's"
	oneBuffer   = "takes one buffer, no vector"
	oneRange    = "splice out is asked for one length"
	aTouch      = "a touch is of any bytes of a page"
	ownMemory   = "memory that is touched is the program's own"
	noMemory    = "names no registered memory"
	pinnedThen  = "the pages were pinned when they were registered, whatever became of them"
	noFlags     = "takes no flags"
	toldLater   = "is queued, and told later"
	noRequest   = "a touch of a mapping is no request"
	ownPosition = "has its place in a struct of its own, whatever the file"
)

var errnoCauses = []errnoCause{
	{
		name: "odd address", copied: anyPlace,
		call: func(k *errnoRun, c *errnoCall) { c.vec = [][]byte{k.mem[8:][:512]} },
		cells: map[string]errnoCell{
			errnoReadWrite + " " + errnoOwn: is(unix.EINVAL), "splice/write": is(unix.EINVAL),
			"splice/read": na(ownPages), errnoTransfers: na(noAlignment), "mmap": na(aTouch),
		},
	}, {
		name: "odd length", copied: anyPlace,
		call: func(k *errnoRun, c *errnoCall) { c.vec = [][]byte{k.mem[:513]} },
		cells: map[string]errnoCell{
			errnoReadWrite + " " + errnoOwn: is(unix.EINVAL), "splice": is(unix.EINVAL),
			errnoTransfers: na(noAlignment), "mmap": na(aTouch),
		},
	}, {
		name: "odd offset", copied: anyPlace,
		call: func(k *errnoRun, c *errnoCall) { c.pos += 256 },
		cells: map[string]errnoCell{
			errnoReadWrite: is(unix.EINVAL), "splice": is(unix.EINVAL),
			errnoOwn: na("positions are in blocks"), errnoTransfers: na(noAlignment), "mmap": na(aTouch),
		},
	}, {
		name: "odd length of a segment in the middle", copied: anyPlace,
		call: func(k *errnoRun, c *errnoCall) { c.vec = [][]byte{k.mem[:512], k.mem[4096:][:100], k.mem[8192:][:412]} },
		cells: map[string]errnoCell{
			errnoVectors: is(unix.EINVAL), "splice/write": is(unix.EINVAL),
			errnoBuffers: na(oneBuffer), "splice/read": na(oneRange), "mmap": na(aTouch),
		},
	}, {
		name: "odd address of a segment in the middle", copied: anyPlace,
		call: func(k *errnoRun, c *errnoCall) {
			c.vec = [][]byte{k.mem[:512], k.mem[4096+8:][:512], k.mem[8192:][:512]}
		},
		cells: map[string]errnoCell{
			errnoVectors: is(unix.EINVAL), "splice/write": is(unix.EINVAL),
			errnoBuffers: na(oneBuffer), "splice/read": na(oneRange), "mmap": na(aTouch),
		},
	}, {
		name: "a segment over max_request",
		call: func(k *errnoRun, c *errnoCall) { c.vec = [][]byte{k.pages(0, errnoMost+1)} },
		cells: map[string]errnoCell{
			errnoVectors: is(unix.EINVAL), errnoBuffers: is(unix.EINVAL), "splice/read": is(unix.EINVAL),
			"splice/write": na("each segment of a pipe is a page at most"), "mmap": na(noRequest),
		},
	}, {
		name: "a vector over max_request, no segment of it",
		call: func(k *errnoRun, c *errnoCall) {
			c.vec = [][]byte{k.pages(0, 2), k.pages(4, 6), k.pages(8, errnoMost+1+4)}
		},
		cells: map[string]errnoCell{
			errnoVectors: is(unix.EINVAL), "splice/write": is(unix.EINVAL),
			errnoBuffers: na(oneBuffer), "splice/read": na(oneRange), "mmap": na(noRequest),
		},
	}, {
		name: "memory that can't be touched",
		call: func(k *errnoRun, c *errnoCall) { c.vec = [][]byte{k.pages(errnoNowhere, errnoNowhere+1)} },
		cells: map[string]errnoCell{
			errnoCalls + " " + errnoRings: is(unix.EFAULT), errnoPlain + " transfer": is(unix.EFAULT),
			errnoFixed + " " + errnoCommand + " transfer-buffer": na(pinnedThen), "splice": na(kernelPages), "mmap": na(ownMemory),
		},
	}, {
		name: "a vector that begins with memory that can't be touched",
		call: func(k *errnoRun, c *errnoCall) {
			c.vec = [][]byte{k.pages(errnoNowhere, errnoNowhere+1), k.pages(0, 1)}
		},
		cells: map[string]errnoCell{
			errnoVectors: is(unix.EFAULT), errnoBuffers: na(oneBuffer), "splice": na(kernelPages), "mmap": na(ownMemory),
		},
	}, {
		name: "memory that can't be written", writes: "a write only reads it",
		call: func(k *errnoRun, c *errnoCall) { c.vec = [][]byte{k.pages(errnoConstant, errnoPages)} },
		cells: map[string]errnoCell{
			errnoCalls + " " + errnoRings: is(unix.EFAULT), errnoPlain + " transfer": is(unix.EFAULT),
			"transfer-buffer": is(unix.EACCES), errnoFixed + " " + errnoCommand: na("io_uring registers no such memory"),
			"splice": na(kernelPages), "mmap": na(ownMemory),
		},
	}, {
		name: "the end outside of the registered memory",
		call: func(k *errnoRun, c *errnoCall) { c.vec = [][]byte{k.pages(errnoRegistered-1, errnoRegistered+1)} },
		cells: map[string]errnoCell{
			errnoFixed + " " + errnoCommand + " transfer-buffer": is(unix.EFAULT),
			errnoCalls + " " + errnoRings + " " + errnoPlain:     na(noMemory), "transfer splice mmap": na(noMemory),
		},
	}, {
		name: "no such registered memory",
		call: func(k *errnoRun, c *errnoCall) { c.buffer = 77 },
		cells: map[string]errnoCell{
			errnoFixed + " " + errnoCommand: is(unix.EFAULT), "transfer-buffer": is(unix.ENOENT),
			errnoCalls + " " + errnoRings + " " + errnoPlain: na(noMemory), "transfer splice mmap": na(noMemory),
		},
	}, {
		name:  "at the capacity",
		call:  func(k *errnoRun, c *errnoCall) { c.pos = int64(k.base.Capacity) },
		cells: errnoEnd,
	}, {
		name:  "far past the capacity",
		call:  func(k *errnoRun, c *errnoCall) { c.pos = 1 << 40 },
		cells: errnoEnd,
	}, {
		name: "O_APPEND", reads: "a read doesn't mind",
		call: func(k *errnoRun, c *errnoCall) { c.status = unix.O_APPEND },
		cells: map[string]errnoCell{
			errnoReadWrite: is(unix.ENOSPC), "splice": is(unix.EINVAL), // by the kernel
			errnoOwn + " " + errnoTransfers: na(ownPosition), "mmap": na(ownPosition),
		},
	}, {
		name: "at the store's limit", reads: "a read takes no memory of the store",
		set:  func(k *errnoRun, c *ioctlapi.Config) { c.StoreLimit = storePages(k.t, k.d) * uint64(k.page) },
		call: func(k *errnoRun, c *errnoCall) { c.pos = errnoHole },
		cells: map[string]errnoCell{
			errnoVectors: is(unix.ENOSPC), errnoBuffers: is(unix.ENOSPC), "splice": is(unix.ENOSPC),
			"mmap/write": is(errSIGBUS), "mmap/read": is(errSIGBUS), // a touch takes a page, whatever for
		},
	}, {
		name: "an injected error",
		begin: func(k *errnoRun, _ errnoCell) func() {
			if err := k.d.Inject(ioctlapi.Inject{Action: ioctlapi.InjectEIO, Every: 1}); err != nil {
				k.t.Fatal(err)
			}
			return func() {
				if err := k.d.ClearInject(ioctlapi.InjectEIO); err != nil {
					k.t.Fatal(err)
				}
			}
		},
		cells: map[string]errnoCell{
			errnoVectors: is(unix.EIO), errnoBuffers: is(unix.EIO), "splice": is(unix.EIO), "mmap": na(noRequest),
		},
	}, {
		name:  "as many of the file in flight as may be",
		set:   func(k *errnoRun, c *ioctlapi.Config) { c.LatencyNS, c.MaxInFlightFile = errnoLatency, 1 },
		begin: (*errnoRun).occupy,
		cells: errnoFull,
	}, {
		name:  "as many of the device in flight as may be",
		set:   func(k *errnoRun, c *ioctlapi.Config) { c.LatencyNS, c.MaxInFlight = errnoLatency, 1 },
		begin: (*errnoRun).occupy,
		cells: errnoFull,
	}, {
		name: "RWF_NOWAIT, and a latency",
		set:  func(k *errnoRun, c *ioctlapi.Config) { c.LatencyNS = errnoLatency / 100 },
		call: func(k *errnoRun, c *errnoCall) { c.flags = unix.RWF_NOWAIT },
		cells: map[string]errnoCell{
			"preadv2": is(unix.EAGAIN),
			by("copied", "aio aio-vector uring uring-vector uring-fixed"): is(unix.EAGAIN),
			by("direct", "aio aio-vector uring uring-vector uring-fixed"): na(toldLater),
			"polled polled-vector polled-fixed":                           na(toldLater),
			"preadv splice mmap":                                          na(noFlags), errnoOwn + " " + errnoTransfers: na(noFlags),
		},
	}, {
		name: "a file that isn't open for it",
		call: func(k *errnoRun, c *errnoCall) { c.fd = which(c, k.writeOnly, k.readOnly) },
		cells: map[string]errnoCell{
			errnoVectors: is(unix.EBADF), errnoBuffers: is(unix.EBADF), "splice": is(unix.EBADF),
			"mmap": is(unix.EACCES), // of mmap(2)
		},
	},
}

// errnoEnd is what comes from the capacity on.
var errnoEnd = map[string]errnoCell{
	by("read", errnoVectors, errnoBuffers, "splice"):  is(nil), // and nothing is read
	by("write", errnoVectors, errnoBuffers, "splice"): is(unix.ENOSPC),
	"mmap": is(errSIGBUS),
}

// errnoFull is what comes when there is no room.
var errnoFull = map[string]errnoCell{
	errnoCalls + " uring uring-vector uring-fixed splice": is(unix.EAGAIN),
	errnoTransfers + " command command-fixed":             is(unix.EAGAIN),
	"polled polled-vector polled-fixed":                   mayBe(unix.EAGAIN),
	"command-polled command-polled-fixed":                 mayBe(unix.EAGAIN),
	"mmap":                                                na(noRequest),
}
