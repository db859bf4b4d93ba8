/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * dio: a char device for direct and asynchronous I/O. This header is the ABI
 * and its manual.
 *
 * The device
 * ----------
 * /dev/dio0 is a store of bytes with a fixed end (`capacity`). It is seekable
 * (SEEK_END is the capacity), can be read, written, mapped and spliced, and
 * takes requests from native AIO and io_uring. A byte that was never written
 * reads as zero.
 *
 *   read    at or past the capacity: 0 bytes; across it: short.
 *   write   at or past the capacity: ENOSPC; across it: short. ENOSPC too when
 *           `store_limit` bytes of memory are in use and more are needed.
 *   mmap    shared or private; a touch past the capacity, or of a byte that
 *           needs memory past `store_limit`: SIGBUS.
 *   fsync   waits for the requests that were in flight when it began, but for
 *           polled ones, which end when their owner polls. Their work is done
 *           then; the completion may still be on its way to who asked for it.
 *           Without O_DIRECT a call that serves a latency is in flight until its
 *           bytes are moved: memory of its caller that somebody is slow to bring
 *           in (userfaultfd) holds the fsync up, too. EINTR: killed.
 *   O_APPEND  writes begin at the capacity: ENOSPC.
 *
 * With O_DIRECT the buffer's address, each segment's length and the offset are
 * multiples of `mem_align` and `offset_align` of struct dio_info, or EINVAL.
 * The caller's pages are then pinned and the device moves bytes between them
 * and the store; pages that it wrote are marked dirty, before they are given
 * back and before the completion is told. When only some pages can be had, the
 * request is short; when none, EFAULT. Without O_DIRECT bytes are copied and
 * nothing has to be aligned.
 *
 * A direct request with a latency to serve, or of a disk or tape, is queued. A
 * synchronous caller sleeps until it is done and may be killed (EINTR; the pages
 * are given back first); an asynchronous one (native AIO, io_uring) gets its
 * completion later, and may be cancelled by io_cancel(2): ECANCELED. io_uring can't
 * cancel what a driver has: it says ENOENT or EALREADY, and the request runs its
 * course. A polled one (an io_uring set up with IOPOLL) is finished by its poller,
 * and always queued unless the completion is inline. Without O_DIRECT the latency
 * is slept through in the call: io_submit(2) waits, io_uring uses a thread.
 *
 * Lack of memory
 * --------------
 * What needs memory that can't be had fails with ENOMEM, and with EAGAIN if it may not
 * wait (RWF_NOWAIT; io_uring then has a thread of its own try), and nothing is moved,
 * pinned or changed. Where some can be had, of pages of the caller or the store, a read
 * or write is short. A touch of a mapping is tried again, as any page fault. Discarding
 * needs none.
 *
 * Flags of a call
 * ---------------
 *   RWF_NOWAIT     EAGAIN where the call would have to wait. A request that can be
 *                  told later (native AIO and io_uring with O_DIRECT) is queued.
 *   RWF_DSYNC, RWF_SYNC  Nothing is cached: each write is as durable as it gets.
 *   RWF_APPEND     As O_APPEND, for a write. A read doesn't mind.
 *   RWF_HIPRI      For preadv2(2) and native AIO as without. Of io_uring, a ring with
 *                  IOPOLL polls for each read and write, asked for or not, and takes
 *                  only O_DIRECT: else EOPNOTSUPP. In another ring: EINVAL.
 *   RWF_DONTCACHE  Served from Linux 6.14, for nothing is cached. Before: EOPNOTSUPP.
 *   RWF_ATOMIC     EOPNOTSUPP.
 *   O_NONBLOCK     Nothing changes, as with a regular file.
 *
 * Readiness
 * ---------
 * The device is always ready, as a regular file or a disk is: poll(2) and select(2)
 * say so at once, whatever is in flight; epoll_ctl(2) gives EPERM. Who waits with
 * epoll for requests to end has them tell an eventfd: IOCB_FLAG_RESFD of native
 * AIO, IORING_REGISTER_EVENTFD of io_uring (whose ring can be polled itself).
 *
 * Time
 * ----
 * ram and null are done with a request `latency_ns` after its submission. disk and
 * tape keep bytes as ram does, and are done when such a device would be:
 *
 *   disk    works on `queue_depth` requests at a time; further ones wait their
 *           turn, first come, first served. Once worked on, a request takes
 *           `latency_ns`, a random part (`jitter_ns`, `distribution`) and the time
 *           of its bytes at `bandwidth`, which all requests share.
 *   tape    works on one request at a time, at `bandwidth`, and tells it
 *           `latency_ns` later. A request that comes after the last one has ended
 *           finds that the tape ran on (a stall), one that isn't where the head is
 *           needs it elsewhere (a seek): either costs `reposition_ns` before it
 *           begins, both together cost it once. The first request of all finds
 *           the tape rewound, standing at 0.
 *
 * Their requests are always queued, or slept through without O_DIRECT. The time
 * that was set aside for a request is used even if it's cancelled. Setting any of
 * the fields from `bandwidth` on, or the model, begins anew: the queue is empty,
 * the tape rewound, and what is random starts from `seed`.
 *
 * Requests past `max_in_flight` or `max_in_flight_file` that would be queued or
 * sleep fail with EAGAIN. When several come at once near such a limit, one for which
 * there was room may, too; a ring with IOPOLL doesn't tell EAGAIN, but has a thread
 * try, busily, until there is room. RWF_NOWAIT fails with EAGAIN where the call would
 * wait for the device. Requests over `max_request` bytes, of any kind, fail with EINVAL
 * before anything is pinned.
 *
 * Hardware
 * --------
 * /dev/dio-edu0 is QEMU's PCI device for teaching (-device edu): its capacity are
 * the 4,096 bytes that the device itself has, and it moves them by bus-master DMA
 * between these and the caller's pages. What is said of /dev/dio0 holds, but for:
 *
 *   A direct request is always queued, and worked on one at a time, in the order
 *   of submission. The hardware takes some 100 ms for each stretch of memory that
 *   is contiguous on the bus. A request that it works on can't be cancelled, nor
 *   its caller killed before that is over; those behind it can. Polled requests
 *   (IOPOLL) are ended by the interrupt, too, and told by the poller.
 *   Without O_DIRECT the bytes go by way of a page of the kernel's, and the call
 *   waits for the hardware: RWF_NOWAIT is EAGAIN.
 *   Pages beyond the device's reach (its DMA mask) are reached by way of swiotlb
 *   or of a buffer of the driver's: `dma_bounced` counts the latter.
 *   EIO: the hardware didn't answer in time, and was kept from memory from then on
 *   until it answers, or was still at a transfer that it was bound with; or the pages
 *   couldn't be mapped for DMA. When part of the request had been moved by then, the
 *   request is short.
 *   mmap: ENODEV. DIO_IOC_DISCARD: EOPNOTSUPP. DIO_IOC_INJECT: EOPNOTSUPP for DELAY
 *   and REORDER.
 *   DIO_IOC_SET_CONFIG: `model`, `completion` (worker), `capacity`, `latency_ns`,
 *   `store_limit` and what is for disk and tape can be set to nothing but what they
 *   are: else EINVAL.
 *
 * Removal
 * -------
 * The device may be taken away under its users: /dev/dio0 is a platform device
 * that is unbound and bound again as any other (echo dio.0 into
 * /sys/bus/platform/drivers/dio/unbind, bind). Requests in flight fail with ENODEV
 * at once, wherever they wait, and none is left untold; one whose bytes are being
 * moved right now still succeeds. A mapping is SIGBUS from then on.
 *
 * Files that stay open answer with ENODEV to whatever needs the device: reading,
 * writing, splicing, syncing, mapping, being opened again (by /proc/self/fd), and
 * each ioctl but DIO_IOC_INFO and DIO_IOC_STATS, before it looks at the struct or
 * asks for a capability. What is refused before the device is asked is refused as
 * before: a file that isn't open for that direction, a flag that it doesn't take, a
 * field of an io_uring command, DIO_URING_DISCARD on hardware. DIO_IOC_INFO,
 * DIO_IOC_STATS (with DIO_STATS_RESET, too), seeking, poll(2) and moving 0 bytes work
 * as before, and closing does.
 *
 * Registered buffers are given back. A device that is bound again is a new one:
 * empty, with nothing counted, armed or injected, and configured as at first.
 *
 * The ioctls
 * ----------
 * Each takes a pointer to a struct that begins with `size`: the caller sets it
 * to sizeof() of the struct it was compiled with. Structs only grow at their
 * end. An older, shorter struct is served as it is; a newer, longer one is
 * served when what this driver doesn't know of it is zero, else E2BIG, and
 * comes back with those bytes zero. Reserved fields and unknown flag bits must
 * be zero. All fields have fixed sizes, so 32-bit callers see the same ABI.
 *
 * Errors that every ioctl can give:
 *   ENOTTY  the command isn't one of these
 *   ENODEV  the device was removed, and the command needs one
 *   EFAULT  the struct can't be read, and nothing was done; or it can't be written,
 *           and then what was asked for is done: SET_CONFIG is in force, counters
 *           are reset, bytes were moved. Only BUFFER_REGISTER is undone
 *   ENOMEM  of the commands that need memory: see Lack of memory
 *   EINVAL  `size` is smaller than the first version of the struct or isn't
 *           the size that the command encodes; a reserved field or an unknown
 *           bit is set; a value is out of its range
 *   E2BIG   `size` is larger than a page, or bytes that this driver doesn't
 *           know are set
 *   EPERM   the command is one that needs CAP_SYS_ADMIN (so marked below)
 *   EINTR   killed while it waited for a change that another made; nothing was done.
 *           Reading, writing and mapping can be killed there, too
 *
 * DIO_IOC_INFO        What the device is and can do. Never waits.
 * DIO_IOC_GET_CONFIG  The configuration in force; `fields` comes back with a
 *                     bit for each field that this driver has.
 * DIO_IOC_SET_CONFIG  (CAP_SYS_ADMIN) Applies the fields whose bits are set in
 *                     `fields`, all of them or none. EBUSY: the capacity is
 *                     made smaller while the device is mapped, requests are in
 *                     flight, or any other read, write or command hasn't
 *                     returned. Requests already in flight finish as they were
 *                     begun.
 * DIO_IOC_STATS       Counters since binding or reset, summed over CPUs without
 *                     stopping them. DIO_STATS_RESET (CAP_SYS_ADMIN) sets them
 *                     to zero after reading; gauges stay.
 * DIO_IOC_TRANSFER    The classic way, older than O_DIRECT: moves `length`
 *                     bytes between the user's buffer at `addr` and the store
 *                     at `offset`, pinning the buffer, and waits. No
 *                     alignment is asked for. `done` says how many bytes were
 *                     moved. EBADF: the file isn't open for that direction.
 *                     EFAULT: no page of the buffer could be pinned (also: a
 *                     read-only buffer as target of a read). EINVAL: length 0
 *                     or over `max_request`, addr + length wraps, or offset +
 *                     length is over 2^63 - 1. ENOSPC as for write. EAGAIN: too many in flight.
 *                     EIO: by DIO_IOC_INJECT, or of hardware. EINTR: killed while
 *                     it waited.
 *                     With DIO_TRANSFER_BUFFER `addr` is the offset in the
 *                     registered buffer `buffer`, and nothing is pinned. ENOENT:
 *                     the file has no such buffer. EACCES: a read of the device,
 *                     and the buffer isn't DIO_BUFFER_WRITABLE. EFAULT: the range
 *                     isn't within the buffer.
 * DIO_IOC_FAULT_ARM   (CAP_SYS_ADMIN) Makes the driver commit a bug: see below.
 *                     EOPNOTSUPP: this kernel wouldn't survive it, or refuses to
 *                     have it committed.
 * DIO_IOC_FAULT_GET   How a fault is armed and how often it was committed. Used
 *                     up: `armed` and `count` are 0, `every` is what it was.
 *                     Never armed, or cleared: `every` is 0.
 * DIO_IOC_FAULT_CLEAR (CAP_SYS_ADMIN) Disarms one fault, or all with
 *                     DIO_FAULT_NONE, and does what DIO_IOC_DRAIN does.
 * DIO_IOC_DRAIN       (CAP_SYS_ADMIN) Gives back all that faults put aside:
 *                     releases leaked pins, frees leaked page arrays (counted
 *                     in pages, too), completes lost requests.
 * DIO_IOC_DISCARD     The bytes of the range read as zero afterwards, through
 *                     mappings too. Memory of whole pages is given back when the
 *                     device isn't mapped, and no read, write or command, in
 *                     flight or served at once, is under way. A request
 *                     in flight on the same bytes comes before or after, byte by
 *                     byte. EBADF: the file isn't open for writing. EINVAL:
 *                     length 0, or offset + length is over 2^63 - 1. ENOSPC: the
 *                     range is at or past the capacity. EINTR: killed; part of it may be
 *                     zero. The model null discards nothing. (Linux gives a char
 *                     device no fallocate(2): that is ENODEV.)
 * DIO_IOC_BUFFER_REGISTER  Pins memory once, for transfers that name it by the
 *                     `id` that comes back; see Registered buffers. EINVAL:
 *                     `length` 0 or over DIO_BUFFER_MAX, or addr + length wraps.
 *                     EPERM: RLIMIT_MEMLOCK is 0, and the caller lacks
 *                     CAP_IPC_LOCK. ENOMEM: the process's pinned memory would be
 *                     over RLIMIT_MEMLOCK, and it lacks CAP_IPC_LOCK. ENOSPC: the
 *                     file has DIO_BUFFERS_MAX buffers. EFAULT: a page isn't
 *                     there, or may not be written and the buffer is to be
 *                     writable. EINTR: killed while it pinned. What else the
 *                     kernel says of memory that it doesn't lend for long
 *                     (EOPNOTSUPP: DAX) is passed on. After an error nothing is
 *                     pinned or charged.
 * DIO_IOC_BUFFER_UNREGISTER  Takes a buffer's id away. Its memory is given back
 *                     with the last transfer on it, at once when there is none.
 *                     ENOENT: the file has no such buffer.
 * DIO_IOC_INJECT      (CAP_SYS_ADMIN) Sets the rule of one action, in place of an
 *                     earlier one: what goes wrong with the modelled device,
 *                     while the driver stays correct.
 * DIO_IOC_INJECT_GET  The rule of one action, and how often it was met. Used up
 *                     and cleared are told apart as by DIO_IOC_FAULT_GET.
 * DIO_IOC_INJECT_CLEAR (CAP_SYS_ADMIN) Removes the rule of one action, or all
 *                     with DIO_INJECT_NONE.
 *
 * Registered buffers
 * ------------------
 * A buffer is memory of the process that registers it, of any alignment. It is
 * pinned until it's unregistered, the file closed by its last holder, or the
 * device removed, whatever becomes of the process and its mappings. It belongs to
 * the open file: whoever has that, by fork() or passed on, uses the buffer by its
 * id, and reads and changes the memory that was there when it was registered. Ids
 * are 1 to DIO_BUFFERS_MAX; the lowest free one is taken.
 *
 * All its pages, begun ones too, are charged to the process that registers it, each
 * time that they are registered, and show in its /proc/PID/status as VmPin.
 * Pages that a transfer wrote are marked dirty by its end. Memory that is to be
 * read only needs not be writable for the process (before 6.2 a shared mapping
 * must be, else EFAULT); from then on it's the process's own, not shared by
 * copy-on-write. Pages of ordinary files can be registered, for the device to
 * write, before 6.5 only; tmpfs and hugetlbfs are no such files.
 *
 * io_uring's commands
 * -------------------
 * IORING_OP_URING_CMD (Linux 6.1) on an open file, without a kiocb: `cmd_op` is one of
 * DIO_URING_*, and struct dio_uring_cmd stands in the SQE's command bytes; an SQE of
 * 64 bytes has room for it. The result is in the CQE. They are direct whether or not
 * the file is; positions are in blocks of DIO_URING_BLOCK bytes.
 *
 * DIO_URING_READ      As read with O_DIRECT: bytes moved. `addr` and `length` are
 * DIO_URING_WRITE     multiples of `mem_align`. With IORING_URING_CMD_FIXED `addr`
 *                     lies in the registered buffer that the SQE's buf_index
 *                     names, and nothing is pinned. On a ring with IOPOLL they
 *                     are polled for.
 * DIO_URING_FLUSH     As fsync: 0. All fields are 0.
 * DIO_URING_DISCARD   As DIO_IOC_DISCARD: bytes discarded. `addr` is 0.
 *
 * ENOTTY: no such command. EBADF: the file isn't open for that direction. EINVAL: not
 * aligned, `length` 0, a field that has to be 0, FIXED for FLUSH or DISCARD, MULTISHOT,
 * over `max_request`.
 * EFAULT: none of the buffer could be pinned; with FIXED, the ring has no such buffer,
 * or `addr` and `length` aren't within it. ENOSPC, ENODEV, EIO, EAGAIN (too many in
 * flight), and a read or write that is short, as above and by DIO_IOC_INJECT.
 * ECANCELED: the ring went, or the task that submitted it became another program by
 * execve(2), from 6.7 on; before, either waits for the command's end, as at any time
 * for that of a FLUSH, which a thread of io_uring waits in. A thread that ends leaves
 * its other commands to the ring. EOPNOTSUPP: DISCARD of hardware; or, from io_uring,
 * no such operation there (EINVAL on 5.10).
 *
 * Linux 6.10 to 6.13 read the command's bytes out of the ring also after
 * io_uring_enter(2) has returned: of a command that is linked behind another, and of
 * one that is begun a second time, by a thread of io_uring, as FLUSH with requests
 * in flight and DISCARD are. What stands in the ring by then is done. There, let the
 * SQE be until its CQE has come, or force it to a thread with IOSQE_ASYNC.
 *
 * Faults
 * ------
 * Each is a bug class of real drivers, committed so that the kernel survives:
 * what is leaked is parked in a quarantine, from which DIO_IOC_DRAIN, clearing
 * the fault, or (where the fault has one) `hold_ms` brings it back. An armed
 * fault is committed at every `every`-th occasion, `count` times at most. A
 * quarantine that is full (256 MiB) gives no occasion to leak more.
 *
 * What is done wrong with pages (PIN_LEAK to EARLY_COMPLETE, ZERO_PAGE_PIN to
 * DIRTY_LATE, LENGTH_OVERFLOW, the two of LONGTERM) wants a request that takes hold of
 * user memory itself, not of a registered buffer. WRONG_OFFSET and INFOLEAK let be
 * what comes from splice or from io_uring's registered buffers, ARRAY_LEAK what comes
 * from the device's own.
 */
#ifndef _UAPI_DIO_H
#define _UAPI_DIO_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define DIO_ABI_VERSION		1

/* Bits of dio_info.features: what this driver, on this kernel, can do. */
#define DIO_FEATURE_PIN		(1ULL << 0)	/* family pin: iov_iter_extract_pages or kin */
#define DIO_FEATURE_GET		(1ULL << 1)	/* family get, the classic: get_user_pages_fast */
#define DIO_FEATURE_ASYNC	(1ULL << 2)	/* -EIOCBQUEUED for native AIO and io_uring */
#define DIO_FEATURE_MMAP	(1ULL << 3)
#define DIO_FEATURE_SPLICE	(1ULL << 4)
#define DIO_FEATURE_IOPOLL	(1ULL << 5)	/* RWF_HIPRI, IORING_SETUP_IOPOLL */
#define DIO_FEATURE_NOWAIT	(1ULL << 6)	/* RWF_NOWAIT */
#define DIO_FEATURE_FAULTS	(1ULL << 7)
#define DIO_FEATURE_CANCEL	(1ULL << 8)	/* io_cancel on a queued request */
#define DIO_FEATURE_INJECT	(1ULL << 9)	/* DIO_IOC_INJECT */
#define DIO_FEATURE_DISCARD	(1ULL << 10)	/* DIO_IOC_DISCARD */
#define DIO_FEATURE_BUFFERS	(1ULL << 11)	/* DIO_IOC_BUFFER_REGISTER */
#define DIO_FEATURE_URING_CMD	(1ULL << 12)	/* io_uring commands */
#define DIO_FEATURE_REMOVAL	(1ULL << 13)	/* can be unbound while it's used */
#define DIO_FEATURE_DMA		(1ULL << 14)	/* hardware moves the bytes: see Hardware */

/*
 * What the device is. Sizes are bytes. `mem_align` and `offset_align` are what
 * O_DIRECT asks of addresses and lengths, and of file offsets (powers of two).
 */
struct dio_info {
	__u32 size;
	__u32 abi_version;		/* DIO_ABI_VERSION */
	__u64 features;			/* DIO_FEATURE_* */
	__u64 capacity;
	__u32 mem_align;
	__u32 offset_align;
	__u32 page_size;
	__u32 index;			/* the N of /dev/dioN */
	char driver[16];		/* "dio", "dio-edu"; NUL-terminated */
};

/* dio_config.model: what kind of device this plays. */
enum dio_model {
	DIO_MODEL_RAM = 0,		/* a sparse store in memory */
	/*
	 * Moves nothing: reads leave the caller's buffer as it was, yet count as
	 * having written it. Bytes in pages of nobody are zeroed instead: those that
	 * splice brings, and mapped memory of a driver that io_uring has registered.
	 */
	DIO_MODEL_NULL = 1,
	DIO_MODEL_DISK = 2,		/* ram, behind a queue and a link: see Time */
	DIO_MODEL_TAPE = 3,		/* ram, passing by one head: see Time */
	DIO_MODEL_EDU = 4,		/* hardware: see there; no other device can be it */
};

/* dio_config.family: how the caller's pages are held for O_DIRECT. */
enum dio_family {
	DIO_FAMILY_PIN = 0,		/* FOLL_PIN, given back by unpin */
	DIO_FAMILY_GET = 1,		/* FOLL_GET, given back by put_page */
};

/* dio_config.completion: who finishes a request. */
enum dio_completion {
	DIO_COMPLETION_AUTO = 0,	/* inline without a latency, else worker */
	DIO_COMPLETION_INLINE = 1,	/* the caller; needs latency_ns 0, no disk or tape */
	DIO_COMPLETION_WORKER = 2,	/* a workqueue, after latency_ns */
	/* the timer itself for small requests that dirty nothing, else a worker */
	DIO_COMPLETION_TIMER = 3,
};

/* dio_config.distribution: the random part of a disk's latency. */
enum dio_distribution {
	DIO_DISTRIBUTION_UNIFORM = 0,		/* 0 to jitter_ns */
	DIO_DISTRIBUTION_EXPONENTIAL = 1,	/* a long tail, jitter_ns on average */
};

/* Bits of dio_config.fields. */
#define DIO_CONFIG_MODEL		(1ULL << 0)
#define DIO_CONFIG_FAMILY		(1ULL << 1)
#define DIO_CONFIG_COMPLETION		(1ULL << 2)
#define DIO_CONFIG_LATENCY		(1ULL << 3)
#define DIO_CONFIG_CAPACITY		(1ULL << 4)
#define DIO_CONFIG_STORE_LIMIT		(1ULL << 5)
#define DIO_CONFIG_MAX_REQUEST		(1ULL << 6)
#define DIO_CONFIG_MAX_IN_FLIGHT_FILE	(1ULL << 7)
#define DIO_CONFIG_MAX_IN_FLIGHT	(1ULL << 8)
#define DIO_CONFIG_BANDWIDTH		(1ULL << 9)
#define DIO_CONFIG_JITTER		(1ULL << 10)
#define DIO_CONFIG_REPOSITION		(1ULL << 11)
#define DIO_CONFIG_SEED			(1ULL << 12)
#define DIO_CONFIG_DISTRIBUTION		(1ULL << 13)
#define DIO_CONFIG_QUEUE_DEPTH		(1ULL << 14)

#define DIO_LATENCY_MAX_NS	60000000000ULL	/* 60 s */
#define DIO_CAPACITY_MAX	(1ULL << 40)	/* 1 TiB */
#define DIO_REQUEST_MAX		(1ULL << 30)	/* 1 GiB */
#define DIO_IN_FLIGHT_MAX	(1U << 20)
#define DIO_BANDWIDTH_MIN	(1ULL << 16)	/* bytes a second */
#define DIO_BANDWIDTH_MAX	(1ULL << 50)
#define DIO_QUEUE_DEPTH_MAX	1024U

/*
 * At first: ram, pin, auto, no latency; a capacity of 1 GiB, and memory for that, but
 * for no more than a quarter of the machine's; 64 MiB a request, 65,536 of a file and
 * 131,072 of the device in flight; 100 MB/s, no jitter, 50 ms to reposition, seed 0,
 * uniform, a queue depth of 32. Hardware: edu, worker, 4,096 bytes; the rest as above.
 */
struct dio_config {
	__u32 size;
	__u32 flags;			/* none yet: 0 */
	__u64 fields;			/* DIO_CONFIG_* */
	__u32 model;			/* enum dio_model */
	__u32 family;			/* enum dio_family */
	__u32 completion;		/* enum dio_completion */
	__u32 reserved;			/* 0 */
	__u64 latency_ns;		/* 0 to DIO_LATENCY_MAX_NS, from submission to completion */
	__u64 capacity;			/* one page to DIO_CAPACITY_MAX, whole pages */
	__u64 store_limit;		/* memory for the store in bytes, whole pages, 1 or more */
	__u64 max_request;		/* one page to DIO_REQUEST_MAX, whole pages */
	__u32 max_in_flight_file;	/* 1 to DIO_IN_FLIGHT_MAX requests of one open file */
	__u32 max_in_flight;		/* 1 to DIO_IN_FLIGHT_MAX requests of the device */
	/* The rest is for disk and tape, and kept for them by other models. */
	__u64 bandwidth;		/* bytes a second, DIO_BANDWIDTH_MIN to _MAX; 0: no limit */
	__u64 jitter_ns;		/* disk: 0 to DIO_LATENCY_MAX_NS */
	__u64 reposition_ns;		/* tape: 0 to DIO_LATENCY_MAX_NS */
	__u64 seed;			/* of what is random */
	__u32 distribution;		/* disk: enum dio_distribution */
	__u32 queue_depth;		/* disk: 1 to DIO_QUEUE_DEPTH_MAX requests at a time */
};

#define DIO_STATS_RESET		(1U << 0)

/*
 * Counters; pages are PAGE_SIZE each. `in_flight`, `store_pages`, `quarantined_*`,
 * `head` and `buffer*` are gauges. A request that waits for nothing is never in flight.
 */
struct dio_stats {
	__u32 size;
	__u32 flags;			/* in: DIO_STATS_RESET or 0 */
	__u64 reads;			/* requests begun, by direction */
	__u64 writes;
	__u64 bytes_read;		/* moved out of the store */
	__u64 bytes_written;		/* moved into it */
	__u64 bytes_copied;		/* of both: by copying, without O_DIRECT */
	__u64 pages_pinned;		/* taken by requests, either family */
	__u64 pages_released;
	__u64 pages_dirtied;
	__u64 submitted;		/* asynchronous requests */
	__u64 queued;			/* requests (either kind) that had to wait */
	__u64 completed;		/* asynchronous requests that were told to be done */
	__u64 cancelled;
	__u64 failed;			/* requests that ended with an error */
	__u64 in_flight;		/* requests now */
	__u64 in_flight_peak;
	__u64 store_pages;		/* memory in use now */
	__u64 quarantined_pages;	/* put aside by faults now */
	__u64 quarantined_requests;
	__u64 faults_committed;
	__u64 depth_waits;		/* disk: requests that found its queue full */
	__u64 stalls;			/* tape: requests that came after it had run dry */
	__u64 seeks;			/* tape: requests that weren't where the head was */
	__u64 head;			/* tape, now: the head's position, bytes */
	__u64 injected_errors;		/* by DIO_IOC_INJECT */
	__u64 injected_shorts;
	__u64 injected_delays;
	__u64 injected_reorders;
	__u64 discards;
	__u64 bytes_discarded;
	__u64 buffers;			/* registered, or unregistered and still in use, now */
	__u64 buffer_pages;		/* pinned by them now; not in pages_pinned */
	__u64 dma_segments;		/* hardware: stretches of memory that it moved */
	__u64 dma_bounced;		/* requests whose pages were out of its reach */
	__u64 dma_timeouts;		/* transfers that were given up */
	__u64 interrupts;		/* that ended a transfer */
};

#define DIO_TRANSFER_WRITE	(1U << 0)	/* buffer to device; else device to buffer */
#define DIO_TRANSFER_BUFFER	(1U << 1)	/* the buffer is a registered one */

struct dio_transfer {
	__u32 size;
	__u32 flags;			/* DIO_TRANSFER_* */
	__u64 addr;			/* user address of the buffer; BUFFER: offset in it */
	__u64 length;			/* bytes, 1 to max_request */
	__u64 offset;			/* bytes, position in the store */
	__u64 done;			/* out: bytes moved */
	__u32 buffer;			/* BUFFER: its id; else 0 */
	__u32 reserved;			/* 0 */
};

#define DIO_BUFFER_MAX		(1ULL << 30)	/* bytes: 1 GiB */
#define DIO_BUFFERS_MAX		1024U		/* of one open file */

#define DIO_BUFFER_WRITABLE	(1U << 0)	/* the device may write it: reads go there */

struct dio_buffer_register {
	__u32 size;
	__u32 flags;			/* DIO_BUFFER_* */
	__u64 addr;			/* user address, of any alignment */
	__u64 length;			/* bytes, 1 to DIO_BUFFER_MAX */
	__u32 id;			/* out: 1 to DIO_BUFFERS_MAX */
	__u32 reserved;			/* 0 */
};

struct dio_buffer_unregister {
	__u32 size;
	__u32 flags;			/* none yet: 0 */
	__u32 id;
	__u32 reserved;			/* 0 */
};

/*
 * dio_fault.fault. Beside each: the occasion at which it is committed, and
 * what the driver then does wrong.
 */
enum dio_fault_id {
	DIO_FAULT_NONE = 0,
	DIO_FAULT_PIN_LEAK = 1,		/* direct request: one page isn't released */
	/* direct request, family pin, single-page folio: one page is unpinned twice */
	DIO_FAULT_OVER_UNPIN = 2,
	DIO_FAULT_DIRTY_MISSING = 3,	/* direct read: pages are released clean */
	DIO_FAULT_DIRTY_NEEDLESS = 4,	/* direct write: anonymous pages are dirtied */
	/*
	 * queued native AIO or io_uring read or write, not polled and no command of
	 * io_uring: told complete, then moved, dirtied, released
	 */
	DIO_FAULT_EARLY_COMPLETE = 5,
	/* polled request (IOPOLL), no command of io_uring: completed twice */
	DIO_FAULT_DOUBLE_COMPLETE = 6,
	/* queued asynchronous request, not polled: not completed for hold_ms */
	DIO_FAULT_LOST_COMPLETE = 7,
	/* splice read without O_DIRECT (a synchronous kiocb): -EIOCBQUEUED */
	DIO_FAULT_SYNC_AS_ASYNC = 8,
	/* direct request of over 3 pages or several segments: its page array isn't freed */
	DIO_FAULT_ARRAY_LEAK = 9,
	/* direct write of memory that was never touched, family get: the zero page isn't put */
	DIO_FAULT_ZERO_PAGE_PIN = 10,
	/* direct read into a page of tmpfs or a memfd: also dirtied without its lock */
	DIO_FAULT_DIRTY_UNLOCKED = 11,
	/* direct read, not short: one page is dirtied after its release */
	DIO_FAULT_DIRTY_LATE = 12,
	/* native AIO request that was queued: told with a page more than was asked for */
	DIO_FAULT_RESULT_RANGE = 13,
	/* direct read of ram, disk or tape, not at 0: the bytes come from 0 */
	DIO_FAULT_WRONG_OFFSET = 14,
	/*
	 * direct write of 8,192 pages at most that may wait for memory (no RWF_NOWAIT, no
	 * first try of io_uring's): many times its pages are pinned, and released
	 */
	DIO_FAULT_LENGTH_OVERFLOW = 15,
	/* io_cancel(2) of a request that is done, but not told yet: says it was cancelled */
	DIO_FAULT_CANCEL_AFTER_COMPLETE = 16,
	/* io_cancel(2) of a queued request: says it was cancelled, yet the request goes on */
	DIO_FAULT_COMPLETE_AFTER_CANCEL = 17,
	/*
	 * queued io_uring read or write, no command: kiocb_set_cancel_fn(), which is for
	 * native AIO alone
	 */
	DIO_FAULT_CANCEL_FN_MISUSE = 18,
	/*
	 * queued native AIO or io_uring read or write, not polled and no command of
	 * io_uring: its kiocb is read after it was told
	 */
	DIO_FAULT_USE_AFTER_COMPLETE = 19,
	/* direct request, family pin: one page stays pinned for hold_ms, without FOLL_LONGTERM */
	DIO_FAULT_LONGTERM_MISSING = 20,
	/*
	 * direct read, that may wait as for LENGTH_OVERFLOW, into a page of a file, not
	 * tmpfs: also pinned FOLL_LONGTERM for a moment
	 */
	DIO_FAULT_LONGTERM_FILE = 21,
	/* direct read of ram, disk or tape, 2 sectors or more: the last counts, and isn't moved */
	DIO_FAULT_INFOLEAK = 22,
	/* DIO_IOC_BUFFER_REGISTER: the pages aren't charged, and no limit is looked at */
	DIO_FAULT_MEMLOCK_UNACCOUNTED = 23,
	DIO_FAULT_COUNT
};

struct dio_fault {
	__u32 size;
	__u32 fault;			/* enum dio_fault_id */
	__u32 every;			/* commit at every Nth occasion, 1 or more */
	__u32 flags;			/* none yet: 0 */
	__u64 count;			/* at most so often; 0: no limit. GET: what remains */
	/* LOST_COMPLETE, LONGTERM_MISSING: give back after so long; 0: 5,000; 600,000 at most */
	__u32 hold_ms;
	__u32 armed;			/* out, GET: 1 when armed */
	__u64 occasions;		/* out, GET: since it was armed */
	__u64 committed;		/* out, GET: since the device was bound */
};

/* What DIO_IOC_DRAIN gave back. */
struct dio_drain {
	__u32 size;
	__u32 flags;			/* none yet: 0 */
	__u64 pages;			/* out */
	__u64 requests;			/* out */
};

struct dio_discard {
	__u32 size;
	__u32 flags;			/* none yet: 0 */
	__u64 offset;			/* bytes, of any alignment */
	__u64 length;			/* bytes, 1 or more */
	__u64 done;			/* out: bytes discarded, fewer at the capacity */
	__u64 reserved;			/* 0 */
};

/* dio_inject.action: what goes wrong with a request that meets the rule. */
enum dio_inject_action {
	DIO_INJECT_NONE = 0,
	/* fails with EIO after its time (of hardware: at once); nothing is moved */
	DIO_INJECT_EIO = 1,
	/*
	 * moves half; O_DIRECT, DIO_IOC_TRANSFER, io_uring's commands and hardware:
	 * whole sectors, 512 bytes at least
	 */
	DIO_INJECT_SHORT = 2,
	DIO_INJECT_DELAY = 3,		/* takes delay_ns longer */
	/* asynchronous (O_DIRECT, or a command), not polled: ends after a later one */
	DIO_INJECT_REORDER = 4,
	DIO_INJECT_COUNT
};

#define DIO_INJECT_READS	(1U << 0)
#define DIO_INJECT_WRITES	(1U << 1)

/*
 * A rule; each action has one. An occasion is a request of the wanted direction
 * that touches the byte range; one that gets EAGAIN is none. Without a seed every
 * `every`th occasion is hit; with one each is, with odds of 1 in `every`, in a
 * sequence that the seed gives.
 */
struct dio_inject {
	__u32 size;
	__u32 action;			/* enum dio_inject_action */
	__u32 flags;			/* DIO_INJECT_READS, _WRITES; 0: both */
	__u32 every;			/* 1 or more */
	__u64 seed;			/* 0: exactly every Nth */
	__u64 offset;			/* the byte range */
	__u64 length;			/* 0: to the end */
	__u64 count;			/* at most so often; 0: no limit. GET: what remains */
	/*
	 * DELAY: 1 to DIO_LATENCY_MAX_NS. REORDER: held for so long at most when
	 * no other request ends; 0: 100 ms. Else 0.
	 */
	__u64 delay_ns;
	__u64 occasions;		/* out, GET: since the rule was set */
	__u64 injected;			/* out, GET: since the device was bound */
	__u32 armed;			/* out, GET: 1 until it is cleared or used up */
	__u32 reserved;			/* 0 */
};

/* What stands in the SQE of an io_uring command. */
struct dio_uring_cmd {
	__u64 addr;			/* of the buffer, else 0 */
	__u32 length;			/* bytes */
	__u32 block;			/* position in the store, in DIO_URING_BLOCK bytes */
};

#define DIO_URING_BLOCK		512

#define DIO_IOC_MAGIC		0xD1

#define DIO_IOC_INFO		_IOWR(DIO_IOC_MAGIC, 0x00, struct dio_info)
#define DIO_IOC_GET_CONFIG	_IOWR(DIO_IOC_MAGIC, 0x01, struct dio_config)
#define DIO_IOC_SET_CONFIG	_IOWR(DIO_IOC_MAGIC, 0x02, struct dio_config)
#define DIO_IOC_STATS		_IOWR(DIO_IOC_MAGIC, 0x03, struct dio_stats)
#define DIO_IOC_TRANSFER	_IOWR(DIO_IOC_MAGIC, 0x04, struct dio_transfer)
#define DIO_IOC_DISCARD		_IOWR(DIO_IOC_MAGIC, 0x05, struct dio_discard)
#define DIO_IOC_BUFFER_REGISTER	_IOWR(DIO_IOC_MAGIC, 0x06, struct dio_buffer_register)
#define DIO_IOC_BUFFER_UNREGISTER _IOWR(DIO_IOC_MAGIC, 0x07, struct dio_buffer_unregister)
#define DIO_IOC_FAULT_ARM	_IOWR(DIO_IOC_MAGIC, 0x10, struct dio_fault)
#define DIO_IOC_FAULT_GET	_IOWR(DIO_IOC_MAGIC, 0x11, struct dio_fault)
#define DIO_IOC_FAULT_CLEAR	_IOWR(DIO_IOC_MAGIC, 0x12, struct dio_fault)
#define DIO_IOC_DRAIN		_IOWR(DIO_IOC_MAGIC, 0x13, struct dio_drain)
#define DIO_IOC_INJECT		_IOWR(DIO_IOC_MAGIC, 0x20, struct dio_inject)
#define DIO_IOC_INJECT_GET	_IOWR(DIO_IOC_MAGIC, 0x21, struct dio_inject)
#define DIO_IOC_INJECT_CLEAR	_IOWR(DIO_IOC_MAGIC, 0x22, struct dio_inject)

/* SQE's cmd_op */
#define DIO_URING_READ		_IOWR(DIO_IOC_MAGIC, 0x40, struct dio_uring_cmd)
#define DIO_URING_WRITE		_IOWR(DIO_IOC_MAGIC, 0x41, struct dio_uring_cmd)
#define DIO_URING_FLUSH		_IOWR(DIO_IOC_MAGIC, 0x42, struct dio_uring_cmd)
#define DIO_URING_DISCARD	_IOWR(DIO_IOC_MAGIC, 0x43, struct dio_uring_cmd)

#endif /* _UAPI_DIO_H */
