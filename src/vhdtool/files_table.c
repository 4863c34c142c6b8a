// SPDX-License-Identifier: MIT
/* Which file systems this build has, and through what. */
#include "vhdtool/files.h"

static const struct {
	const struct files_ops *ops;
	const char *library;
} table[] = {
#ifdef HAVE_EXT2FS
	[FILES_EXT] = { &files_ext, "libext2fs" },
#else
	[FILES_EXT] = { NULL, "libext2fs" },
#endif
#ifdef HAVE_NTFS3G
	[FILES_NTFS] = { &files_ntfs, "libntfs-3g" },
#else
	[FILES_NTFS] = { NULL, "libntfs-3g" },
#endif
	[FILES_FAT] = { &files_fat, "a reader of its own" },
};

const struct files_ops *files_ops_of(enum files_system system)
{
	return system < ARRAY_SIZE(table) ? table[system].ops : NULL;
}

const char *files_library_of(enum files_system system)
{
	return system < ARRAY_SIZE(table) ? table[system].library : NULL;
}
