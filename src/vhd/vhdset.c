// SPDX-License-Identifier: MIT
/*
 * Sets, as docs/vhd-set.md describes them. The head of the file never changes; its slots are
 * reserve_file.c's.
 *
 * Opening is one opener's at a time (byte GATE of the set). The first of those who have it open
 * (byte USERS) is alone with the image for a moment: it closes what a crash left open, gives a
 * VHDX new write identities, and only then lets others in. Until the last one has gone nobody
 * touches anything in the image but data.
 */
#include "vhd/vhdset.h"

#include "lib/cleanup.h"
#include "lib/crc32c.h"
#include "lib/cursor.h"
#include "vhd/flat.h"
#include "vhd/image.h"
#include "vhd/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define SET_SIGNATURE UINT64_C(0x7465736468767470) /* VHDSET_SIGNATURE */
#define SET_VERSION   1u
#define LOCK_GATE     (INT64_C(1) << 58)
#define LOCK_USERS    (LOCK_GATE + 1)

struct vhdset {
	int fd, image_fd; /* image_fd: another one of the disk's open file */
	struct disk *disk;
	struct reserve_file *reservations;
};

/* --- the head --- */

/*
 *     u64 signature, u32 version, u32 checksum (itself 0), u8[16] id, u32 format, u32 name's length
 *     u8[16] image's id, u64 image's size, name, zeros to the end
 */
static uint32_t head_sum(const void *bytes)
{
	static const uint8_t none[4];
	const uint8_t *b = bytes;

	return crc32c(crc32c(crc32c(0, b, 12), none, 4), b + 16, VHDSET_HEAD - 16);
}

/* A name, not a path: what the set says must not lead out of its folder. */
static bool name_valid(const char *name, size_t length)
{
	return length && length <= VHDSET_NAME_MAX && !memchr(name, 0, length) &&
	       !memchr(name, '/', length) && strcmp(name, ".") && strcmp(name, "..");
}

static void head_encode(const struct vhdset_info *i, void *bytes)
{
	struct writer w = writer_of(bytes, VHDSET_HEAD);
	size_t length = strlen(i->image);
	le32 sum;

	writer_le64(&w, SET_SIGNATURE);
	writer_le32(&w, SET_VERSION);
	writer_le32(&w, 0);
	writer_put(&w, &i->id, 16);
	writer_le32(&w, i->format);
	writer_le32(&w, (uint32_t)length);
	writer_put(&w, &i->image_id, 16);
	writer_le64(&w, i->image_size);
	writer_put(&w, i->image, length);
	writer_zero(&w, VHDSET_HEAD - w.at);
	sum = le32_of(head_sum(bytes));
	memcpy((uint8_t *)bytes + 12, &sum, 4);
}

int vhdset_decode(const void *bytes, struct vhdset_info *ret, struct error *err)
{
	struct reader r = reader_of(bytes, VHDSET_HEAD);
	struct vhdset_info i = { 0 };
	uint32_t version, sum, length;

	if (reader_le64(&r) != SET_SIGNATURE)
		return error_set(err, -EINVAL,
				 "this is not a set: it does not start with \"ptvhdset\"");
	version = reader_le32(&r);
	sum = reader_le32(&r);
	if (sum != head_sum(bytes))
		return error_set(err, -EINVAL, "the set is damaged: its checksum is wrong");
	if (version != SET_VERSION)
		return error_set(err, -ENOTSUP, "the set has version %u; version %u is known",
				 version, SET_VERSION);
	reader_copy(&r, &i.id, 16);
	i.format = reader_le32(&r);
	length = reader_le32(&r);
	reader_copy(&r, &i.image_id, 16);
	i.image_size = reader_le64(&r);
	reader_copy(&r, i.image, MIN(length, VHDSET_NAME_MAX));
	if (!name_valid(i.image, length))
		return error_set(err, -EINVAL,
				 "the set is damaged: its image's name is no name of a file");
	if ((i.format != VHDSET_RAW && i.format != VHDSET_VHDX) || guid_is_zero(&i.id) ||
	    !i.image_size || i.image_size % 512)
		return error_set(err, -EINVAL, "the set is damaged: it describes no image");
	*ret = i;
	return 0;
}

int vhdset_info(int fd, struct vhdset_info *ret, struct error *err)
{
	uint8_t bytes[VHDSET_HEAD];
	ssize_t n = pread(fd, bytes, sizeof(bytes), 0);

	if (n < 0)
		return error_errno(err, -errno, "cannot read the set");
	if (n < (ssize_t)sizeof(bytes))
		return error_set(err, -EINVAL, "this is not a set: it has only %zd bytes", n);
	return vhdset_decode(bytes, ret, err);
}

const char *vhdset_format_name(enum vhdset_format format)
{
	return format == VHDSET_VHDX ? "vhdx" : "raw";
}

/* --- the image --- */

static int store_open(struct loop *loop, int fd, const struct store_file_options *o,
		      struct store **ret, struct error *err)
{
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (own < 0)
		return error_errno(err, -errno, "cannot open the image");
	return store_file_open(loop, own, o, ret, err);
}

/* What a VHDX is like that others may be using: read only, and nothing is kept of it. */
static int vhdx_examine(int image_fd, struct disk_geometry *ret, struct flat_extent **ret_extents,
			size_t *ret_count, struct error *err)
{
	const struct store_file_options o = { .read_only = true, .no_lock = true };
	struct store *store;
	struct disk *disk;
	int r = store_open(NULL, image_fd, &o, &store, err);

	if (r >= 0)
		r = vhdx_open(store, &disk, err);
	if (r < 0)
		return r;
	*ret = disk->geometry;
	ret->read_only = false;
	r = vhdx_flatten(disk, ret_extents, ret_count, err);
	disk_close(disk, NULL);
	return r;
}

static int raw_examine(int image_fd, struct disk_geometry *ret, struct flat_extent **ret_extents,
		       size_t *ret_count, struct error *err)
{
	const struct store_file_options o = { .read_only = true, .no_lock = true };
	struct flat_extent *e;
	struct store *store;
	int r = store_open(NULL, image_fd, &o, &store, err);

	if (r < 0)
		return r;
	*ret = (struct disk_geometry){
		.size = store->size,
		.logical_sector = 512,
		.physical_sector = 4096,
	};
	store_close(store);
	if (!ret->size || ret->size % 512)
		return error_set(err, -EINVAL,
				 "a raw image can be shared when it has whole sectors of 512 "
				 "bytes; this has %llu bytes",
				 (unsigned long long)ret->size);
	e = calloc(1, sizeof(*e));
	if (!e)
		return error_set(err, -ENOMEM, "out of memory");
	e->length = ret->size;
	*ret_extents = e;
	*ret_count = 1;
	return 0;
}

static int examine(int image_fd, enum vhdset_format format, struct disk_geometry *ret,
		   struct flat_extent **ret_extents, size_t *ret_count, struct error *err)
{
	if (format == VHDSET_VHDX)
		return vhdx_examine(image_fd, ret, ret_extents, ret_count, err);
	return raw_examine(image_fd, ret, ret_extents, ret_count, err);
}

/* --- making one --- */

static int format_of(int image_fd, const char *format, enum vhdset_format *ret, struct error *err)
{
	uint8_t bytes[8];
	ssize_t n = pread(image_fd, bytes, sizeof(bytes), 0);

	if (n < 0)
		return error_errno(err, -errno, "cannot read the image");
	if (!format || !strcmp(format, "auto"))
		*ret = vhdx_probe(bytes, (size_t)n) ? VHDSET_VHDX : VHDSET_RAW;
	else if (!strcmp(format, "raw"))
		*ret = VHDSET_RAW;
	else if (!strcmp(format, "vhdx"))
		*ret = VHDSET_VHDX;
	else
		return error_set(err, -ENOTSUP,
				 "images that are shared are vhdx (fixed) or raw, not \"%s\"",
				 format);
	return 0;
}

static int set_write(int fd, const struct vhdset_info *i, struct error *err)
{
	static const struct reserve_state none;
	uint8_t bytes[VHDSET_SIZE] = { 0 };
	ssize_t n;

	reserve_slot_encode(&none, 0, bytes + RESERVE_SLOT(0));
	head_encode(i, bytes);
	n = pwrite(fd, bytes, sizeof(bytes), 0);
	if (n != (ssize_t)sizeof(bytes) || fsync(fd) < 0)
		return error_errno(err, n < 0 ? -errno : -EIO, "cannot write the set");
	return 0;
}

static int create(int fd, int image_fd, const char *image_name, const char *format,
		  struct error *err)
{
	const char *slash = strrchr(image_name, '/'), *name = slash ? slash + 1 : image_name;
	struct vhdset_info i = { .id = guid_random() };
	_cleanup_free_ struct flat_extent *extents = NULL;
	struct disk_geometry g;
	struct stat st;
	size_t count;
	int r;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot look at the set");
	if (!S_ISREG(st.st_mode) || st.st_size)
		return error_set(err, -EEXIST, "a set is made in an empty file");
	if (!name_valid(name, strlen(name)))
		return error_set(err, -EINVAL, "\"%s\" is no name of an image", image_name);
	r = store_file_lock(image_fd, true, err);
	if (r >= 0)
		r = format_of(image_fd, format, &i.format, err);
	if (r >= 0)
		r = examine(image_fd, i.format, &g, &extents, &count, err);
	if (r < 0)
		return r;
	i.image_id = g.id;
	i.image_size = g.size;
	memcpy(i.image, name, strlen(name));
	return set_write(fd, &i, err);
}

int vhdset_create(int fd, int image_fd, const char *image_name, const char *format,
		  struct error *err)
{
	int r = create(fd, image_fd, image_name, format, err);

	close(image_fd);
	return r;
}

/* --- opening --- */

static int lock_set(int fd, short type, int64_t byte, bool wait)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	int r;

	do
		r = fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock) < 0 ? -errno : 0;
	while (r == -EINTR);
	return r;
}

/* Whether others have the set open. With the gate that stays so. */
int vhdset_used(int fd, bool *ret)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = LOCK_USERS,
		.l_len = 1,
	};

	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	*ret = lock.l_type != F_UNLCK;
	return 0;
}

/* The image is this opener's alone. Finishes what a single writer left, and renews identities. */
static int first_opener(struct vhdset *s, struct loop *loop, enum vhdset_format format,
			struct error *err)
{
	const struct store_file_options o = { .no_lock = true };
	struct store *store;
	struct disk *disk;
	int r, closed;

	if (format != VHDSET_VHDX)
		return 0;
	r = store_open(loop, s->image_fd, &o, &store, err);
	if (r >= 0)
		r = vhdx_open(store, &disk, err);
	if (r < 0)
		return r;
	r = vhdx_renew(disk, err);
	closed = disk_close(disk, r < 0 ? NULL : err);
	return r < 0 ? r : closed;
}

static int identity_check(const struct vhdset_info *i, const struct disk_geometry *g,
			  struct error *err)
{
	char want[GUID_TEXT_SIZE], have[GUID_TEXT_SIZE];

	if (!guid_equal(&g->id, &i->image_id))
		return error_set(err, -ESTALE,
				 "this is not the image that the set was made for: it has the "
				 "identity %s, the set's has %s",
				 guid_format(&g->id, have), guid_format(&i->image_id, want));
	if (g->size != i->image_size)
		return error_set(err, -ESTALE,
				 "the disk had %llu bytes when the set was made and has %llu now; "
				 "make a new set",
				 (unsigned long long)i->image_size, (unsigned long long)g->size);
	return 0;
}

static int disk_open_shared(struct vhdset *s, struct loop *loop, const struct vhdset_info *i,
			    bool direct, struct error *err)
{
	const struct store_file_options o = { .no_lock = true, .direct = direct };
	_cleanup_free_ struct flat_extent *extents = NULL;
	struct disk_geometry g;
	struct store *store;
	size_t count;
	int r = examine(s->image_fd, i->format, &g, &extents, &count, err);

	if (r >= 0)
		r = identity_check(i, &g, err);
	if (r >= 0)
		r = store_open(loop, s->image_fd, &o, &store, err);
	if (r < 0)
		return r;
	if (guid_is_zero(&g.id))
		g.id = i->id; /* all openers show their guests the same disk */
	return flat_open(store, vhdset_format_name(i->format), &g, extents, count, &s->disk, err);
}

static int open_gated(struct vhdset *s, struct loop *loop, const struct vhdset_options *o,
		      struct error *err)
{
	struct vhdset_info i;
	bool used = false;
	int r = vhdset_info(s->fd, &i, err);

	if (r < 0)
		return r;
	if (guid_is_zero(&o->initiator))
		return error_set(err, -EINVAL, "who opens a set needs an identity");
	r = vhdset_used(s->fd, &used);
	if (r < 0)
		return error_errno(err, r, "cannot lock the set");
	if (!used) {
		r = store_file_lock(s->image_fd, false, err);
		if (r >= 0)
			r = first_opener(s, loop, i.format, err);
	}
	if (r >= 0)
		r = store_file_lock_shared(s->image_fd, reserve_file_byte(&o->initiator), err);
	if (r >= 0)
		r = reserve_file_open(s->fd, s->image_fd, &o->initiator, &s->reservations, err);
	if (r >= 0)
		r = disk_open_shared(s, loop, &i, o->direct, err);
	if (r < 0)
		return r;
	r = lock_set(s->fd, F_RDLCK, LOCK_USERS, false);
	return r < 0 ? error_errno(err, r, "cannot lock the set") : 0;
}

int vhdset_open(struct loop *loop, int fd, int image_fd, const struct vhdset_options *options,
		struct vhdset **ret, struct error *err)
{
	struct vhdset *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		close(fd);
		close(image_fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*s = (struct vhdset){ .fd = fd, .image_fd = image_fd };
	r = lock_set(fd, F_WRLCK, LOCK_GATE, true);
	if (r < 0) {
		error_errno(err, r, "cannot lock the set");
	} else {
		r = open_gated(s, loop, options, err);
		(void)lock_set(fd, F_UNLCK, LOCK_GATE, false);
	}
	if (r < 0)
		vhdset_close(s, NULL);
	else
		*ret = s;
	return r;
}

int vhdset_close(struct vhdset *s, struct error *err)
{
	int r;

	if (!s)
		return 0;
	r = disk_close(s->disk, err);
	reserve_file_close(s->reservations);
	close(s->image_fd);
	close(s->fd);
	free(s);
	return r;
}

struct disk *vhdset_disk(struct vhdset *s)
{
	return s->disk;
}

struct reserve_file *vhdset_reservations(struct vhdset *s)
{
	return s->reservations;
}
