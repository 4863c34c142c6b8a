// SPDX-License-Identifier: MIT
/*
 * NTFS through libntfs-3g, for reading; files_ntfs_write.c changes it. The library reads a device
 * of ours. Runs in the reader (files_child.c). The log is not replayed: when there is something in
 * it, or Windows hibernates, the note says so, and there is no writing then. Reparse points
 * (MS-FSCC 2.1.2) that are links are links; files that are stored through others are refused.
 */
#include "vhdtool/files_ntfs.h"

#include "lib/cleanup.h"
#include "lib/utf16.h"

#include <errno.h>
#include <fcntl.h>
#include <ntfs-3g/logfile.h>
#include <ntfs-3g/logging.h>
#include <ntfs-3g/reparse.h>
#include <string.h>

#define TAG_LINK     0xa000000cu
#define TAG_JUNCTION 0xa0000003u
#define TAG_LX_LINK  0xa000001du

int ntfs_error(struct error *err, const char *what)
{
	int code = errno ? errno : EIO;

	if (code == ENOSPC)
		return error_set(err, -ENOSPC, "%s: the file system in the image is full", what);
	return error_errno(err, -code, "%s", what);
}

/* --- the library's device --- */

static int device_open(struct ntfs_device *d, int flags)
{
	NDevSetOpen(d);
	if (!(flags & (O_RDWR | O_WRONLY)))
		NDevSetReadOnly(d);
	return 0;
}

static int device_sync(struct ntfs_device *d)
{
	struct ntfs *n = d->d_private;
	int r = NDevReadOnly(d) ? 0 : n->files.volume->flush(n->files.volume);

	if (r < 0) {
		errno = -r;
		return -1;
	}
	NDevClearDirty(d);
	return 0;
}

static int device_close(struct ntfs_device *d)
{
	NDevClearOpen(d);
	return device_sync(d);
}

static s64 device_seek(struct ntfs_device *d, s64 offset, int whence)
{
	struct ntfs *n = d->d_private;
	s64 base = whence == SEEK_CUR ? n->at : whence == SEEK_END ? (s64)n->files.volume->size : 0;

	if (add_overflow(base, offset, &base) || base < 0 || base > (s64)n->files.volume->size) {
		errno = EINVAL;
		return -1;
	}
	return n->at = base;
}

/* Like pread(2): less at the end of the volume. */
static s64 device_pread(struct ntfs_device *d, void *buf, s64 count, s64 offset)
{
	struct ntfs *n = d->d_private;
	struct files_volume *v = n->files.volume;
	int r;

	if (offset < 0 || count < 0) {
		errno = EINVAL;
		return -1;
	}
	if ((uint64_t)offset >= v->size)
		return 0;
	count = MIN(count, (s64)v->size - offset);
	r = v->read(v, buf, (size_t)count, (uint64_t)offset);
	if (r < 0)
		errno = -r;
	return r < 0 ? -1 : count;
}

static s64 device_pwrite(struct ntfs_device *d, const void *buf, s64 count, s64 offset)
{
	struct ntfs *n = d->d_private;
	struct files_volume *v = n->files.volume;
	int r;

	if (NDevReadOnly(d) || offset < 0 || count < 0 ||
	    !range_inside((uint64_t)offset, (uint64_t)count, v->size)) {
		errno = NDevReadOnly(d) ? EROFS : EINVAL;
		return -1;
	}
	NDevSetDirty(d);
	r = v->write(v, buf, (size_t)count, (uint64_t)offset);
	if (r < 0)
		errno = -r;
	return r < 0 ? -1 : count;
}

static s64 device_read(struct ntfs_device *d, void *buf, s64 count)
{
	struct ntfs *n = d->d_private;
	s64 got = device_pread(d, buf, count, n->at);

	n->at += MAX(got, 0);
	return got;
}

static s64 device_write(struct ntfs_device *d, const void *buf, s64 count)
{
	struct ntfs *n = d->d_private;
	s64 done = device_pwrite(d, buf, count, n->at);

	n->at += MAX(done, 0);
	return done;
}

static int device_stat(struct ntfs_device *d, struct stat *ret)
{
	const struct ntfs *n = d->d_private;

	*ret = (struct stat){ .st_mode = S_IFREG | 0600, .st_size = (off_t)n->files.volume->size };
	return 0;
}

static int device_ioctl(struct ntfs_device *d, unsigned long request, void *argument)
{
	(void)d;
	(void)request;
	(void)argument;
	errno = EOPNOTSUPP;
	return -1;
}

static struct ntfs_device_operations device_ops = {
	.open = device_open,
	.close = device_close,
	.seek = device_seek,
	.read = device_read,
	.write = device_write,
	.pread = device_pread,
	.pwrite = device_pwrite,
	.sync = device_sync,
	.stat = device_stat,
	.ioctl = device_ioctl,
};

/* --- opening --- */

static bool log_is_clean(struct ntfs *n)
{
	ntfs_inode *ni = ntfs_inode_open(n->volume, FILE_LogFile);
	ntfs_attr *na = ni ? ntfs_attr_open(ni, AT_DATA, AT_UNNAMED, 0) : NULL;
	RESTART_PAGE_HEADER *page = NULL;
	bool clean = na && ntfs_check_logfile(na, &page) && ntfs_is_logfile_clean(na, page);

	free(page);
	if (na)
		ntfs_attr_close(na);
	if (ni)
		ntfs_inode_close(ni);
	return clean;
}

static const char *why_unclean(struct ntfs *n)
{
	if (n->volume->flags & VOLUME_IS_DIRTY)
		return "the file system is marked as dirty";
	if (ntfs_volume_check_hiberfile(n->volume, 0) < 0)
		return "Windows hibernates on it, or was shut down by fast startup";
	return log_is_clean(n) ? NULL : "the log was not replayed";
}

static int mount_error(struct error *err)
{
	switch (errno) {
	case EPERM:
		return error_set(err, -EROFS,
				 "not written to: Windows hibernates on it, or was shut down by "
				 "fast startup; shut it down fully (shutdown /s /f /t 0)");
	case EOPNOTSUPP:
		return error_set(err, -EROFS,
				 "not written to: the log was not replayed; let Windows do it, or "
				 "ntfsfix through `vhd mount --device --writable`");
	case EINVAL:
		return error_set(err, -EIO,
				 "its boot sector (byte 0) or what it leads to is damaged; ntfsfix "
				 "knows the copy at the end, and `vhd mount --file` shows it the "
				 "disk");
	default:
		return ntfs_error(err, "its MFT or another file of its own is damaged");
	}
}

static int ntfs_files_open(struct files_volume *v, struct files **ret, struct error *err)
{
	struct ntfs *n = calloc(1, sizeof(*n));
	const char *why;

	if (!n)
		return error_set(err, -ENOMEM, "out of memory");
	n->files = (struct files){ .ops = &files_ntfs, .volume = v };
	*ret = &n->files;
	ntfs_log_set_handler(ntfs_log_handler_null);
	n->device = ntfs_device_alloc("disk", 0, &device_ops, n);
	if (!n->device)
		return error_set(err, -ENOMEM, "out of memory");
	errno = 0;
	n->volume = ntfs_device_mount(n->device, v->writable ? NTFS_MNT_NONE : NTFS_MNT_RDONLY);
	if (!n->volume)
		return mount_error(err);
	n->files.root = FILE_root;
	ntfs_set_shown_files(n->volume, FALSE, TRUE, FALSE);
	why = why_unclean(n);
	if (why && v->writable)
		return error_set(err, -EROFS, "not written to: %s; let Windows mend it (chkdsk)",
				 why);
	if (why)
		snprintf(n->files.note, sizeof(n->files.note),
			 "%s, and is read as it lies: what was written last may be missing", why);
	return 0;
}

static int ntfs_files_close(struct files *f, struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	int r = 0;

	ntfs_forget_file(n);
	if (n->volume) {
		r = ntfs_end_writing(n, err);
		if (ntfs_umount(n->volume, FALSE) < 0 && r >= 0)
			r = ntfs_error(err, "closing the file system");
	}
	free(n);
	return r;
}

/* --- names and inodes --- */

int ntfs_name_of(const char *name, struct ntfs_name *ret, struct error *err)
{
	size_t n = utf16_encode(name, ret->units, sizeof(ret->units), UTF16_LE);

	if (!n || n > sizeof(ret->units))
		return error_set(err, -EINVAL,
				 n ? "a name of more than 255 characters"
				   : "a name that is no UTF-8");
	ret->length = (int)(n / 2);
	return 0;
}

int ntfs_open_inode(struct ntfs *n, uint64_t id, bool folder, ntfs_inode **ret, struct error *err)
{
	ntfs_inode *ni;

	errno = 0;
	ni = ntfs_inode_open(n->volume, id);
	if (!ni)
		return ntfs_error(err, "its record in the MFT");
	if (folder && !(ni->mrec->flags & MFT_RECORD_IS_DIRECTORY)) {
		ntfs_inode_close(ni);
		return error_set(err, -ENOTDIR, "it is no folder");
	}
	*ret = ni;
	return 0;
}

int ntfs_find(struct ntfs *n, ntfs_inode *dir, const struct ntfs_name *name, uint64_t *ret,
	      bool *ret_exact, struct error *err)
{
	u64 found;
	bool exact = true;

	NVolSetCaseSensitive(n->volume);
	errno = 0;
	found = ntfs_inode_lookup_by_name(dir, name->units, name->length);
	if (found == (u64)-1 && errno == ENOENT) {
		exact = false;
		NVolClearCaseSensitive(n->volume);
		found = ntfs_inode_lookup_by_name(dir, name->units, name->length);
		NVolSetCaseSensitive(n->volume);
	}
	if (found == (u64)-1)
		return errno == ENOENT ? -ENOENT : ntfs_error(err, "looking in the folder");
	*ret = found;
	if (ret_exact)
		*ret_exact = exact;
	return 0;
}

static int ntfs_files_lookup(struct files *f, uint64_t dir, const char *name, uint64_t *ret,
			     struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	struct ntfs_name wanted;
	ntfs_inode *ni;
	int r = ntfs_name_of(name, &wanted, err);

	if (r >= 0)
		r = ntfs_open_inode(n, dir, true, &ni, err);
	if (r < 0)
		return r;
	r = ntfs_find(n, ni, &wanted, ret, NULL, err);
	ntfs_inode_close(ni);
	return r;
}

/* --- folders --- */

struct listing {
	files_entry_fn *fn;
	void *context;
	int result;
};

/* UTF-8, but with each lone surrogate as if it were a character: such names exist. */
static size_t encode_loosely(const ntfschar *units, int count, char *to)
{
	size_t at = 0;

	for (int i = 0; i < count; i++) {
		unsigned c = le16_to_cpu(units[i]);

		if (c < 0x80) {
			to[at++] = (char)c;
		} else if (c < 0x800) {
			to[at++] = (char)(0xc0 | c >> 6);
			to[at++] = (char)(0x80 | (c & 0x3f));
		} else {
			to[at++] = (char)(0xe0 | c >> 12);
			to[at++] = (char)(0x80 | (c >> 6 & 0x3f));
			to[at++] = (char)(0x80 | (c & 0x3f));
		}
	}
	return at;
}

static int on_entry(void *context, const ntfschar *name, const int length, const int type,
		    const s64 at, const MFT_REF id, const unsigned kind)
{
	struct listing *l = context;
	_cleanup_free_ char *text = NULL;
	char loose[3 * NTFS_NAME_MAX];
	size_t n;

	(void)at;
	(void)kind;
	if (type == FILE_NAME_DOS || length <= 0 || length > NTFS_NAME_MAX)
		return 0;
	text = utf16_decode(name, 2 * (size_t)length, UTF16_LE);
	n = text ? strlen(text) : encode_loosely(name, length, loose);
	if (text && (!strcmp(text, ".") || !strcmp(text, "..")))
		return 0;
	l->result = n ? l->fn(l->context, text ? text : loose, n, id) : 0;
	return l->result < 0 ? -1 : 0;
}

static int ntfs_files_list(struct files *f, uint64_t dir, files_entry_fn *fn, void *context,
			   struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	struct listing l = { fn, context, 0 };
	ntfs_inode *ni;
	s64 at = 0;
	int r = ntfs_open_inode(n, dir, true, &ni, err);

	if (r < 0)
		return r;
	errno = 0;
	r = ntfs_readdir(ni, &at, &l, on_entry);
	if (r && l.result >= 0)
		l.result = ntfs_error(err, "reading the folder");
	ntfs_inode_close(ni);
	return l.result;
}

/* --- reparse points --- */

/* 0 = none. */
static uint32_t tag_of(ntfs_inode *ni)
{
	_cleanup_free_ REPARSE_POINT *p = NULL;

	if (!(ni->flags & FILE_ATTR_REPARSE_POINT))
		return 0;
	p = ntfs_get_reparse_point(ni);
	return p ? le32_to_cpu(p->reparse_tag) : 1;
}

static bool is_link(uint32_t tag)
{
	return tag == TAG_LINK || tag == TAG_JUNCTION || tag == TAG_LX_LINK;
}

/* "\??\C:\Users" is /Users: the drive is taken to be this file system. */
static char *target_of(const uint8_t *names, size_t size, bool *ret_bad)
{
	char *text = utf16_decode(names, size, UTF16_LE), *from = text;

	*ret_bad = !text;
	if (!text)
		return NULL;
	if (!strncmp(from, "\\??\\", 4))
		from += 4;
	if (from[0] && from[1] == ':')
		from += 2;
	memmove(text, from, strlen(from) + 1);
	for (char *c = text; *c; c++)
		if (*c == '\\')
			*c = '/';
	return text;
}

/* `p` has `size` bytes of data behind its head of 8. MS-FSCC 2.1.2.4, 2.1.2.5. */
static int decode_link(const REPARSE_POINT *p, size_t size, char ret[FILES_LINK_MAX],
		       struct error *err)
{
	uint32_t tag = le32_to_cpu(p->reparse_tag);
	const uint8_t *d = p->reparse_data;
	_cleanup_free_ char *text = NULL;
	size_t head = tag == TAG_LINK ? 12 : 8, at, n;
	bool bad = false;

	if (tag == TAG_LX_LINK && size > 4) {
		text = strndup((const char *)d + 4, size - 4);
	} else if (tag != TAG_LX_LINK && size >= head) {
		at = (size_t)d[0] | (size_t)d[1] << 8;
		n = (size_t)d[2] | (size_t)d[3] << 8;
		if (range_inside(at, n, size - head))
			text = target_of(d + head + at, n, &bad);
	}
	if (!text || !*text || strlen(text) >= FILES_LINK_MAX)
		return error_set(err, -EIO, "its reparse point (tag %#x) is damaged", tag);
	strcpy(ret, text);
	return 0;
}

static int ntfs_files_readlink(struct files *f, uint64_t id, char ret[FILES_LINK_MAX],
			       struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	_cleanup_free_ REPARSE_POINT *p = NULL;
	s64 size = 0;
	ntfs_inode *ni;
	int r = ntfs_open_inode(n, id, false, &ni, err);

	if (r < 0)
		return r;
	p = ntfs_attr_readall(ni, AT_REPARSE_POINT, NULL, 0, &size);
	if (!p || size < (s64)sizeof(*p) || !is_link(le32_to_cpu(p->reparse_tag)))
		r = error_set(err, -EINVAL, "it is no symbolic link");
	else
		r = decode_link(p,
				MIN((size_t)size - sizeof(*p), le16_to_cpu(p->reparse_data_length)),
				ret, err);
	ntfs_inode_close(ni);
	return r;
}

/* --- files --- */

static int ntfs_files_stat(struct files *f, uint64_t id, struct files_info *ret, struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	struct timespec mtime;
	ntfs_inode *ni;
	int r = ntfs_open_inode(n, id, false, &ni, err);

	if (r < 0)
		return r;
	mtime = ntfs2timespec(ni->last_data_change_time);
	*ret = (struct files_info){
		.kind = FILES_REGULAR,
		.mode = FILES_NO_MODE,
		.mtime = mtime.tv_sec,
		.mtime_ns = (uint32_t)mtime.tv_nsec,
		.links = le16_to_cpu(ni->mrec->link_count),
	};
	if (is_link(tag_of(ni)))
		ret->kind = FILES_SYMLINK;
	else if (ni->mrec->flags & MFT_RECORD_IS_DIRECTORY)
		ret->kind = FILES_FOLDER;
	else
		ret->size = ni->data_size > 0 ? (uint64_t)ni->data_size : 0;
	ntfs_inode_close(ni);
	return 0;
}

void ntfs_forget_file(struct ntfs *n)
{
	if (n->data)
		ntfs_attr_close(n->data);
	if (n->file)
		ntfs_inode_close(n->file);
	n->data = NULL;
	n->file = NULL;
}

/* Data that is not simply there: compressed by the system, deduplicated, in a cloud. */
static int check_plain(struct ntfs *n, struct error *err)
{
	uint32_t tag = tag_of(n->file);

	if (tag)
		return error_set(err, -ENOTSUP,
				 "its data is stored through a reparse point (tag %#x%s), which "
				 "only Windows reads",
				 tag,
				 tag == 0x80000017   ? ", the system's compression"
				 : tag == 0x80000013 ? ", deduplication"
						     : "");
	if (n->data && NAttrEncrypted(n->data))
		return error_set(err, -ENOKEY, "it is encrypted (EFS)");
	return 0;
}

static int open_file(struct ntfs *n, uint64_t id, struct error *err)
{
	int r;

	if (n->file && n->file_id == id)
		return 0;
	ntfs_forget_file(n);
	r = ntfs_open_inode(n, id, false, &n->file, err);
	if (r < 0)
		return r;
	n->file_id = id;
	if (n->file->mrec->flags & MFT_RECORD_IS_DIRECTORY)
		r = error_set(err, -EISDIR, "it is a folder");
	errno = 0;
	if (r >= 0)
		n->data = ntfs_attr_open(n->file, AT_DATA, AT_UNNAMED, 0);
	if (r >= 0 && !n->data && errno != ENOENT)
		r = ntfs_error(err, "its data");
	if (r >= 0)
		r = check_plain(n, err);
	if (r < 0)
		ntfs_forget_file(n);
	return r;
}

/* Bytes from `offset` on that are a hole, or were never written; 0 = data. */
static uint64_t hole_at(struct ntfs *n, uint64_t offset, uint64_t size)
{
	ntfs_attr *na = n->data;
	uint64_t cluster = n->volume->cluster_size, end;
	runlist_element *rl;

	if (!NAttrNonResident(na) || NAttrCompressed(na))
		return 0;
	if (na->initialized_size >= 0 && offset >= (uint64_t)na->initialized_size)
		return size - offset;
	rl = ntfs_attr_find_vcn(na, (VCN)(offset / cluster));
	if (!rl || rl->lcn != LCN_HOLE || rl->length <= 0 || rl->vcn < 0 ||
	    mul_overflow((uint64_t)rl->vcn + (uint64_t)rl->length, cluster, &end) || end <= offset)
		return 0;
	return MIN(end, size) - offset;
}

static int ntfs_files_read(struct files *f, uint64_t id, void *buf, size_t count, uint64_t offset,
			   struct files_piece *ret, struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	uint64_t size;
	char what[64];
	s64 got;
	int r = open_file(n, id, err);

	if (r < 0)
		return r;
	*ret = (struct files_piece){ 0 };
	size = n->data && n->data->data_size > 0 ? (uint64_t)n->data->data_size : 0;
	if (offset >= size)
		return 0;
	ret->length = hole_at(n, offset, size);
	ret->hole = ret->length > 0;
	if (ret->hole)
		return 0;
	errno = 0;
	got = ntfs_attr_pread(n->data, (s64)offset, (s64)MIN(count, size - offset), buf);
	if (got > 0) {
		ret->length = (uint64_t)got;
		return 0;
	}
	snprintf(what, sizeof(what), "byte %llu of the file", (unsigned long long)offset);
	return ntfs_error(err, what);
}

const struct files_ops files_ntfs = {
	.name = "NTFS",
	.open = ntfs_files_open,
	.lookup = ntfs_files_lookup,
	.list = ntfs_files_list,
	.stat = ntfs_files_stat,
	.readlink = ntfs_files_readlink,
	.read = ntfs_files_read,
	.create = ntfs_files_create,
	.write = ntfs_files_write,
	.finish = ntfs_files_finish,
	.discard = ntfs_files_discard,
	.mkdir = ntfs_files_mkdir,
	.symlink = ntfs_files_symlink,
	.set_time = ntfs_files_set_time,
	.close = ntfs_files_close,
};
