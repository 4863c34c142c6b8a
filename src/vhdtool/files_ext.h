/* SPDX-License-Identifier: MIT */
/* What the halves of the ext implementation share: files_ext.c reads, files_ext_write.c changes. */
#pragma once

#include "vhdtool/files.h"

#if __has_include(<ext2fs/ext2fs.h>)
#include <ext2fs/ext2fs.h>

struct ext {
	struct files files;
	ext2_filsys fs;
	/* the file that was read last */
	uint64_t file_id;
	ext2_file_t file;
	ext2_extent_handle_t extents; /* NULL: it has a map of blocks, or its data in the inode */
	struct ext2_inode_large inode;
	/* writing */
	bool started, failed;
	ext2_ino_t made, made_in; /* the file between create and finish; 0 = none */
	ext2_file_t made_file;
	char made_name[EXT2_NAME_LEN + 1];
};

int ext_error(struct error *err, errcode_t code, const char *what);
io_manager ext_io_manager(void);
int ext_read_inode(struct ext *e, uint64_t id, struct ext2_inode_large *ret, struct error *err);
int ext_check_folder(struct ext *e, uint64_t id, struct error *err);
void ext_set_mtime(const struct ext *e, struct ext2_inode_large *i, const struct files_info *info);
void ext_forget_file(struct ext *e);

/* -EROFS with words when what writes must not be done to is found. */
int ext_check_writable(struct ext *e, struct error *err);
/* Makes all durable, and says last that the file system is clean. */
int ext_end_writing(struct ext *e, struct error *err);
int ext_create(struct files *f, uint64_t dir, const char *name, const struct files_info *info,
	       struct error *err);
int ext_write(struct files *f, const void *buf, size_t n, uint64_t offset, struct error *err);
int ext_finish(struct files *f, const struct files_info *info, struct error *err);
int ext_discard(struct files *f, struct error *err);
int ext_mkdir(struct files *f, uint64_t dir, const char *name, const struct files_info *info,
	      uint64_t *ret, struct error *err);
int ext_symlink(struct files *f, uint64_t dir, const char *name, const char *target,
		const struct files_info *info, struct error *err);
int ext_set_time(struct files *f, uint64_t id, const struct files_info *info, struct error *err);
#endif
