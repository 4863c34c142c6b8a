// SPDX-License-Identifier: MIT
/*
 * Changing NTFS through libntfs-3g (see files_ntfs.c). The log is not written: before the first
 * change the volume is marked, durably, as dirty, and as clean after the last; Windows checks what
 * a cut leaves. A new file has a name of ours until all of it is there. It gets the security
 * descriptor of the file that it replaces, else that of its folder.
 */
#include "vhdtool/files_ntfs.h"

#include <errno.h>
#include <ntfs-3g/unistr.h>
#include <string.h>
#include <unistd.h>

static int begin(struct ntfs *n, struct error *err)
{
	if (n->failed)
		return error_set(err, -EIO, "an earlier change failed");
	if (n->started)
		return 0;
	ntfs_forget_file(n);
	errno = 0;
	if (ntfs_volume_write_flags(n->volume, n->volume->flags | VOLUME_IS_DIRTY) < 0 ||
	    ntfs_device_sync(n->device) < 0)
		return ntfs_error(err, "marking the file system as dirty");
	n->started = true;
	return 0;
}

int ntfs_end_writing(struct ntfs *n, struct error *err)
{
	if (!n->started)
		return 0;
	if (n->made)
		(void)ntfs_files_discard(&n->files, NULL);
	errno = 0;
	/* All other inodes are closed, and so written; these two the library keeps open. */
	if (ntfs_inode_sync(n->volume->mft_ni) < 0 || ntfs_inode_sync(n->volume->lcnbmp_ni) < 0 ||
	    ntfs_device_sync(n->device) < 0)
		n->failed = true;
	if (n->failed)
		return error_set(err, -EIO,
				 "the file system was not written whole and stays "
				 "marked as dirty; chkdsk or ntfsfix mend it");
	if (ntfs_volume_write_flags(n->volume, n->volume->flags & ~VOLUME_IS_DIRTY) < 0)
		return ntfs_error(err, "marking the file system as clean");
	return 0;
}

/* A change that went wrong half way. */
static int broken(struct ntfs *n, const char *what, struct error *err)
{
	if (errno != ENOSPC)
		n->failed = true;
	return ntfs_error(err, what);
}

/* The folder, and the name when Windows would take it. */
static int begin_in(struct ntfs *n, uint64_t dir, const char *name, struct ntfs_name *ret_name,
		    ntfs_inode **ret, struct error *err)
{
	int r = ntfs_name_of(name, ret_name, err);

	if (r < 0)
		return r;
	if (ntfs_forbidden_names(n->volume, ret_name->units, ret_name->length, TRUE))
		return error_set(err, -EINVAL,
				 "a name that Windows does not take (\\ : * ? \" < > |, a space or "
				 "full stop at the end, a device's)");
	r = begin(n, err);
	return r < 0 ? r : ntfs_open_inode(n, dir, true, ret, err);
}

static le32 security_of(ntfs_inode *ni)
{
	return test_nino_flag(ni, v3_Extensions) ? ni->security_id : const_cpu_to_le32(0);
}

static void set_mtime(ntfs_inode *ni, const struct files_info *info)
{
	const struct timespec t = { .tv_sec = info->mtime, .tv_nsec = info->mtime_ns };

	ni->last_data_change_time = timespec2ntfs(t);
	NInoFileNameSetDirty(ni);
	NInoSetDirty(ni);
}

static uint64_t id_of(ntfs_inode *ni)
{
	return MK_MREF(ni->mft_no, le16_to_cpu(ni->mrec->sequence_number));
}

/* --- files --- */

static ntfs_inode *steal_made(struct ntfs *n)
{
	ntfs_inode *ni = n->made;

	n->made = NULL;
	return ni;
}

/* What has the name now: may it be replaced, and whose rights does the new file get? */
static int look_at_old(struct ntfs *n, ntfs_inode *dir, const struct ntfs_name *name,
		       le32 *ret_security, struct error *err)
{
	ntfs_inode *old;
	uint64_t id;
	bool exact;
	int r = ntfs_find(n, dir, name, &id, &exact, err);

	*ret_security = security_of(dir);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!exact)
		return error_set(err, -EEXIST,
				 "there is a file whose name differs in upper and lower case only; "
				 "write it like that");
	r = ntfs_open_inode(n, id, false, &old, err);
	if (r < 0)
		return r;
	*ret_security = security_of(old);
	ntfs_inode_close(old);
	return 0;
}

int ntfs_files_create(struct files *f, uint64_t dir, const char *name,
		      const struct files_info *info, struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	char temporary[40];
	ntfs_inode *folder;
	le32 security;
	int r;

	(void)info;
	if (n->made)
		return error_set(err, -EINVAL, "another file is not finished");
	r = begin_in(n, dir, name, &n->made_name, &folder, err);
	if (r < 0)
		return r;
	r = look_at_old(n, folder, &n->made_name, &security, err);
	if (r < 0) {
		ntfs_inode_close(folder);
		return r;
	}
	snprintf(temporary, sizeof(temporary), "vhd-cp.%d.partial", (int)getpid());
	(void)ntfs_name_of(temporary, &n->temporary, NULL);
	errno = 0;
	n->made =
		ntfs_create(folder, security, n->temporary.units, (u8)n->temporary.length, S_IFREG);
	n->made_in = dir;
	if (!n->made)
		r = broken(n, "making a file", err);
	ntfs_inode_close(folder);
	if (r < 0)
		return r;
	n->made_data = ntfs_attr_open(n->made, AT_DATA, AT_UNNAMED, 0);
	if (n->made_data)
		return 0;
	r = ntfs_error(err, "opening the new file");
	(void)ntfs_files_discard(f, NULL);
	return r;
}

int ntfs_files_write(struct files *f, const void *buf, size_t count, uint64_t offset,
		     struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	const uint8_t *from = buf;

	if (!n->made_data)
		return error_set(err, -EINVAL, "no file is being made");
	while (count) {
		s64 done;

		errno = 0;
		done = ntfs_attr_pwrite(n->made_data, (s64)offset, (s64)count, from);
		if (done <= 0)
			return ntfs_error(err, "writing the file");
		from += done;
		offset += (uint64_t)done;
		count -= (size_t)done;
	}
	return 0;
}

/* Takes a name away, and with its last one the file; both inodes are closed then. */
static int remove_name(struct ntfs *n, ntfs_inode *ni, uint64_t dir, const struct ntfs_name *name,
		       struct error *err)
{
	ntfs_inode *folder;
	int r = ntfs_open_inode(n, dir, true, &folder, err);

	if (r < 0) {
		ntfs_inode_close(ni);
		return r;
	}
	errno = 0;
	if (ntfs_delete(n->volume, NULL, ni, folder, name->units, (u8)name->length) < 0)
		return broken(n, "removing a name", err);
	return 0;
}

/* Makes the name free, by taking it from a file. */
static int drop_old(struct ntfs *n, struct error *err)
{
	ntfs_inode *folder, *old;
	uint64_t id;
	int r = ntfs_open_inode(n, n->made_in, true, &folder, err);

	if (r < 0)
		return r;
	r = ntfs_find(n, folder, &n->made_name, &id, NULL, err);
	ntfs_inode_close(folder);
	if (r == -ENOENT)
		return 0;
	if (r >= 0)
		r = ntfs_open_inode(n, id, false, &old, err);
	if (r < 0)
		return r;
	if (old->mrec->flags & MFT_RECORD_IS_DIRECTORY) {
		ntfs_inode_close(old);
		return error_set(err, -EISDIR, "a folder has that name");
	}
	return remove_name(n, old, n->made_in, &n->made_name, err);
}

static int close_data(struct ntfs *n, const struct files_info *info, struct error *err)
{
	int r = 0;

	errno = 0;
	if (info && n->made_data->data_size != (s64)info->size &&
	    ntfs_attr_truncate(n->made_data, (s64)info->size) < 0)
		r = ntfs_error(err, "setting the size of the file");
	if (n->made_data)
		ntfs_attr_close(n->made_data);
	n->made_data = NULL;
	return r;
}

int ntfs_files_finish(struct files *f, const struct files_info *info, struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	ntfs_inode *folder;
	int r;

	if (!n->made_data)
		return error_set(err, -EINVAL, "no file is being made");
	r = close_data(n, info, err);
	if (r >= 0)
		r = drop_old(n, err);
	if (r >= 0)
		r = ntfs_open_inode(n, n->made_in, true, &folder, err);
	if (r < 0)
		return r;
	errno = 0;
	if (ntfs_link(n->made, folder, n->made_name.units, (u8)n->made_name.length) < 0)
		r = ntfs_error(err, "giving the file its name");
	ntfs_inode_close(folder);
	if (r < 0)
		return r;
	set_mtime(n->made, info);
	return remove_name(n, steal_made(n), n->made_in, &n->temporary, err);
}

int ntfs_files_discard(struct files *f, struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);

	if (!n->made)
		return 0;
	if (n->made_data)
		(void)close_data(n, NULL, NULL);
	return remove_name(n, steal_made(n), n->made_in, &n->temporary, err);
}

/* --- folders, times --- */

int ntfs_files_mkdir(struct files *f, uint64_t dir, const char *name, const struct files_info *info,
		     uint64_t *ret, struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	struct ntfs_name made;
	ntfs_inode *folder, *ni;
	int r = begin_in(n, dir, name, &made, &folder, err);

	if (r < 0)
		return r;
	errno = 0;
	ni = ntfs_create(folder, security_of(folder), made.units, (u8)made.length, S_IFDIR);
	if (!ni)
		r = broken(n, "making a folder", err);
	ntfs_inode_close(folder);
	if (r < 0)
		return r;
	set_mtime(ni, info);
	*ret = id_of(ni);
	return ntfs_inode_close(ni) < 0 ? broken(n, "making a folder", err) : 0;
}

int ntfs_files_symlink(struct files *f, uint64_t dir, const char *name, const char *target,
		       const struct files_info *info, struct error *err)
{
	(void)f;
	(void)dir;
	(void)name;
	(void)target;
	(void)info;
	return error_set(err, -ENOTSUP,
			 "symbolic links are not made on NTFS; copy what it leads to");
}

int ntfs_files_set_time(struct files *f, uint64_t id, const struct files_info *info,
			struct error *err)
{
	struct ntfs *n = container_of(f, struct ntfs, files);
	ntfs_inode *ni;
	int r = begin(n, err);

	if (r >= 0)
		r = ntfs_open_inode(n, id, false, &ni, err);
	if (r < 0)
		return r;
	set_mtime(ni, info);
	errno = 0;
	return ntfs_inode_close(ni) < 0 ? broken(n, "setting a time", err) : 0;
}
