// SPDX-License-Identifier: GPL-2.0-only
/*
 * When a request is done: the device models' sense of time.
 *
 * The device is a clock that runs ahead: at submission, in the order of arrival,
 * each request is given the moment at which the modelled device would be done
 * with it. From then on a timer is all it needs; nothing is handed from one
 * request to the next, so completions share no lock. The price: the device's time
 * that a cancelled request had been given stays used.
 *
 *   disk  `queue_depth` requests are worked on at a time, in a heap by when each
 *         ends; who comes later begins when the first of them ends, first come,
 *         first served. One that is worked on takes the latency, a random part,
 *         and its bytes at `bandwidth`, which all share.
 *   tape  one head and one request at a time. While requests follow each other
 *         without a gap, in time and in place, it streams. Else it must stop, go
 *         back and gain speed again: `reposition_ns`.
 */
#include <linux/ktime.h>
#include <linux/math64.h>

#include "dio.h"

/* No moment is later than this, so that none overflows. */
#define DIO_TIME_MAX	((u64)KTIME_MAX / 4)

#define DIO_RANDOM_STEP	0x9e3779b97f4a7c15ULL

/* The next of the numbers after seed @state. */
u64 dio_random(u64 *state)
{
	/* splitmix64: any seed will do, 0 too. */
	u64 z = *state += DIO_RANDOM_STEP;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* Takes the last number back: it comes again. */
void dio_random_back(u64 *state)
{
	*state -= DIO_RANDOM_STEP;
}

/*
 * -ln(u) of a uniform u, in 1/65536: the leading zeros of a random word are the
 * whole part of -log2(u), what follows its first one the rest; log2(1+m) is
 * m + 0.343 m (1-m), less than 0.01 off.
 */
static u64 dio_exponential(struct dio_schedule *s)
{
	u64 r = dio_random(&s->random) | 1;
	u32 zeros = 63 - (fls64(r) - 1);
	u64 m = zeros == 63 ? 0 : (r << (zeros + 1)) >> 48;
	u64 log = m + ((m * (65536 - m)) >> 16) * 343 / 1000;

	return (((u64)(zeros + 1) << 16) - log) * 45426 >> 16;	/* times ln 2 */
}

static u64 dio_jitter(struct dio_schedule *s, const struct dio_timing *t)
{
	if (!t->jitter_ns)
		return 0;
	if (t->distribution == DIO_DISTRIBUTION_EXPONENTIAL)
		return t->jitter_ns * dio_exponential(s) >> 16;
	/* Uniform: 32 random bits are finer than a nanosecond of a second. */
	return mul_u64_u32_shr(t->jitter_ns, dio_random(&s->random) >> 32, 32);
}

/* How long @bytes take; @bandwidth 0 has no limit. */
static u64 dio_transfer_ns(u32 bytes, u64 bandwidth)
{
	return bandwidth ? div64_u64((u64)bytes * NSEC_PER_SEC, bandwidth) : 0;
}

/* Puts @end in the place of the earliest in the heap of @depth. */
static void dio_slots_replace(u64 *slots, u32 depth, u64 end)
{
	u32 i = 0, child;

	while ((child = 2 * i + 1) < depth) {
		if (child + 1 < depth && slots[child + 1] < slots[child])
			child++;
		if (slots[child] >= end)
			break;
		slots[i] = slots[child];
		i = child;
	}
	slots[i] = end;
}

static u64 dio_schedule_disk(struct dio_dev *dev, const struct dio_timing *t,
			     u64 latency_ns, u32 bytes, u64 now)
{
	struct dio_schedule *s = &dev->schedule;
	u64 transfer = dio_transfer_ns(bytes, t->bandwidth);
	u64 begin = max(now, s->slots[0]);
	u64 end;

	lockdep_assert_held(&s->lock);

	if (begin > now)
		dio_count(dev, depth_waits);
	end = begin + latency_ns + dio_jitter(s, t) + transfer;
	s->busy_until = min(max(s->busy_until, begin) + transfer, DIO_TIME_MAX);
	end = min(max(end, s->busy_until), DIO_TIME_MAX);
	dio_slots_replace(s->slots, t->queue_depth, end);
	return end;
}

static u64 dio_schedule_tape(struct dio_dev *dev, const struct dio_timing *t,
			     u64 latency_ns, loff_t pos, u32 bytes, u64 now)
{
	struct dio_schedule *s = &dev->schedule;
	u64 begin = max(now, s->busy_until);
	bool stalls = s->started && now > s->busy_until;
	bool seeks = pos != s->head;

	lockdep_assert_held(&s->lock);

	if (stalls)
		dio_count(dev, stalls);
	if (seeks)
		dio_count(dev, seeks);
	if (stalls || seeks)
		begin += t->reposition_ns;

	s->started = true;
	s->busy_until = min(begin + dio_transfer_ns(bytes, t->bandwidth), DIO_TIME_MAX);
	WRITE_ONCE(s->head, pos + bytes);
	return min(s->busy_until + latency_ns, DIO_TIME_MAX);
}

/* When a request that is submitted now will be done, in ktime_get_ns()'s time. */
u64 dio_schedule(struct dio_dev *dev, const struct dio_params *params, loff_t pos,
		 u32 bytes)
{
	struct dio_schedule *s = &dev->schedule;
	struct dio_timing timing;
	u64 now, at;

	if (!dio_timed(params))
		return ktime_get_ns() + params->latency_ns;

	rcu_read_lock();
	timing = rcu_dereference(dev->settings)->timing;
	rcu_read_unlock();

	spin_lock(&s->lock);
	/* Read within: who comes later is later. */
	now = ktime_get_ns();
	if (params->model == DIO_MODEL_DISK)
		at = dio_schedule_disk(dev, &timing, params->latency_ns, bytes, now);
	else
		at = dio_schedule_tape(dev, &timing, params->latency_ns, pos, bytes, now);
	spin_unlock(&s->lock);
	return at;
}

/* Begins anew: nothing is being worked on, the tape is rewound. */
void dio_schedule_reset(struct dio_dev *dev, const struct dio_timing *timing)
{
	struct dio_schedule *s = &dev->schedule;

	spin_lock(&s->lock);
	memset(s->slots, 0, sizeof(s->slots));
	s->busy_until = 0;
	s->random = timing->seed;
	s->started = false;
	WRITE_ONCE(s->head, 0);
	spin_unlock(&s->lock);
}
