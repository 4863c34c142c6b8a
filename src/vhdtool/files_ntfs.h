/* SPDX-License-Identifier: MIT */
/* What the halves of the NTFS implementation share: files_ntfs.c reads, files_ntfs_write.c changes.
 */
#pragma once

#include "vhdtool/files.h"

#if __has_include(<ntfs-3g/volume.h>)
/* Its headers count on these. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
/* The library has integers of the same names. They are read with its own macros. */
#define le16 ntfs3g_le16
#define le32 ntfs3g_le32
#define le64 ntfs3g_le64
#define be16 ntfs3g_be16
#define be32 ntfs3g_be32
#define be64 ntfs3g_be64
#include <ntfs-3g/attrib.h>
#include <ntfs-3g/dir.h>
#include <ntfs-3g/inode.h>
#include <ntfs-3g/volume.h>

#define NTFS_NAME_MAX 255 /* UTF-16 units */

struct ntfs_name {
	ntfschar units[NTFS_NAME_MAX];
	int length;
};

struct ntfs {
	struct files files;
	ntfs_volume *volume;
	struct ntfs_device *device;
	s64 at; /* of the device's read and write */
	/* the file that was read last */
	uint64_t file_id;
	ntfs_inode *file;
	ntfs_attr *data;
	/* writing */
	bool started, failed;
	ntfs_inode *made;
	ntfs_attr *made_data;
	uint64_t made_in;
	struct ntfs_name made_name, temporary;
};

/* By errno. */
int ntfs_error(struct error *err, const char *what);
int ntfs_name_of(const char *name, struct ntfs_name *ret, struct error *err);
void ntfs_forget_file(struct ntfs *n);
int ntfs_open_inode(struct ntfs *n, uint64_t id, bool folder, ntfs_inode **ret, struct error *err);
/*
 * By its exact name, else whatever its upper and lower case; *ret_exact (may be NULL) says which.
 * -ENOENT without words.
 */
int ntfs_find(struct ntfs *n, ntfs_inode *dir, const struct ntfs_name *name, uint64_t *ret,
	      bool *ret_exact, struct error *err);

int ntfs_end_writing(struct ntfs *n, struct error *err);
int ntfs_files_create(struct files *f, uint64_t dir, const char *name,
		      const struct files_info *info, struct error *err);
int ntfs_files_write(struct files *f, const void *buf, size_t n, uint64_t offset,
		     struct error *err);
int ntfs_files_finish(struct files *f, const struct files_info *info, struct error *err);
int ntfs_files_discard(struct files *f, struct error *err);
int ntfs_files_mkdir(struct files *f, uint64_t dir, const char *name, const struct files_info *info,
		     uint64_t *ret, struct error *err);
int ntfs_files_symlink(struct files *f, uint64_t dir, const char *name, const char *target,
		       const struct files_info *info, struct error *err);
int ntfs_files_set_time(struct files *f, uint64_t id, const struct files_info *info,
			struct error *err);
#endif
