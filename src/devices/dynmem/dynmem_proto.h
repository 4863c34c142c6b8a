/* SPDX-License-Identifier: MIT */
/*
 * The dynamic memory protocol as it lies in packets. Microsoft publishes no document for it; names
 * and values are those of Linux drivers/hv/hv_balloon.c, the guest's side, and of QEMU
 * include/hw/hyperv/dynmem-proto.h, which agree. Nothing of our own lives here.
 */
#pragma once

#include "lib/types.h"

#define DYNMEM_MAKE_VERSION(major, minor) ((uint32_t)(major) << 16 | (minor))
#define DYNMEM_PROTOCOL_VERSION_1         DYNMEM_MAKE_VERSION(0, 3) /* Windows 7 */
#define DYNMEM_PROTOCOL_VERSION_2         DYNMEM_MAKE_VERSION(1, 0) /* Windows 8 */
#define DYNMEM_PROTOCOL_VERSION_3         DYNMEM_MAKE_VERSION(2, 0) /* Windows 10 */

enum dm_message_type {
	DM_ERROR = 0,
	DM_VERSION_REQUEST = 1,
	DM_VERSION_RESPONSE = 2,
	DM_CAPABILITIES_REPORT = 3,
	DM_CAPABILITIES_RESPONSE = 4,
	DM_STATUS_REPORT = 5,
	DM_BALLOON_REQUEST = 6,
	DM_BALLOON_RESPONSE = 7,
	DM_UNBALLOON_REQUEST = 8,
	DM_UNBALLOON_RESPONSE = 9,
	DM_MEM_HOT_ADD_REQUEST = 10,
	DM_MEM_HOT_ADD_RESPONSE = 11,
	DM_INFO_MESSAGE = 12, /* from 1.0 on */
};

struct dm_header {
	le16 type;
	le16 size; /* of the message, this included */
	le32 trans_id;
};
_Static_assert(sizeof(struct dm_header) == 8, "hv_balloon.c");

/* union dm_mem_page_range: first page in bits 0..39, number of pages in 40..63 */
#define DM_RANGE_PAGE(r)      ((r)&UINT64_C(0xffffffffff))
#define DM_RANGE_COUNT(r)     ((r) >> 40)
#define DM_RANGE(page, count) ((page) | (uint64_t)(count) << 40)
#define DM_RANGE_MAX_COUNT    0xffffffu

struct dm_version_request {
	struct dm_header hdr;
	le32 version;
	le32 is_last_attempt; /* bit 0 */
};
_Static_assert(sizeof(struct dm_version_request) == 16, "hv_balloon.c");

/* DM_VERSION_RESPONSE and DM_CAPABILITIES_RESPONSE */
struct dm_accept_response {
	struct dm_header hdr;
	le64 is_accepted; /* bit 0 */
};
_Static_assert(sizeof(struct dm_accept_response) == 16, "hv_balloon.c");

#define DM_CAPS_BALLOON          BIT64(0)
#define DM_CAPS_HOT_ADD          BIT64(1)
#define DM_CAPS_HOT_ADD_ALIGN(c) ((c) >> 2 & 0xf) /* 2^n MiB */

struct dm_capabilities {
	struct dm_header hdr;
	le64 caps;
	le64 min_page_cnt;
	le64 max_page_number;
};
_Static_assert(sizeof(struct dm_capabilities) == 32, "hv_balloon.c");

/* All in pages. */
struct dm_status {
	struct dm_header hdr;
	le64 num_avail;
	le64 num_committed; /* what is ballooned out included */
	le64 page_file_size;
	le64 zero_free;
	le32 page_file_writes;
	le32 io_diff;
};
_Static_assert(sizeof(struct dm_status) == 48, "hv_balloon.c");

struct dm_balloon {
	struct dm_header hdr;
	le32 num_pages;
	le32 reservedz;
};
_Static_assert(sizeof(struct dm_balloon) == 16, "hv_balloon.c");

/* DM_BALLOON_RESPONSE: more_pages is bit 0 of the second word, the count of ranges the others. */
struct dm_balloon_response {
	struct dm_header hdr;
	le32 reservedz;
	le32 more_and_count;
	le64 range_array[];
};
_Static_assert(sizeof(struct dm_balloon_response) == 16, "hv_balloon.c");

struct dm_unballoon_request {
	struct dm_header hdr;
	le32 more_pages; /* bit 0 */
	le32 range_count;
	le64 range_array[];
};
_Static_assert(sizeof(struct dm_unballoon_request) == 16, "hv_balloon.c");

/* With the region it lies in as a second range, or without. */
struct dm_hot_add {
	struct dm_header hdr;
	le64 range;
	le64 region;
};
#define DM_HOT_ADD_SIZE        16u
#define DM_HOT_ADD_REGION_SIZE 24u
_Static_assert(sizeof(struct dm_hot_add) == DM_HOT_ADD_REGION_SIZE, "hv_balloon.c");

struct dm_hot_add_response {
	struct dm_header hdr;
	le32 page_count;
	le32 result; /* 1 = success */
};
_Static_assert(sizeof(struct dm_hot_add_response) == 16, "hv_balloon.c");

#define INFO_TYPE_MAX_PAGE_CNT 0u

/* DM_INFO_MESSAGE with its one kind of information */
struct dm_info_max_page_cnt {
	struct dm_header hdr;
	le32 reserved;
	le32 info_size;
	le32 info_type;
	le32 data_size;
	le64 max_page_cnt;
};
_Static_assert(sizeof(struct dm_info_max_page_cnt) == 32, "hv_balloon.c");
