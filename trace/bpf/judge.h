/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs that user space runs, to ask what the kernel knows of a folio. */
#ifndef DIO_TRACE_JUDGE_H
#define DIO_TRACE_JUDGE_H

#include "pages.h"

/*
 * Run by user space: a folio that was gotten, its mapping and its references
 * then. What it is now, if its process has gone: enum got_state.
 */
SEC("raw_tp/judge_get")
int judge_get(__u64 *ctx)
{
	__u64 folio = ctx[0], was = ctx[1], mapping = folio_mapping(folio);
	__s32 references = folio_references(folio);

	/* Mapping it takes no reference: only who gets it changes their number. */
	if (!was && !mapping && folio_reserved(folio)) {
		references -= (__s32)ctx[2];
		if (references > 0xffff)
			references = 0xffff;
		return references > 0 ? GOT_ZERO | references : GOT_FREED;
	}
	if (references <= 0 || mapping != was)
		return GOT_FREED;
	if ((mapping & 3) != 1 || folio_maybe_mapped(folio) || folio_pins(folio) ||
	    page_flags(folio) >> bpf_core_enum_value(enum pageflags, PG_swapcache) & 1)
		return GOT_UNJUDGED;
	if (references > 0xffff)
		references = 0xffff;
	return GOT_HELD | references;
}

/* Run by user space: how often the kernel itself believes a folio to be pinned. */
SEC("raw_tp/folio_pins")
int count_pins(__u64 *ctx)
{
	return folio_pins(ctx[0]);
}

#endif
