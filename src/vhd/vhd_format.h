/* SPDX-License-Identifier: MIT */
/*
 * VHD as it lies on disk (Virtual Hard Disk Image Format Specification, version 1.0, October 2006):
 * big-endian, everything at multiples of 512 bytes. A fixed image is the disk's bytes and a footer.
 * A dynamic or differencing one is a copy of the footer, a header, a table, then blocks, each with
 * a bitmap of its sectors in front, and the footer. Names are the specification's.
 */
#pragma once

#include "lib/types.h"

#define VHD_FOOTER_COOKIE UINT64_C(0x636f6e6563746978) /* "conectix" */
#define VHD_HEADER_COOKIE UINT64_C(0x6378737061727365) /* "cxsparse" */

#define VHD_SECTOR          512u
#define VHD_FOOTER_SIZE     512u
#define VHD_FOOTER_OLD_SIZE 511u /* what Virtual PC wrote before 2004 */
#define VHD_HEADER_SIZE     1024u
#define VHD_VERSION         0x00010000u
#define VHD_EPOCH           946684800 /* of Time Stamp: 2000-01-01 UTC, in seconds of Unix time */
#define VHD_NO_OFFSET       UINT64_MAX
#define VHD_DISK_SIZE_MAX   (2040 * GIB)
#define VHD_LOCATORS        8u
#define VHD_NAME_UNITS      256u /* UTF-16 code units of the parent's name */

/* "Hard Disk Footer Format": Features, Disk Type */
#define VHD_FEATURE_RESERVED  BIT(1) /* always set */
#define VHD_TYPE_FIXED        2u
#define VHD_TYPE_DYNAMIC      3u
#define VHD_TYPE_DIFFERENCING 4u

/* Creator Application and Host OS */
#define VHD_CREATOR_VIRTUAL_PC 0x76706320u /* "vpc " */
#define VHD_CREATOR_QEMU       0x71656d75u /* "qemu" */
#define VHD_CREATOR_QEMU_EXACT 0x71656d32u /* "qem2": the size counts, not the geometry */
#define VHD_CREATOR_WINDOWS    0x77696e20u /* "win " */
#define VHD_OS_WINDOWS         0x5769326bu /* "Wi2k" */

/* "Hard Disk Geometry" can express no more than this */
#define VHD_GEOMETRY_MAX (UINT64_C(65535) * 16 * 255)

/* "Block Allocation Table": entries are sector numbers */
#define VHD_BAT_UNUSED UINT32_MAX

/* "Parent Locator Entry": Platform Code */
#define VHD_LOCATOR_W2RU 0x57327275u /* relative path, UTF-16 little-endian */
#define VHD_LOCATOR_W2KU 0x57326b75u /* absolute path, UTF-16 little-endian */
#define VHD_LOCATOR_WI2R 0x57693272u /* relative path, 8 bits */
#define VHD_LOCATOR_WI2K 0x5769326bu /* absolute path, 8 bits */
#define VHD_LOCATOR_MACX 0x4d616358u /* file URL, UTF-8 */

struct vhd_disk_footer {
	be64 cookie;
	be32 features, file_format_version;
	be64 data_offset;
	be32 time_stamp, creator_application, creator_version, creator_host_os;
	be64 original_size, current_size;
	be16 cylinders;
	uint8_t heads, sectors_per_track;
	be32 disk_type, checksum;
	uint8_t unique_id[16];
	uint8_t saved_state;
	uint8_t reserved[427];
};
_Static_assert(sizeof(struct vhd_disk_footer) == VHD_FOOTER_SIZE, "footer");
_Static_assert(offsetof(struct vhd_disk_footer, unique_id) == 68, "footer");

struct vhd_locator {
	be32 platform_code;
	be32 platform_data_space; /* sectors says the specification, bytes write Windows and we */
	be32 platform_data_length;
	be32 reserved;
	be64 platform_data_offset;
};
_Static_assert(sizeof(struct vhd_locator) == 24, "parent locator");

struct vhd_disk_header {
	be64 cookie, data_offset, table_offset;
	be32 header_version, max_table_entries, block_size, checksum;
	uint8_t parent_unique_id[16];
	be32 parent_time_stamp, reserved;
	be16 parent_unicode_name[VHD_NAME_UNITS];
	struct vhd_locator parent_locators[VHD_LOCATORS];
	uint8_t reserved2[256];
};
_Static_assert(sizeof(struct vhd_disk_header) == VHD_HEADER_SIZE, "dynamic disk header");
_Static_assert(offsetof(struct vhd_disk_header, parent_locators) == 576, "dynamic disk header");
