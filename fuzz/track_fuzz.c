// SPDX-License-Identifier: MIT
/*
 * A hostile track file. The input spoils a good one and says what happens then. Whatever it holds:
 * what is written after a point is reported, also when the file is read again.
 *
 *     byte 0      START_* bits
 *     byte 1      number of patches
 *     patch       u16 offset in the file, u8 length, bytes
 *     then        steps: u8 what, u8 where
 */
#include "lib/crc32c.h"
#include "lib/cursor.h"
#include "vhd/disk_drive.h"
#include "vhd/raw.h"
#include "vhd/store_memory.h"
#include "vhd/track_format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define START_RESIGN    BIT(0)
#define START_READ_ONLY BIT(1)
#define DISK            (4 * MIB)
#define SLOT_SUM        8u

static struct loop *loop;

static int look(struct track_image *image, bool last, struct track_tie *ret)
{
	(void)image, (void)last;
	*ret = (struct track_tie){ 1, 2, 3, 4 };
	return 0;
}

static uint64_t now(struct track_image *image)
{
	(void)image;
	return 5;
}

static void nothing(struct track_image *image)
{
	(void)image;
}

static struct track_image fake = { look, now, nothing };

static int open_disk(struct store *image, struct store *file, bool create, bool read_only,
		     struct disk **ret)
{
	struct track_options o = { .create = create, .read_only = read_only };
	struct error err = { 0 };
	struct disk *raw;
	int r;

	look(&fake, false, &o.tie);
	if (raw_open(image, &raw, NULL) < 0)
		abort();
	r = track_new(raw, file, &fake, &o, ret, &err);
	if (r < 0) {
		disk_close(raw, NULL);
		if (!err.message[0])
			abort();
	}
	return r;
}

static void resign(struct store *file, uint64_t at)
{
	uint8_t b[TRACK_SLOT_SIZE];
	le32 sum = le32_of(0);

	if (store_read(file, b, sizeof(b), at) < 0)
		abort();
	memcpy(b + SLOT_SUM, &sum, 4);
	sum = le32_of(crc32c(0, b, sizeof(b)));
	memcpy(b + SLOT_SUM, &sum, 4);
	if (store_write(file, b, sizeof(b), at) < 0)
		abort();
}

static void spoil(struct store *file, struct reader *r, unsigned flags, unsigned patches)
{
	for (unsigned i = 0; i < patches && reader_left(r); i++) {
		size_t at = reader_le16(r), n = reader_u8(r);
		const void *bytes = reader_take(r, n);

		if (bytes && n && store_write(file, bytes, n, at) < 0)
			abort();
	}
	if (flags & START_RESIGN) {
		resign(file, TRACK_SLOT(0));
		resign(file, TRACK_SLOT(1));
	}
}

static int found(void *context, uint64_t offset, uint64_t length)
{
	uint64_t *want = context;

	if (!length || !range_inside(offset, length, DISK))
		abort();
	if (*want >= offset && *want - offset < length)
		*want = UINT64_MAX;
	return 0;
}

static void query(struct disk *d, const struct guid *id, uint64_t want)
{
	int r = track_query(track_of(d), id, 0, UINT64_MAX, found, &want, NULL);

	if (r >= 0 && want != UINT64_MAX && want < DISK)
		abort();
}

static void query_all(struct disk *d)
{
	const struct track_point *p;
	unsigned count;

	p = track_points(track_of(d), &count);
	for (unsigned i = 0; i < count; i++)
		query(d, &p[i].id, UINT64_MAX);
}

static void steps(struct store *image, struct store *file, struct reader *r)
{
	uint8_t b[512] = { 1 };
	struct guid id = { 0 };
	uint64_t written = UINT64_MAX;
	struct disk *d;

	if (open_disk(image, file, false, false, &d) < 0)
		return;
	for (unsigned i = 0; i < 64 && reader_left(r); i++) {
		unsigned what = reader_u8(r);
		uint64_t at = (uint64_t)reader_u8(r) * 16384;

		if (what % 4 == 0) {
			if (drive_write(d, b, sizeof(b), at, 0) < 0)
				abort();
			written = guid_is_zero(&id) ? UINT64_MAX : at;
		} else if (what % 4 == 1 && track_point(track_of(d), &id, NULL) >= 0) {
			written = UINT64_MAX;
		} else if (what % 4 == 2) {
			if (disk_close(d, NULL) < 0 || open_disk(image, file, false, false, &d) < 0)
				abort();
		} else if (what == 7) {
			const struct track_point *p;
			unsigned count;

			p = track_points(track_of(d), &count);
			if (count && track_drop(track_of(d), &p[0].id, NULL) < 0)
				abort();
		}
		if (!guid_is_zero(&id))
			query(d, &id, written);
		query_all(d);
	}
	if (disk_close(d, NULL) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct store_memory_options o = { .size_max = 16 * MIB, .bytes_max = 16 * MIB };
	struct reader r = reader_of(data, size);
	unsigned flags = reader_u8(&r), patches = reader_u8(&r);
	struct store *image, *file;
	struct guid id;
	struct disk *d;

	if (!loop && loop_new(0, &loop, NULL) < 0)
		abort();
	image = store_memory_new(loop, &o);
	file = store_memory_new(loop, &o);
	if (!image || !file || store_resize(image, DISK) < 0 ||
	    open_disk(image, file, true, false, &d) < 0 ||
	    track_point(track_of(d), &id, NULL) < 0 || disk_close(d, NULL) < 0)
		abort();
	spoil(file, &r, flags, patches);
	if (flags & START_READ_ONLY) {
		if (open_disk(image, file, false, true, &d) >= 0) {
			query_all(d);
			disk_close(d, NULL);
		}
	} else {
		steps(image, file, &r);
	}
	store_memory_free(image);
	store_memory_free(file);
	return 0;
}
