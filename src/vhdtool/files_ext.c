// SPDX-License-Identifier: MIT
/*
 * ext2, ext3 and ext4 through libext2fs, for reading; files_ext_write.c changes them. The library
 * reads blocks through an io_manager of ours. Runs in the reader (files_child.c). A journal that
 * was not replayed is left alone: the note says so, and there is no writing then.
 */
#include "vhdtool/files_ext.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct files_volume *opening; /* the library's open gets a name only */

int ext_error(struct error *err, errcode_t code, const char *what)
{
	if (code == EXT2_ET_FILE_NOT_FOUND)
		return error_set(err, -ENOENT, "%s: it is not there", what);
	if (code == EXT2_ET_BLOCK_ALLOC_FAIL || code == EXT2_ET_INODE_ALLOC_FAIL)
		return error_set(err, -ENOSPC, "%s: the file system in the image is full", what);
	if (code == EXT2_ET_NO_MEMORY || code == ENOMEM)
		return error_set(err, -ENOMEM, "%s: out of memory", what);
	return error_set(err, -EIO, "%s: %s", what, error_message(code));
}

/* --- the library's blocks --- */

static errcode_t io_open(const char *name, int flags, io_channel *ret)
{
	io_channel c = calloc(1, sizeof(*c));

	(void)flags;
	if (!c)
		return EXT2_ET_NO_MEMORY;
	c->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	c->manager = ext_io_manager();
	c->name = strdup(name);
	c->block_size = 1024;
	c->refcount = 1;
	c->private_data = opening;
	*ret = c;
	return 0;
}

static errcode_t io_close(io_channel c)
{
	if (--c->refcount > 0)
		return 0;
	free(c->name);
	free(c);
	return 0;
}

static errcode_t io_set_size(io_channel c, int size)
{
	c->block_size = size;
	return 0;
}

/* A negative count is in bytes. */
static bool io_range(io_channel c, unsigned long long block, int count, uint64_t *ret_offset,
		     size_t *ret_n)
{
	const struct files_volume *v = c->private_data;

	*ret_n = count < 0 ? -(size_t)count : (size_t)count * (size_t)c->block_size;
	return !mul_overflow(block, (uint64_t)c->block_size, ret_offset) &&
	       range_inside(*ret_offset, *ret_n, v->size);
}

static errcode_t io_read64(io_channel c, unsigned long long block, int count, void *data)
{
	struct files_volume *v = c->private_data;
	uint64_t offset;
	size_t n;

	if (!io_range(c, block, count, &offset, &n))
		return EXT2_ET_SHORT_READ;
	return v->read(v, data, n, offset) < 0 ? EIO : 0;
}

static errcode_t io_write64(io_channel c, unsigned long long block, int count, const void *data)
{
	struct files_volume *v = c->private_data;
	uint64_t offset;
	size_t n;

	if (!io_range(c, block, count, &offset, &n))
		return EXT2_ET_SHORT_WRITE;
	return v->write(v, data, n, offset) < 0 ? EIO : 0;
}

static errcode_t io_read(io_channel c, unsigned long block, int count, void *data)
{
	return io_read64(c, block, count, data);
}

static errcode_t io_write(io_channel c, unsigned long block, int count, const void *data)
{
	return io_write64(c, block, count, data);
}

static errcode_t io_write_byte(io_channel c, unsigned long offset, int count, const void *data)
{
	struct files_volume *v = c->private_data;

	if (count < 0 || !range_inside(offset, (size_t)count, v->size))
		return EXT2_ET_SHORT_WRITE;
	return v->write(v, data, (size_t)count, offset) < 0 ? EIO : 0;
}

static errcode_t io_flush(io_channel c)
{
	struct files_volume *v = c->private_data;

	return v->flush(v) < 0 ? EIO : 0;
}

io_manager ext_io_manager(void)
{
	static struct struct_io_manager manager = {
		.magic = EXT2_ET_MAGIC_IO_MANAGER,
		.name = "partita",
		.open = io_open,
		.close = io_close,
		.set_blksize = io_set_size,
		.read_blk = io_read,
		.write_blk = io_write,
		.flush = io_flush,
		.write_byte = io_write_byte,
		.read_blk64 = io_read64,
		.write_blk64 = io_write64,
	};

	return &manager;
}

/* --- opening --- */

static void look_at_state(struct ext *e)
{
	const struct ext2_super_block *s = e->fs->super;
	const char *what = NULL;

	if (ext2fs_has_feature_journal_needs_recovery(e->fs->super))
		what = "the journal was not replayed";
	else if (s->s_state & EXT2_ERROR_FS)
		what = "the file system is marked as damaged";
	else if (!(s->s_state & EXT2_VALID_FS))
		what = "the file system was not unmounted";
	else if (s->s_last_orphan || ext2fs_has_feature_orphan_present(e->fs->super))
		what = "the file system has files that were deleted while open";
	if (what)
		snprintf(e->files.note, sizeof(e->files.note),
			 "%s, and is read as it lies: what was written last may be missing", what);
}

static int ext_open(struct files_volume *v, struct files **ret, struct error *err)
{
	struct ext *e = calloc(1, sizeof(*e));
	int flags = EXT2_FLAG_64BITS | EXT2_FLAG_SKIP_MMP | (v->writable ? EXT2_FLAG_RW : 0);
	errcode_t code;

	if (!e)
		return error_set(err, -ENOMEM, "out of memory");
	e->files = (struct files){ .ops = &files_ext, .volume = v, .root = EXT2_ROOT_INO };
	*ret = &e->files;
	initialize_ext2_error_table();
	opening = v;
	code = ext2fs_open2("disk", NULL, flags, 0, 0, ext_io_manager(), &e->fs);
	if (code) {
		e->fs = NULL;
		return error_set(err, -EIO,
				 "the superblock (byte 1024 of the file system): %s; e2fsck knows "
				 "its copies, and `vhd mount --file` shows it the disk",
				 error_message(code));
	}
	look_at_state(e);
	return v->writable ? ext_check_writable(e, err) : 0;
}

static int ext_close(struct files *f, struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	int r;

	ext_forget_file(e);
	r = e->fs ? ext_end_writing(e, err) : 0;
	if (e->fs)
		ext2fs_free(e->fs);
	free(e);
	return r;
}

/* --- inodes --- */

int ext_read_inode(struct ext *e, uint64_t id, struct ext2_inode_large *ret, struct error *err)
{
	errcode_t code = EXT2_ET_BAD_INODE_NUM;
	char what[40];

	snprintf(what, sizeof(what), "inode %llu", (unsigned long long)id);
	if (id <= UINT32_MAX)
		code = ext2fs_read_inode_full(e->fs, (ext2_ino_t)id, (struct ext2_inode *)ret,
					      sizeof(*ret));
	return code ? ext_error(err, code, what) : 0;
}

/* Of an inode whose content has no meaning without a key. */
static int check_key(const struct ext2_inode_large *inode, struct error *err)
{
	if (inode->i_flags & EXT4_ENCRYPT_FL)
		return error_set(err, -ENOKEY, "it is encrypted");
	return 0;
}

static enum files_kind kind_of(unsigned mode)
{
	if (LINUX_S_ISREG(mode))
		return FILES_REGULAR;
	if (LINUX_S_ISDIR(mode))
		return FILES_FOLDER;
	return LINUX_S_ISLNK(mode) ? FILES_SYMLINK : FILES_OTHER;
}

static bool has_extra(const struct ext *e, const struct ext2_inode_large *i, size_t end)
{
	return EXT2_INODE_SIZE(e->fs->super) > EXT2_GOOD_OLD_INODE_SIZE &&
	       EXT2_GOOD_OLD_INODE_SIZE + (size_t)i->i_extra_isize >= end;
}

#define END_OF(field)                                                                              \
	(offsetof(struct ext2_inode_large, field) + sizeof(((struct ext2_inode_large *)0)->field))

/* Two bits of the extra field are the epoch (Linux: fs/ext4, documented as i_[acm]time_extra). */
void ext_set_mtime(const struct ext *e, struct ext2_inode_large *i, const struct files_info *info)
{
	i->i_mtime = (uint32_t)info->mtime;
	if (has_extra(e, i, END_OF(i_mtime_extra)))
		i->i_mtime_extra = info->mtime_ns << 2 |
				   ((uint32_t)((info->mtime - (int32_t)info->mtime) >> 32) & 3);
}

static int ext_stat(struct files *f, uint64_t id, struct files_info *ret, struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	struct ext2_inode_large i;
	int r = ext_read_inode(e, id, &i, err);

	if (r < 0)
		return r;
	if (!i.i_mode)
		return error_set(err, -EIO, "inode %llu is not in use", (unsigned long long)id);
	*ret = (struct files_info){
		.kind = kind_of(i.i_mode),
		.mode = i.i_mode & 07777,
		.size = EXT2_I_SIZE(&i),
		.mtime = (int32_t)i.i_mtime,
		.uid = i.i_uid | (uint32_t)i.osd2.linux2.l_i_uid_high << 16,
		.gid = i.i_gid | (uint32_t)i.osd2.linux2.l_i_gid_high << 16,
		.links = i.i_links_count,
	};
	if (has_extra(e, &i, END_OF(i_mtime_extra))) {
		ret->mtime += (int64_t)(i.i_mtime_extra & 3) << 32;
		ret->mtime_ns = MIN(i.i_mtime_extra >> 2, 999999999u);
	}
	return 0;
}

/* --- folders --- */

int ext_check_folder(struct ext *e, uint64_t id, struct error *err)
{
	struct ext2_inode_large i;
	int r = ext_read_inode(e, id, &i, err);

	if (r >= 0 && !LINUX_S_ISDIR(i.i_mode))
		r = error_set(err, -ENOTDIR, "inode %llu is no folder", (unsigned long long)id);
	return r < 0 ? r : check_key(&i, err);
}

static int ext_lookup(struct files *f, uint64_t dir, const char *name, uint64_t *ret,
		      struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	ext2_ino_t ino;
	errcode_t code;
	int r = ext_check_folder(e, dir, err);

	if (r < 0)
		return r;
	code = ext2fs_lookup(e->fs, (ext2_ino_t)dir, name, (int)strlen(name), NULL, &ino);
	if (code)
		return ext_error(err, code, "looking in the folder");
	*ret = ino;
	return 0;
}

struct listing {
	files_entry_fn *fn;
	void *context;
	int result;
};

static int on_entry(ext2_ino_t dir, int number, struct ext2_dir_entry *d, int offset,
		    int block_size, char *buf, void *context)
{
	struct listing *l = context;
	size_t n = (size_t)ext2fs_dirent_name_len(d);

	(void)dir;
	(void)number;
	(void)offset;
	(void)block_size;
	(void)buf;
	if (!n || (n <= 2 && !memcmp(d->name, "..", n)))
		return 0;
	l->result = l->fn(l->context, d->name, n, d->inode);
	return l->result < 0 ? DIRENT_ABORT : 0;
}

static int ext_list(struct files *f, uint64_t dir, files_entry_fn *fn, void *context,
		    struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	struct listing l = { fn, context, 0 };
	errcode_t code;
	int r = ext_check_folder(e, dir, err);

	if (r < 0)
		return r;
	code = ext2fs_dir_iterate2(e->fs, (ext2_ino_t)dir, 0, NULL, on_entry, &l);
	return code ? ext_error(err, code, "reading the folder") : l.result;
}

/* --- files --- */

void ext_forget_file(struct ext *e)
{
	if (e->extents)
		ext2fs_extent_free(e->extents);
	if (e->file)
		ext2fs_file_close(e->file);
	e->extents = NULL;
	e->file = NULL;
	e->file_id = 0;
}

static int open_file(struct ext *e, uint64_t id, struct error *err)
{
	errcode_t code;
	int r;

	if (e->file && e->file_id == id)
		return 0;
	ext_forget_file(e);
	r = ext_read_inode(e, id, &e->inode, err);
	if (r >= 0)
		r = check_key(&e->inode, err);
	if (r < 0)
		return r;
	if (!LINUX_S_ISREG(e->inode.i_mode) && !LINUX_S_ISLNK(e->inode.i_mode))
		return error_set(err, -EISDIR, "it is no file");
	if (e->inode.i_flags & EXT2_COMPRBLK_FL)
		return error_set(err, -ENOTSUP, "it is compressed (e2compr)");
	code = ext2fs_file_open(e->fs, (ext2_ino_t)id, 0, &e->file);
	if (code)
		return ext_error(err, code, "opening the file");
	e->file_id = id;
	if (e->inode.i_flags & EXT4_EXTENTS_FL) {
		code = ext2fs_extent_open2(e->fs, (ext2_ino_t)id, (struct ext2_inode *)&e->inode,
					   &e->extents);
		if (code)
			return ext_error(err, code, "its map of blocks");
	}
	return 0;
}

/* From block `at` on: how many blocks are alike. 0 = to the end. */
static uint64_t extent_at(struct ext *e, uint64_t at, bool *ret_hole)
{
	struct ext2_extent_info info;
	struct ext2fs_extent x;
	errcode_t code = ext2fs_extent_goto(e->extents, at);

	*ret_hole = false;
	if (code && code != EXT2_ET_EXTENT_NOT_FOUND)
		return 1;
	if (!ext2fs_extent_get_info(e->extents, &info) && !info.num_entries) {
		*ret_hole = true;
		return 0;
	}
	if (ext2fs_extent_get(e->extents, EXT2_EXTENT_CURRENT, &x))
		return 1;
	if (!code && x.e_lblk <= at && at - x.e_lblk < x.e_len) {
		*ret_hole = x.e_flags & EXT2_EXTENT_FLAGS_UNINIT;
		return x.e_len - (at - x.e_lblk);
	}
	*ret_hole = true;
	if (x.e_lblk > at)
		return x.e_lblk - at;
	code = ext2fs_extent_get(e->extents, EXT2_EXTENT_NEXT_LEAF, &x);
	if (code == EXT2_ET_EXTENT_NO_NEXT)
		return 0;
	*ret_hole = !code && x.e_lblk > at;
	return *ret_hole ? x.e_lblk - at : 1;
}

/* The same with a map of single blocks, of which it looks at some. */
static uint64_t blocks_at(struct ext *e, uint64_t at, uint64_t end, bool *ret_hole)
{
	uint64_t n = 0, most = MIN(end - at, 65536);
	blk64_t block = 0;

	for (; n < most; n++) {
		errcode_t code =
			ext2fs_bmap2(e->fs, (ext2_ino_t)e->file_id, (struct ext2_inode *)&e->inode,
				     NULL, 0, at + n, NULL, &block);

		if (!n)
			*ret_hole = !code && !block;
		if (code || (block != 0) == *ret_hole || (n && !*ret_hole && n >= 16))
			break;
	}
	return MAX(n, 1);
}

static int ext_read(struct files *f, uint64_t id, void *buf, size_t n, uint64_t offset,
		    struct files_piece *ret, struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	uint64_t size, block = e->fs->blocksize, alike = 1;
	unsigned got = 0;
	errcode_t code;
	int r = open_file(e, id, err);

	if (r < 0)
		return r;
	*ret = (struct files_piece){ 0 };
	size = EXT2_I_SIZE(&e->inode);
	if (offset >= size)
		return 0;
	if (e->inode.i_flags & EXT4_INLINE_DATA_FL)
		alike = size / block + 1;
	else if (e->extents)
		alike = extent_at(e, offset / block, &ret->hole);
	else
		alike = blocks_at(e, offset / block, (size - 1) / block + 1, &ret->hole);
	if (!alike || mul_overflow(alike + offset / block, block, &ret->length) ||
	    ret->length > size)
		ret->length = size;
	ret->length -= offset;
	if (ret->hole)
		return 0;
	ret->length = MIN(ret->length, n);
	code = ext2fs_file_llseek(e->file, offset, EXT2_SEEK_SET, NULL);
	if (!code)
		code = ext2fs_file_read(e->file, buf, (unsigned)ret->length, &got);
	if (code || got != ret->length) {
		char what[64];

		snprintf(what, sizeof(what), "byte %llu of the file", (unsigned long long)offset);
		return ext_error(err, code ? code : EXT2_ET_SHORT_READ, what);
	}
	return 0;
}

static int ext_readlink(struct files *f, uint64_t id, char ret[FILES_LINK_MAX], struct error *err)
{
	struct ext *e = container_of(f, struct ext, files);
	struct files_piece p;
	uint64_t size;
	int r = open_file(e, id, err);

	if (r < 0)
		return r;
	size = EXT2_I_SIZE(&e->inode);
	if (!LINUX_S_ISLNK(e->inode.i_mode) || !size || size >= FILES_LINK_MAX)
		return error_set(err, -EIO, "inode %llu is no symbolic link",
				 (unsigned long long)id);
	memset(ret, 0, FILES_LINK_MAX);
	if (ext2fs_is_fast_symlink((struct ext2_inode *)&e->inode)) {
		memcpy(ret, e->inode.i_block, MIN(size, sizeof(e->inode.i_block)));
		return 0;
	}
	r = ext_read(f, id, ret, size, 0, &p, err);
	if (r >= 0 && (p.hole || p.length != size))
		r = error_set(err, -EIO, "the symbolic link's target is not there");
	return r;
}

const struct files_ops files_ext = {
	.name = "ext2/3/4",
	.open = ext_open,
	.lookup = ext_lookup,
	.list = ext_list,
	.stat = ext_stat,
	.readlink = ext_readlink,
	.read = ext_read,
	.create = ext_create,
	.write = ext_write,
	.finish = ext_finish,
	.discard = ext_discard,
	.mkdir = ext_mkdir,
	.symlink = ext_symlink,
	.set_time = ext_set_time,
	.close = ext_close,
};
