/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dio: who owns what, how long, and under which locks. The structs are in the headers
 * below, and in request.h.
 *
 * Objects and who keeps them
 * --------------------------
 * struct dio_dev       The device. Made when it's bound, gone when it's unbound:
 *                      then nobody can begin a request any more. Freed when the
 *                      last open file is closed, which each kiocb and each
 *                      mapping holds; that keeps the module, too.
 * struct dio_file      An open file. Freed in ->release().
 * struct dio_buffer    Registered memory: its pages, and the charge for them.
 *                      Reference counted: the id in the file has one, and so
 *                      has each call and each dio_io that uses it.
 * struct dio_io        What one request holds: the caller's pages and where its
 *                      bytes go. On the caller's stack for a request that is
 *                      served at once; else inside a struct dio_request.
 * struct dio_request   A request that waits: on a timer, in a worker's list, or
 *                      for its poller. From a slab; reference counted, for a
 *                      killed caller leaves while the queue still has it.
 * struct dio_settings  The configuration in force. Never changed in place:
 *                      replaced as a whole, under RCU. A request copies what it
 *                      needs when it begins and so finishes as it was begun.
 * a store page         Allocated when first written or mapped; goes when the
 *                      capacity shrinks below it, when it's discarded, or with
 *                      the device. The first two need a device that is idle and
 *                      not mapped (dio_enter(), dio_leave()), so between these
 *                      two a page found in the store stays there and needs no
 *                      reference.
 * struct dio_backend   Hardware in place of the models; dio_dev.hardware is its
 *                      own, and lives as long as the dio_dev.
 *
 * Life of a waiting request: one state word, one owner per state
 * ---------------------------------------------------------------
 *   QUEUED     the queue owns it: timer, worker's list, poller or the backend's
 *              queue. Who takes it from here wins, by one cmpxchg of the state:
 *   MOVING     the finisher (worker, timer or poller) owns it: moves the bytes,
 *              releases the pages, tells the result. Or the hardware does: then
 *              the bytes are moved, the pages unmapped, and the finisher has the
 *              rest.
 *   CANCELLED  it was cancelled first. An asynchronous one is still handed to
 *              the worker, which releases the pages and tells -ECANCELED; the
 *              pages of a synchronous one are released by the killed caller.
 *
 * An asynchronous request is told by ->ki_complete(), exactly once and last:
 * the pages are released and the request is out of every count before, and the
 * kiocb is not touched after.
 *
 * Removal takes no request from its owner: it makes those that wait due at once,
 * and who finishes one sees that the device is gone. So a request is linked into
 * its CPU's list, and its timer started, in one go.
 *
 * Lock order
 * ----------
 *   mmap_lock > dio_dev.config_lock
 *   mmap_lock > a store page's lock, or the store's xa_lock
 *   dio_dev.config_lock > dio_dev.schedule.lock
 *   dio_dev.config_lock > dio_dev.faults.lock (reading the counters)
 *   dio_dev.config_lock > the store's xa_lock (taking pages away)
 *   dio_dev.files_lock > the mappings' and page tables' locks
 *   dio_dev.files_lock > dio_file.buffers' xa_lock
 *   dio_dev.fsync_lock: waited under for who is in flight, and may take mmap_lock there:
 *                       so never taken under anything
 *   dio_dev.inject.arm_lock > the static key's locks, or dio_dev.inject.lock
 *   dio_dev.faults.arm_lock > the static key's locks, or dio_dev.faults.lock
 *   a pipe's mutex > dio_file.splice_lock > what a read takes (see below)
 *   a pipe's mutex or io_uring's uring_lock > what a request takes
 *   aio's ctx_lock (io_cancel) or io_uring's uring_lock > dio_counters.lock
 *   dio_counters.lock > hrtimer's and workqueue's own locks, dio_edu.lock, or
 *                       dio_dev.faults.lock
 *   dio_edu.lock > dio_edu.idle's, the timer's, workqueue's, DMA's and PCI's own locks
 *   dio_dev.inject.lock > hrtimer's and workqueue's own locks
 *   dio_dev.faults.lock > the timer's and workqueue's own locks; interrupts off
 *   dio_dev.schedule.lock, and the xa_locks of dio_file.buffers and of the store:
 *                       innermost, but for the allocator's
 * User memory is never touched under config_lock or faults.lock.
 *
 * What a request takes, one after the other: config_lock, when it finds the gate closed
 * and may wait (never under uring_lock); inject.lock, when a rule is set; schedule.lock,
 * of disk and tape; dio_counters.lock, when it's queued; the store's xa_lock, when it
 * writes where there is no page yet; the locks of pages that it marks dirty;
 * faults.lock, when a fault is armed. So what is served at once, through an open gate and
 * with nothing set or armed, takes none of the driver's, but the xa_lock for a new page.
 */
#ifndef _DIO_H
#define _DIO_H

#include "uapi/dio.h"
#include "device.h"
#include "io.h"
#include "backend.h"
#include "buffer.h"

#endif /* _DIO_H */
