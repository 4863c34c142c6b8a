// SPDX-License-Identifier: MIT
/* File systems by their marks. Only looks; what is really there its implementation finds out. */
#include "vhdtool/files.h"

#include <string.h>

struct mark {
	uint32_t offset;
	const char *bytes;
	enum files_system system;
	const char *name;
};

static const struct mark marks[] = {
	{ 3, "NTFS    ", FILES_NTFS, "NTFS" },
	{ 3, "EXFAT   ", FILES_FOREIGN, "exFAT" },
	{ 3, "-FVE-FS-", FILES_FOREIGN, "BitLocker" },
	{ 3, "ReFS", FILES_FOREIGN, "ReFS" },
	{ 0, "XFSB", FILES_FOREIGN, "XFS" },
	{ 0, "hsqs", FILES_FOREIGN, "squashfs" },
	{ 0, "LUKS\xba\xbe", FILES_FOREIGN, "LUKS" },
	{ 512, "LABELONE", FILES_FOREIGN, "LVM2" },
	{ 1024, "\x10\x20\xf5\xf2", FILES_FOREIGN, "F2FS" },
	{ 4086, "SWAPSPACE2", FILES_FOREIGN, "swap space" },
	{ 0x10040, "_BHRfS_M", FILES_FOREIGN, "btrfs" },
	{ 0x8001, "CD001", FILES_FOREIGN, "ISO 9660" },
	{ 1080, "\x53\xef", FILES_EXT, "ext2/3/4" },
	{ 82, "FAT32   ", FILES_FAT, "FAT" },
	{ 54, "FAT12   ", FILES_FAT, "FAT" },
	{ 54, "FAT16   ", FILES_FAT, "FAT" },
	{ 54, "FAT     ", FILES_FAT, "FAT" },
};

int files_recognise(struct files_volume *v, enum files_system *ret, const char **ret_name)
{
	*ret = FILES_UNKNOWN;
	*ret_name = "nothing that is known";
	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		const struct mark *m = &marks[i];
		size_t n = strlen(m->bytes);
		char bytes[16];
		int r;

		if (!range_inside(m->offset, n, v->size))
			continue;
		r = v->read(v, bytes, n, m->offset);
		if (r < 0)
			return r;
		if (memcmp(bytes, m->bytes, n))
			continue;
		*ret = m->system;
		*ret_name = m->name;
		break;
	}
	return 0;
}
