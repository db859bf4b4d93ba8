/* SPDX-License-Identifier: GPL-2.0-only */
/* From a page to its folio, and what the kernel itself believes of it. */
#ifndef DIO_TRACE_PAGES_H
#define DIO_TRACE_PAGES_H

#include <bpf/bpf_core_read.h>
#include "maps.h"

struct page_ref {
	__u64 head;
	bool large;
};

/*
 * A tail page's second word leads to its head: with bit 0 set it is the
 * head's address plus one or, from 7.x, a mask to apply to the tail's own
 * address. A mask has all its high bits set, which no struct page's address has.
 */
static __always_inline struct page_ref page_folio(__u64 page)
{
	struct page_ref ref = { .head = page };
	__u64 word[2] = {};

	bpf_probe_read_kernel(word, sizeof(word), (void *)page);
	if (word[1] & 1) {
		ref.large = true;
		if (word[1] >> 32 == 0xffffffff)
			ref.head = page & word[1] & ~1ULL;
		else
			ref.head = word[1] - 1;
	} else {
		ref.large = word[0] >> bpf_core_enum_value(enum pageflags, PG_head) & 1;
	}
	return ref;
}

static __always_inline __u64 page_flags(__u64 page)
{
	__u64 flags = 0;

	bpf_probe_read_kernel(&flags, sizeof(flags), (void *)page);
	return flags;
}

static __always_inline bool folio_dirty(__u64 folio)
{
	return page_flags(folio) >> bpf_core_enum_value(enum pageflags, PG_dirty) & 1;
}

static __always_inline bool folio_locked(__u64 folio)
{
	return page_flags(folio) >> bpf_core_enum_value(enum pageflags, PG_locked) & 1;
}

static __always_inline bool folio_reserved(__u64 folio)
{
	return page_flags(folio) >> bpf_core_enum_value(enum pageflags, PG_reserved) & 1;
}

#define PINS_UNKNOWN 0xffffffffU

/*
 * The kernel's own count: exact for large folios; for a single page the
 * reference count in units of 1024, which other references can only raise.
 */
static __always_inline __u32 folio_pins(__u64 folio)
{
	bool large = page_flags(folio) >> bpf_core_enum_value(enum pageflags, PG_head) & 1;
	__s32 count = 0;

	if (large) {
		if (bpf_core_field_exists(struct folio, _pincount))
			bpf_probe_read_kernel(&count, sizeof(count),
					      (void *)folio + bpf_core_field_offset(struct folio, _pincount));
		else if (bpf_core_field_exists(struct page, hpage_pinned_refcount))
			bpf_probe_read_kernel(&count, sizeof(count),
					      (void *)folio + 2 * bpf_core_type_size(struct page) +
					      bpf_core_field_offset(struct page, hpage_pinned_refcount));
		else
			return PINS_UNKNOWN;
		return count < 0 ? 0 : count;
	}
	bpf_probe_read_kernel(&count, sizeof(count),
			      (void *)folio + bpf_core_field_offset(struct page, _refcount));
	return count < 0 ? 0 : count >> 10;
}

static __always_inline __s32 read_count(__u64 place)
{
	__s32 count = 0;

	bpf_probe_read_kernel(&count, sizeof(count), (void *)place);
	return count;
}

static __always_inline __u64 folio_mapping(__u64 folio)
{
	__u64 mapping = 0;

	if (bpf_core_field_exists(struct folio, mapping))
		bpf_probe_read_kernel(&mapping, sizeof(mapping), (void *)folio + bpf_core_field_offset(struct folio, mapping));
	else if (bpf_core_field_exists(struct page, mapping))
		bpf_probe_read_kernel(&mapping, sizeof(mapping), (void *)folio + bpf_core_field_offset(struct page, mapping));
	return mapping;
}

static __always_inline __s32 folio_references(__u64 folio)
{
	return read_count(folio + bpf_core_field_offset(struct page, _refcount));
}

/* Its mapping leads to a file's inode; the lowest bits mark other kinds of memory. */
static __always_inline bool folio_of_file(__u64 folio)
{
	__u64 mapping = folio_mapping(folio);

	return mapping && !(mapping & 3);
}

/* May some process have it mapped? For a large folio only newer kernels can tell. */
static __always_inline bool folio_maybe_mapped(__u64 folio)
{
	if (page_flags(folio) >> bpf_core_enum_value(enum pageflags, PG_head) & 1) {
		if (!bpf_core_field_exists(struct folio, _large_mapcount))
			return true;
		return read_count(folio + bpf_core_field_offset(struct folio, _large_mapcount)) >= 0;
	}
	return read_count(folio + bpf_core_field_offset(struct page, _mapcount)) >= 0;
}

#endif
