// SPDX-License-Identifier: GPL-2.0-only
/*
 * What goes wrong with the modelled device, as opposed to the driver: errors,
 * short transfers, delays, completions out of order. The driver itself stays
 * correct; it's the programs above that are tested.
 *
 * One rule an action. A request meets the rules once, on its way in; what they
 * decide travels with it. One that is turned away with EAGAIN gives that back.
 * With no rule set this costs one static branch.
 */
#include "request.h"

DEFINE_STATIC_KEY_FALSE(dio_injecting);

void dio_inject_init(struct dio_dev *dev)
{
	mutex_init(&dev->inject.arm_lock);
	spin_lock_init(&dev->inject.lock);
}

static void dio_inject_count(struct dio_dev *dev, int action, s64 by)
{
	switch (action) {
	case DIO_INJECT_EIO:
		dio_add(dev, injected_errors, by);
		break;
	case DIO_INJECT_SHORT:
		dio_add(dev, injected_shorts, by);
		break;
	case DIO_INJECT_DELAY:
		dio_add(dev, injected_delays, by);
		break;
	case DIO_INJECT_REORDER:
		dio_add(dev, injected_reorders, by);
		break;
	}
}

/* Whether @call is an occasion for the rule of @action. */
static bool dio_inject_meets(const struct dio_call *call, int action, size_t bytes)
{
	const struct dio_inject_rule *r = &call->dev->inject.rules[action];
	u64 first = call->pos, end = first + bytes;
	const struct dio_inject *i = &r->rule;

	lockdep_assert_held(&call->dev->inject.lock);

	return i->armed && !(i->count && r->left == 0) &&
	       i->flags & (call->write ? DIO_INJECT_WRITES : DIO_INJECT_READS) &&
	       end > i->offset && !(i->length && first >= i->offset + i->length);
}

/*
 * Whether @call is an occasion for the rule of @action, its turn, and @able to
 * suffer it. Both are noted in the call.
 */
static bool dio_inject_hit(struct dio_call *call, int action, size_t bytes, bool able)
{
	struct dio_inject_rule *r = &call->dev->inject.rules[action];
	const struct dio_inject *i = &r->rule;

	if (!dio_inject_meets(call, action, bytes))
		return false;

	r->occasions++;
	call->injected |= DIO_CALL_MET(action);
	if (i->seed) {
		if (dio_random(&r->random) % i->every)
			return false;
	} else if (r->occasions % i->every) {
		return false;
	}
	if (!able)
		return false;
	r->left--;
	r->injected++;
	call->injected |= BIT(action);
	dio_inject_count(call->dev, action, 1);
	return true;
}

/*
 * Lets @call, which is about to move @bytes, meet the rules. EAGAIN, before it met
 * one, when it may have to wait here and may not: it's going to come again.
 */
int __dio_inject(struct dio_call *call, size_t bytes, bool direct)
{
	struct dio_injection *inject = &call->dev->inject;
	struct dio_params *params = &call->params;
	bool waits = direct ? dio_must_queue(call) : dio_takes_time(params);
	u64 delay_ns = 0;

	spin_lock_bh(&inject->lock);
	if (call->nowait && (!direct || dio_sync(call)) &&
	    (waits || dio_inject_meets(call, DIO_INJECT_DELAY, bytes))) {
		spin_unlock_bh(&inject->lock);
		return -EAGAIN;
	}
	dio_inject_hit(call, DIO_INJECT_EIO, bytes, true);
	/* What is one sector can't be shorter. */
	dio_inject_hit(call, DIO_INJECT_SHORT, bytes, bytes > (direct ? DIO_ALIGN : 1));
	if (dio_inject_hit(call, DIO_INJECT_DELAY, bytes, true))
		delay_ns = inject->rules[DIO_INJECT_DELAY].rule.delay_ns;
	if (direct && call->kind == DIO_KIND_ASYNC)
		dio_inject_hit(call, DIO_INJECT_REORDER, bytes, !dio_reorder_holds(inject));
	spin_unlock_bh(&inject->lock);

	/* Who has to wait can't be served at once. */
	params->latency_ns += delay_ns;
	if ((delay_ns || call->injected & BIT(DIO_INJECT_REORDER)) &&
	    params->completion <= DIO_COMPLETION_INLINE)
		params->completion = DIO_COMPLETION_WORKER;
	return 0;
}

/*
 * @call, which met the rules, was turned away after all: as if it hadn't met them.
 * One that was set anew meanwhile may be told of one occasion too few.
 */
void dio_inject_back(const struct dio_call *call)
{
	struct dio_injection *inject = &call->dev->inject;
	int action;

	spin_lock_bh(&inject->lock);
	for (action = 1; action < DIO_INJECT_COUNT; action++) {
		struct dio_inject_rule *r = &inject->rules[action];
		bool hit = call->injected & BIT(action);

		if (!(call->injected & DIO_CALL_MET(action)))
			continue;
		if (hit) {
			r->injected--;
			dio_inject_count(call->dev, action, -1);
		}
		if (!r->occasions)
			continue;
		r->occasions--;
		if (r->rule.seed)
			dio_random_back(&r->random);
		if (hit && r->left < (r->rule.count ? r->rule.count : U64_MAX))
			r->left++;
	}
	spin_unlock_bh(&inject->lock);
}

/* Does to @io, whose pages are held, what the rules decided. */
void dio_inject_io(struct dio_io *io, const struct dio_call *call)
{
	if (call->injected & BIT(DIO_INJECT_EIO))
		io->model = DIO_MODEL_BROKEN;
	if (call->injected & BIT(DIO_INJECT_SHORT) && io->goal > DIO_ALIGN)
		io->goal = ALIGN_DOWN(io->goal / 2, DIO_ALIGN) ?: DIO_ALIGN;
}

int dio_inject_set(struct dio_dev *dev, const struct dio_inject *inject)
{
	struct dio_inject_rule *r;
	u64 end;
	bool was;

	if (inject->action == DIO_INJECT_NONE || inject->action >= DIO_INJECT_COUNT ||
	    inject->flags & ~(DIO_INJECT_READS | DIO_INJECT_WRITES) ||
	    inject->reserved || !inject->every ||
	    check_add_overflow(inject->offset, inject->length, &end))
		return -EINVAL;
	if (inject->delay_ns > DIO_LATENCY_MAX_NS ||
	    (inject->delay_ns && inject->action < DIO_INJECT_DELAY) ||
	    (!inject->delay_ns && inject->action == DIO_INJECT_DELAY))
		return -EINVAL;

	/* Hardware keeps its own time, and its order. */
	if (dev->backend && inject->action >= DIO_INJECT_DELAY)
		return -EOPNOTSUPP;

	if (mutex_lock_killable(&dev->inject.arm_lock))
		return -EINTR;

	r = &dev->inject.rules[inject->action];
	spin_lock_bh(&dev->inject.lock);
	was = r->rule.armed;
	*r = (struct dio_inject_rule) {
		.rule = *inject,
		.left = inject->count ? inject->count : U64_MAX,
		.random = inject->seed,
		.injected = r->injected,
	};
	r->rule.armed = 1;
	if (!r->rule.flags)
		r->rule.flags = DIO_INJECT_READS | DIO_INJECT_WRITES;
	spin_unlock_bh(&dev->inject.lock);

	if (!was)
		static_branch_inc(&dio_injecting);
	mutex_unlock(&dev->inject.arm_lock);
	return 0;
}

int dio_inject_get(struct dio_dev *dev, struct dio_inject *inject)
{
	u32 action = inject->action;
	struct dio_inject_rule r;

	if (action == DIO_INJECT_NONE || action >= DIO_INJECT_COUNT ||
	    inject->flags || inject->reserved)
		return -EINVAL;

	spin_lock_bh(&dev->inject.lock);
	r = dev->inject.rules[action];
	spin_unlock_bh(&dev->inject.lock);

	*inject = r.rule;
	inject->action = action;
	inject->occasions = r.occasions;
	inject->injected = r.injected;
	if (inject->count) {
		inject->count = r.left;
		inject->armed &= r.left != 0;
	}
	return 0;
}

int dio_inject_clear(struct dio_dev *dev, const struct dio_inject *inject)
{
	int action;

	if (inject->action >= DIO_INJECT_COUNT || inject->flags || inject->reserved)
		return -EINVAL;

	mutex_lock(&dev->inject.arm_lock);
	for (action = 1; action < DIO_INJECT_COUNT; action++) {
		struct dio_inject_rule *r = &dev->inject.rules[action];
		bool was;

		if (inject->action && inject->action != action)
			continue;
		spin_lock_bh(&dev->inject.lock);
		was = r->rule.armed;
		/* As if it had never been set: what is used up looks otherwise. */
		*r = (struct dio_inject_rule) { .injected = r->injected };
		spin_unlock_bh(&dev->inject.lock);
		if (was)
			static_branch_dec(&dio_injecting);
	}
	mutex_unlock(&dev->inject.arm_lock);
	return 0;
}

void dio_inject_exit(struct dio_dev *dev)
{
	const struct dio_inject all = {};

	dio_inject_clear(dev, &all);
}
