/* SPDX-License-Identifier: MIT */
/*
 * VHDX as it lies on disk (MS-VHDX 2.1 to 2.6): little-endian, structures at fixed places in the
 * first MiB, everything else in objects of whole MiB. Names are the specification's. Items marked
 * "not in MS-VHDX" are written by Windows all the same.
 */
#pragma once

#include "lib/guid.h"
#include "lib/types.h"

#define VHDX_FILE_ID_SIGNATURE  UINT64_C(0x656c696678646876) /* "vhdxfile" */
#define VHDX_HEADER_SIGNATURE   0x64616568u                  /* "head" */
#define VHDX_REGION_SIGNATURE   0x69676572u                  /* "regi" */
#define VHDX_METADATA_SIGNATURE UINT64_C(0x617461646174656d) /* "metadata" */
#define VHDX_LOG_SIGNATURE      0x65676f6cu                  /* "loge" */
#define VHDX_DESC_SIGNATURE     0x63736564u                  /* "desc" */
#define VHDX_ZERO_SIGNATURE     0x6f72657au                  /* "zero" */
#define VHDX_DATA_SIGNATURE     0x61746164u                  /* "data" */

#define VHDX_HEADER_SIZE      4096u
#define VHDX_HEADER_OFFSET(n) ((n) ? 128 * KIB : 64 * KIB) /* slots 0 and 1 */
#define VHDX_REGION_SIZE      (64 * KIB)
#define VHDX_REGION_OFFSET(n) ((n) ? 256 * KIB : 192 * KIB) /* copies 0 and 1 */
#define VHDX_METADATA_TABLE   (64 * KIB)
#define VHDX_SECTOR           4096u /* unit of log and BAT writes */
#define VHDX_OBJECT_ALIGN     MIB
#define VHDX_CREATOR_SIZE     512u
#define VHDX_VERSION          1u
#define VHDX_LOG_VERSION      0u

#define VHDX_ENTRIES_MAX          2047u /* of region and metadata tables */
#define VHDX_METADATA_USER_MAX    1024u
#define VHDX_METADATA_LENGTH_MAX  MIB
#define VHDX_BLOCK_SIZE_MIN       MIB
#define VHDX_BLOCK_SIZE_MAX       (256 * MIB)
#define VHDX_DISK_SIZE_MAX        (64 * TIB)
#define VHDX_CHUNK_SECTORS        BIT64(23) /* sectors that one sector bitmap block describes */
#define VHDX_BAT_PER_PAGE         (VHDX_SECTOR / 8u)
#define VHDX_DESC_IN_FIRST_SECTOR 126u
#define VHDX_DESC_PER_SECTOR      128u

#define VHDX_REGION_REQUIRED BIT(0)

#define VHDX_META_IS_USER         BIT(0)
#define VHDX_META_IS_VIRTUAL_DISK BIT(1)
#define VHDX_META_IS_REQUIRED     BIT(2)

#define VHDX_PARAM_LEAVE_BLOCKS_ALLOCATED BIT(0)
#define VHDX_PARAM_HAS_PARENT             BIT(1)

/* 2.5.1.1: states of a payload block; values 4 and 5 are reserved. */
#define VHDX_BLOCK_NOT_PRESENT       0u
#define VHDX_BLOCK_UNDEFINED         1u
#define VHDX_BLOCK_ZERO              2u
#define VHDX_BLOCK_UNMAPPED          3u
#define VHDX_BLOCK_FULLY_PRESENT     6u
#define VHDX_BLOCK_PARTIALLY_PRESENT 7u

/* 2.5.1.2: states of a sector bitmap block, which holds a bit for each sector of a chunk, the
 * lowest first: 1 = the sector is in this file. */
#define VHDX_BITMAP_NOT_PRESENT 0u
#define VHDX_BITMAP_PRESENT     6u
#define VHDX_BITMAP_SIZE        MIB
#define VHDX_BITS_PER_PAGE      (8 * VHDX_SECTOR)

#define VHDX_BAT_STATE(e) ((unsigned)((e)&7))
#define VHDX_BAT_OFFSET(e)                                                                         \
	((e) & ~(MIB - 1)) /* FileOffsetMB lies at bit 20: bytes as it stands                      \
			    */
#define VHDX_BAT_RESERVED(e) ((e) & (MIB - 1) & ~UINT64_C(7))

struct vhdx_file_id {
	le64 signature;
	le16 creator[VHDX_CREATOR_SIZE / 2];
};

struct vhdx_disk_header {
	le32 signature, checksum;
	le64 sequence_number;
	struct guid file_write_guid, data_write_guid, log_guid;
	le16 log_version, version;
	le32 log_length;
	le64 log_offset;
	uint8_t reserved[4016];
};
_Static_assert(sizeof(struct vhdx_disk_header) == VHDX_HEADER_SIZE, "header");
_Static_assert(offsetof(struct vhdx_disk_header, log_offset) == 72, "header");

struct vhdx_region_header {
	le32 signature, checksum, entry_count, reserved;
};

struct vhdx_region_entry {
	struct guid guid;
	le64 file_offset;
	le32 length, required;
};
_Static_assert(sizeof(struct vhdx_region_entry) == 32, "region entry");

struct vhdx_metadata_header {
	le64 signature;
	le16 reserved, entry_count;
	uint8_t reserved2[20];
};
_Static_assert(sizeof(struct vhdx_metadata_header) == 32, "metadata header");

struct vhdx_metadata_entry {
	struct guid item;
	le32 offset, length, flags, reserved;
};
_Static_assert(sizeof(struct vhdx_metadata_entry) == 32, "metadata entry");

struct vhdx_log_header {
	le32 signature, checksum, entry_length, tail;
	le64 sequence_number;
	le32 descriptor_count, reserved;
	struct guid log_guid;
	le64 flushed_file_offset, last_file_offset;
};
_Static_assert(sizeof(struct vhdx_log_header) == 64, "log header");

struct vhdx_locator_header {
	struct guid type;
	le16 reserved, count;
};
_Static_assert(sizeof(struct vhdx_locator_header) == 20, "locator header");

/* Offsets from the start of the item; UTF-16 without a NUL. */
struct vhdx_locator_entry {
	le32 key_offset, value_offset;
	le16 key_length, value_length;
};
_Static_assert(sizeof(struct vhdx_locator_entry) == 12, "locator entry");

/* A data descriptor, or with VHDX_ZERO_SIGNATURE a zero descriptor (leading = its length). */
struct vhdx_log_descriptor {
	le32 signature, trailing;
	le64 leading, file_offset, sequence_number;
};
_Static_assert(sizeof(struct vhdx_log_descriptor) == 32, "log descriptor");

/* A logged page without its first 8 and last 4 bytes, which are in the descriptor. */
struct vhdx_log_data {
	le32 signature, sequence_high;
	uint8_t data[4084];
	le32 sequence_low;
};
_Static_assert(sizeof(struct vhdx_log_data) == VHDX_SECTOR, "log data");

#define VHDX_GUID_BAT                                                                              \
	GUID(0x2dc27766, 0xf623, 0x4200, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08)
#define VHDX_GUID_METADATA                                                                         \
	GUID(0x8b7ca206, 0x4790, 0x4b9a, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e)
#define VHDX_GUID_FILE_PARAMETERS                                                                  \
	GUID(0xcaa16737, 0xfa36, 0x4d43, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b)
#define VHDX_GUID_DISK_SIZE                                                                        \
	GUID(0x2fa54224, 0xcd1b, 0x4876, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8)
#define VHDX_GUID_DISK_ID                                                                          \
	GUID(0xbeca12ab, 0xb2e6, 0x4523, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46)
#define VHDX_GUID_LOGICAL_SECTOR                                                                   \
	GUID(0x8141bf1d, 0xa96f, 0x4709, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f)
#define VHDX_GUID_PHYSICAL_SECTOR                                                                  \
	GUID(0xcda348c7, 0x445d, 0x4471, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56)
#define VHDX_GUID_PARENT_LOCATOR                                                                   \
	GUID(0xa8d35f2d, 0xb30b, 0x454d, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c)
/* 2.6.2.6.1: the type of a parent locator */
#define VHDX_GUID_LOCATOR_VHDX                                                                     \
	GUID(0xb04aefb7, 0xd19e, 0x4a81, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13)
/* not in MS-VHDX */
#define VHDX_GUID_CHS                                                                              \
	GUID(0xda02d7bc, 0x3d3a, 0x423c, 0xac, 0x88, 0x2a, 0x36, 0xab, 0x21, 0x47, 0x9b)
#define VHDX_GUID_INCOMPLETE_FILE                                                                  \
	GUID(0x71cc85f0, 0x1b69, 0x4e28, 0x95, 0x58, 0xc3, 0xbf, 0x83, 0xae, 0x75, 0xd3)
#define VHDX_GUID_PMEM_LABELS                                                                      \
	GUID(0x10e1ae8a, 0x4b7e, 0x4169, 0xa4, 0x0f, 0xcd, 0x70, 0xde, 0x92, 0x83, 0x93)
