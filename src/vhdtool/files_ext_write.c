// SPDX-License-Identifier: MIT
/*
 * Changing ext2, ext3 and ext4 through libext2fs (see files_ext.c). There is no journal in this:
 * before the first change the superblock says, durably, that the file system is not clean, and
 * after the last one that it is. A cut between the two leaves work for e2fsck, which the guest then
 * does by itself. A new file has no name before all of it is there.
 */
#include "vhdtool/files_ext.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* What libext2fs keeps right when it writes. Quotas, for one, it does not count. */
#define COMPAT                                                                                     \
	(EXT2_FEATURE_COMPAT_DIR_PREALLOC | EXT3_FEATURE_COMPAT_HAS_JOURNAL |                      \
	 EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_RESIZE_INODE |                         \
	 EXT2_FEATURE_COMPAT_DIR_INDEX | EXT4_FEATURE_COMPAT_SPARSE_SUPER2 |                       \
	 EXT4_FEATURE_COMPAT_FAST_COMMIT | EXT4_FEATURE_COMPAT_ORPHAN_FILE)
#define RO_COMPAT                                                                                  \
	(EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |                 \
	 EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_GDT_CSUM |                      \
	 EXT4_FEATURE_RO_COMPAT_DIR_NLINK | EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |                   \
	 EXT4_FEATURE_RO_COMPAT_METADATA_CSUM)
#define INCOMPAT                                                                                   \
	(EXT2_FEATURE_INCOMPAT_FILETYPE | EXT2_FEATURE_INCOMPAT_META_BG |                          \
	 EXT3_FEATURE_INCOMPAT_EXTENTS | EXT4_FEATURE_INCOMPAT_64BIT |                             \
	 EXT4_FEATURE_INCOMPAT_FLEX_BG | EXT4_FEATURE_INCOMPAT_CSUM_SEED |                         \
	 EXT4_FEATURE_INCOMPAT_LARGEDIR | EXT4_FEATURE_INCOMPAT_INLINE_DATA)

#define LINKS_MAX 65000u /* of a folder: more is counted in another way */

static int refuse(struct error *err, const char *why)
{
	return error_set(err, -EROFS,
			 "not written to: %s; `vhd mount --writable` lets the kernel "
			 "do it",
			 why);
}

static const char *odd_name(bool ro, unsigned bits)
{
	static const struct {
		bool ro;
		unsigned bit;
		const char *name;
	} names[] = {
		{ true, EXT4_FEATURE_RO_COMPAT_QUOTA, "quota" },
		{ true, EXT4_FEATURE_RO_COMPAT_PROJECT, "project" },
		{ true, EXT4_FEATURE_RO_COMPAT_BIGALLOC, "bigalloc" },
		{ true, EXT4_FEATURE_RO_COMPAT_VERITY, "verity" },
		{ true, EXT4_FEATURE_RO_COMPAT_READONLY, "read-only" },
		{ true, EXT4_FEATURE_RO_COMPAT_SHARED_BLOCKS, "shared_blocks" },
		{ false, EXT4_FEATURE_INCOMPAT_MMP, "mmp" },
		{ false, EXT4_FEATURE_INCOMPAT_EA_INODE, "ea_inode" },
		{ false, EXT4_FEATURE_INCOMPAT_ENCRYPT, "encrypt" },
		{ false, EXT4_FEATURE_INCOMPAT_CASEFOLD, "casefold" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].ro == ro && (names[i].bit & bits))
			return names[i].name;
	return "that is not known here";
}

int ext_check_writable(struct ext *e, struct error *err)
{
	const struct ext2_super_block *s = e->fs->super;
	unsigned odd_compat = s->s_feature_compat & ~COMPAT;
	unsigned odd_ro = s->s_feature_ro_compat & ~RO_COMPAT;
	unsigned odd_incompat = s->s_feature_incompat & ~INCOMPAT;
	char text[120];

	if (e->files.note[0]) {
		size_t n = strcspn(e->files.note, ",");

		snprintf(text, sizeof(text), "%.*s", (int)n, e->files.note);
		e->files.note[0] = 0;
		return error_set(
			err, -EROFS,
			"not written to: %s; its guest mends that when it starts, or e2fsck "
			"on `vhd mount --device --writable`",
			text);
	}
	if (!odd_compat && !odd_ro && !odd_incompat)
		return 0;
	snprintf(text, sizeof(text), "it has the feature %s",
		 odd_ro ? odd_name(true, odd_ro) : odd_name(false, odd_incompat));
	return refuse(err, text);
}

/* --- the frame around all changes --- */

static int begin(struct ext *e, struct error *err)
{
	errcode_t code;

	if (e->failed)
		return error_set(err, -EIO, "an earlier change failed");
	if (e->started)
		return 0;
	ext_forget_file(e);
	code = ext2fs_read_bitmaps(e->fs);
	if (code)
		return ext_error(err, code, "the bitmaps");
	e->started = true;
	e->fs->super->s_state &= (uint16_t)~EXT2_VALID_FS;
	e->fs->flags &= ~EXT2_FLAG_VALID;
	ext2fs_mark_super_dirty(e->fs);
	code = ext2fs_flush(e->fs);
	e->failed = code != 0;
	return code ? ext_error(err, code, "the superblock") : 0;
}

int ext_end_writing(struct ext *e, struct error *err)
{
	errcode_t code;

	if (!e->started)
		return 0;
	if (e->made)
		(void)ext_discard(&e->files, NULL);
	code = ext2fs_flush(e->fs);
	if (!code && !e->failed) {
		e->fs->super->s_state |= EXT2_VALID_FS;
		ext2fs_mark_super_dirty(e->fs);
		code = ext2fs_flush(e->fs);
	}
	if (code)
		return ext_error(err, code,
				 "the file system could not be written whole; "
				 "e2fsck mends it");
	return e->failed ? error_set(err, -EIO,
				     "the file system was not written whole; e2fsck "
				     "mends it")
			 : 0;
}

/* A change that went wrong half way: e2fsck has to look. */
static int broken(struct ext *e, errcode_t code, const char *what, struct error *err)
{
	if (code != EXT2_ET_BLOCK_ALLOC_FAIL && code != EXT2_ET_INODE_ALLOC_FAIL)
		e->failed = true;
	return ext_error(err, code, what);
}

/* --- inodes --- */

static errcode_t put_inode(struct ext *e, ext2_ino_t ino, const struct files_info *info)
{
	struct ext2_inode_large i;
	errcode_t code = ext2fs_read_inode_full(e->fs, ino, (struct ext2_inode *)&i, sizeof(i));

	if (code)
		return code;
	if (info->mode != FILES_NO_MODE)
		i.i_mode = (uint16_t)((i.i_mode & LINUX_S_IFMT) | (info->mode & 07777));
	i.i_uid = (uint16_t)info->uid;
	i.osd2.linux2.l_i_uid_high = (uint16_t)(info->uid >> 16);
	i.i_gid = (uint16_t)info->gid;
	i.osd2.linux2.l_i_gid_high = (uint16_t)(info->gid >> 16);
	ext_set_mtime(e, &i, info);
	return ext2fs_write_inode_full(e->fs, ino, (struct ext2_inode *)&i, sizeof(i));
}

static errcode_t touch(struct ext *e, ext2_ino_t dir)
{
	struct ext2_inode i;
	errcode_t code = ext2fs_read_inode(e->fs, dir, &i);

	i.i_mtime = i.i_ctime = (uint32_t)time(NULL);
	return code ? code : ext2fs_write_inode(e->fs, dir, &i);
}

static int free_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t count, blk64_t ref, int offset,
		      void *context)
{
	(void)count;
	(void)ref;
	(void)offset;
	(void)context;
	if (*block < fs->super->s_first_data_block || *block >= ext2fs_blocks_count(fs->super))
		return BLOCK_ABORT;
	ext2fs_block_alloc_stats2(fs, *block, -1);
	return 0;
}

/*
 * Gives back blocks and inode of what has no name. Not with ext2fs_punch: that of 1.47.0 refuses a
 * stretch that ends with the last block of the file system.
 */
static errcode_t free_inode(struct ext *e, ext2_ino_t ino)
{
	struct ext2_inode_large i;
	struct ext2_inode *small = (struct ext2_inode *)&i;
	errcode_t code = ext2fs_read_inode_full(e->fs, ino, small, sizeof(i));

	if (!code)
		code = ext2fs_free_ext_attr(e->fs, ino, &i);
	if (!code && ext2fs_inode_has_valid_blocks2(e->fs, small)) {
		code = ext2fs_block_iterate3(e->fs, ino, BLOCK_FLAG_READ_ONLY, NULL, free_block,
					     NULL);
		memset(i.i_block, 0, sizeof(i.i_block));
		i.i_blocks = 0;
		i.osd2.linux2.l_i_blocks_hi = 0;
	}
	if (code)
		return code;
	i.i_flags = 0;
	i.i_size = i.i_size_high = 0;
	i.i_links_count = 0;
	i.i_dtime = (uint32_t)time(NULL);
	code = ext2fs_write_inode_full(e->fs, ino, small, sizeof(i));
	if (!code)
		ext2fs_inode_alloc_stats2(e->fs, ino, -1, 0);
	return code;
}

static errcode_t add_name(struct ext *e, ext2_ino_t dir, const char *name, ext2_ino_t ino, int type)
{
	errcode_t code = ext2fs_link(e->fs, dir, name, ino, type);

	if (code == EXT2_ET_DIR_NO_SPACE) {
		code = ext2fs_expand_dir(e->fs, dir);
		if (!code)
			code = ext2fs_link(e->fs, dir, name, ino, type);
	}
	return code;
}

/* Takes the name away from what had it. */
static errcode_t drop_old(struct ext *e, ext2_ino_t dir, const char *name, ext2_ino_t old)
{
	struct ext2_inode i;
	errcode_t code = ext2fs_unlink(e->fs, dir, name, old, 0);

	if (!code)
		code = ext2fs_read_inode(e->fs, old, &i);
	if (code)
		return code;
	if (i.i_links_count <= 1)
		return free_inode(e, old);
	i.i_links_count--;
	i.i_ctime = (uint32_t)time(NULL);
	return ext2fs_write_inode(e->fs, old, &i);
}

/* --- files --- */

static int check_name(const char *name, struct error *err)
{
	size_t n = strlen(name);

	if (!n || n > EXT2_NAME_LEN || strchr(name, '/') || !strcmp(name, ".") ||
	    !strcmp(name, ".."))
		return error_set(err, -EINVAL, "a name of %zu bytes that ext has not", n);
	return 0;
}

static int begin_in(struct ext *e, uint64_t dir, const char *name, struct error *err)
{
	struct ext2_inode_large i;
	int r = check_name(name, err);

	if (r >= 0)
		r = ext_check_folder(e, dir, err);
	if (r >= 0)
		r = ext_read_inode(e, dir, &i, err);
	if (r >= 0 && (i.i_flags & EXT4_CASEFOLD_FL))
		r = refuse(err, "upper and lower case are one in the folder");
	return r < 0 ? r : begin(e, err);
}

static errcode_t make_inode(struct ext *e, ext2_ino_t dir, ext2_ino_t *ret)
{
	struct ext2_inode i = { 0 };
	ext2_extent_handle_t extents;
	errcode_t code = ext2fs_new_inode(e->fs, dir, LINUX_S_IFREG | 0600, NULL, ret);

	if (code)
		return code;
	i.i_mode = LINUX_S_IFREG | 0600;
	i.i_links_count = 1;
	i.i_atime = i.i_ctime = i.i_mtime = (uint32_t)time(NULL);
	if (ext2fs_has_feature_extents(e->fs->super)) {
		i.i_flags = EXT4_EXTENTS_FL;
		code = ext2fs_extent_open2(e->fs, *ret, &i, &extents);
		if (code)
			return code;
		ext2fs_extent_free(extents);
	}
	code = ext2fs_write_new_inode(e->fs, *ret, &i);
	if (!code)
		ext2fs_inode_alloc_stats2(e->fs, *ret, 1, 0);
	return code;
}

int ext_create(struct files *f, uint64_t dir, const char *name, const struct files_info *info,
	       struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	ext2_ino_t ino;
	errcode_t code;
	int r;

	(void)info;
	if (e->made)
		return error_set(err, -EINVAL, "another file is not finished");
	r = begin_in(e, dir, name, err);
	if (r < 0)
		return r;
	code = make_inode(e, (ext2_ino_t)dir, &ino);
	if (code)
		return broken(e, code, "making a file", err);
	e->made = ino;
	e->made_in = (ext2_ino_t)dir;
	strcpy(e->made_name, name);
	code = ext2fs_file_open(e->fs, ino, EXT2_FILE_WRITE, &e->made_file);
	if (code) {
		e->made_file = NULL;
		broken(e, code, "opening the new file", err);
		(void)ext_discard(f, NULL);
		return err ? err->code : -EIO;
	}
	return 0;
}

int ext_write(struct files *f, const void *buf, size_t n, uint64_t offset, struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	unsigned done = 0;
	errcode_t code;

	if (!e->made_file)
		return error_set(err, -EINVAL, "no file is being made");
	code = ext2fs_file_llseek(e->made_file, offset, EXT2_SEEK_SET, NULL);
	if (!code)
		code = ext2fs_file_write(e->made_file, buf, (unsigned)n, &done);
	if (!code && done != n)
		code = EXT2_ET_SHORT_WRITE;
	return code ? ext_error(err, code, "writing the file") : 0;
}

static errcode_t close_made(struct ext *e, const struct files_info *info)
{
	errcode_t code = 0, closed;

	if (info)
		code = ext2fs_file_set_size2(e->made_file, (ext2_off64_t)info->size);
	closed = ext2fs_file_close(e->made_file);
	e->made_file = NULL;
	return code ? code : closed;
}

int ext_finish(struct files *f, const struct files_info *info, struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	ext2_ino_t old = 0;
	errcode_t code;

	if (!e->made_file)
		return error_set(err, -EINVAL, "no file is being made");
	code = close_made(e, info);
	if (!code)
		code = put_inode(e, e->made, info);
	if (!code &&
	    ext2fs_lookup(e->fs, e->made_in, e->made_name, (int)strlen(e->made_name), NULL, &old))
		old = 0;
	if (!code && old && ext2fs_check_directory(e->fs, old) == 0)
		return error_set(err, -EISDIR, "a folder has that name");
	if (!code)
		code = add_name(e, e->made_in, e->made_name, e->made, EXT2_FT_REG_FILE);
	if (code)
		return ext_error(err, code, "finishing the file");
	e->made = 0;
	if (old)
		code = drop_old(e, e->made_in, e->made_name, old);
	if (!code)
		code = touch(e, e->made_in);
	return code ? broken(e, code, "taking the old file away", err) : 0;
}

int ext_discard(struct files *f, struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	ext2_ino_t ino = e->made;
	errcode_t code;

	if (!ino)
		return 0;
	if (e->made_file)
		(void)close_made(e, NULL);
	e->made = 0;
	code = free_inode(e, ino);
	return code ? broken(e, code, "removing the unfinished file", err) : 0;
}

/* --- folders, links, times --- */

int ext_mkdir(struct files *f, uint64_t dir, const char *name, const struct files_info *info,
	      uint64_t *ret, struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	struct ext2_inode_large i;
	ext2_ino_t ino;
	errcode_t code;
	int r = begin_in(e, dir, name, err);

	if (r >= 0)
		r = ext_read_inode(e, dir, &i, err);
	if (r < 0)
		return r;
	if (i.i_links_count + 1u >= LINKS_MAX)
		return error_set(err, -EMLINK, "the folder has %u folders", i.i_links_count);
	code = ext2fs_mkdir(e->fs, (ext2_ino_t)dir, 0, name);
	if (code == EXT2_ET_DIR_NO_SPACE) {
		code = ext2fs_expand_dir(e->fs, (ext2_ino_t)dir);
		if (!code)
			code = ext2fs_mkdir(e->fs, (ext2_ino_t)dir, 0, name);
	}
	if (code)
		return broken(e, code, "making a folder", err);
	code = ext2fs_lookup(e->fs, (ext2_ino_t)dir, name, (int)strlen(name), NULL, &ino);
	if (!code)
		code = put_inode(e, ino, info);
	if (!code)
		code = touch(e, (ext2_ino_t)dir);
	if (code)
		return broken(e, code, "making a folder", err);
	*ret = ino;
	return 0;
}

int ext_symlink(struct files *f, uint64_t dir, const char *name, const char *target,
		const struct files_info *info, struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	struct files_info own = *info;
	ext2_ino_t ino;
	errcode_t code;
	int r = begin_in(e, dir, name, err);

	if (r < 0)
		return r;
	if (!*target || strlen(target) >= e->fs->blocksize)
		return error_set(err, -ENAMETOOLONG, "a target of %zu bytes", strlen(target));
	code = ext2fs_symlink(e->fs, (ext2_ino_t)dir, 0, name, target);
	if (code == EXT2_ET_DIR_NO_SPACE) {
		code = ext2fs_expand_dir(e->fs, (ext2_ino_t)dir);
		if (!code)
			code = ext2fs_symlink(e->fs, (ext2_ino_t)dir, 0, name, target);
	}
	own.mode = FILES_NO_MODE;
	if (!code)
		code = ext2fs_lookup(e->fs, (ext2_ino_t)dir, name, (int)strlen(name), NULL, &ino);
	if (!code)
		code = put_inode(e, ino, &own);
	if (!code)
		code = touch(e, (ext2_ino_t)dir);
	return code ? broken(e, code, "making a symbolic link", err) : 0;
}

int ext_set_time(struct files *f, uint64_t id, const struct files_info *info, struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	struct ext2_inode_large i;
	errcode_t code;
	int r = begin(e, err);

	if (r >= 0)
		r = ext_read_inode(e, id, &i, err);
	if (r < 0)
		return r;
	ext_set_mtime(e, &i, info);
	code = ext2fs_write_inode_full(e->fs, (ext2_ino_t)id, (struct ext2_inode *)&i, sizeof(i));
	return code ? broken(e, code, "setting a time", err) : 0;
}
