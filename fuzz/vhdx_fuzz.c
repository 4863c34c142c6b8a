// SPDX-License-Identifier: MIT
/*
 * A hostile VHDX. The input does not hold an image, which would be megabytes, but says how to spoil
 * a good one: which of several to start from, a list of patches, and whether checksums are made
 * right again afterwards; then what a guest does with the disk. Nothing may crash, hang or take
 * memory without limit, and an image that could be written and closed must open again.
 *
 *     byte 0      START_* bits
 *     byte 1      number of patches
 *     patch       u8 place, u16 offset in units of 4 bytes, u8 length (0: cut the file there),
 * bytes then        requests: u8 kind, u16 where (in 65536ths of the disk), u8 sectors
 */
#include "lib/crc32c.h"
#include "lib/cursor.h"
#include "vhd/disk_drive.h"
#include "vhd/image.h"
#include "vhd/store_memory.h"
#include "vhd/vhdx_format.h"
#include "vhd/vhdx_log.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define START_READ_ONLY BIT(0)
#define START_DIRTY     BIT(1) /* not closed: there is a log to replay */
#define START_LARGE     BIT(2) /* 4 KiB sectors, 4 TiB */
#define START_FIXED     BIT(3)
#define START_RESIGN    BIT(4)
#define START_CHECK     BIT(5) /* examine it before opening */
#define START_CHILD     BIT(6) /* a differencing image; not with FIXED */
#define START_EDIT      BIT(7) /* at the end: another size, another parent, compacting */
#define STARTS          (START_DIRTY | START_LARGE | START_FIXED | START_CHILD)

#define FILE_MAX     (96 * MIB)
#define DATA_MAX     (24 * MIB)
#define REQUESTS_MAX 64

static const uint64_t places[] = {
	0,
	64 * KIB,
	128 * KIB,
	192 * KIB,
	256 * KIB,
	MIB,
	MIB + 4096,
	MIB + 8192,
	MIB + 12288,
	MIB + 16384,
	2 * MIB,
	2 * MIB + 64 * KIB,
	3 * MIB,
	4 * MIB,
	2 * MIB - 4096,
	5 * MIB,
	2 * MIB + 128 * KIB,
	6 * MIB,
	7 * MIB,
};

static struct loop *loop;
static struct store *starts[STARTS + 1];

static struct store *new_store(void)
{
	const struct store_memory_options o = { .size_max = FILE_MAX, .bytes_max = DATA_MAX };
	struct store *s = store_memory_new(loop, &o);

	if (!s)
		abort();
	return s;
}

static struct disk *parent_disk;

/* Of 9 MiB with data in some places, larger than small children and smaller than large ones. */
static struct disk *parent_open(void)
{
	const struct vhdx_create_options o = { .size = 9 * MIB, .block_size = (uint32_t)MIB };
	uint8_t b[4096];
	struct store *s = new_store();

	memset(b, 0x77, sizeof(b));
	if (vhdx_store_create(s, &o, NULL) < 0 || vhdx_open(s, &parent_disk, NULL) < 0)
		abort();
	for (unsigned i = 0; i < 16; i++)
		if (drive_write(parent_disk, b, 4096, i * 512 * KIB, 0) < 0)
			abort();
	return parent_disk;
}

static int open_with_parent(struct store *s, struct disk **ret, struct error *err)
{
	int r = vhdx_open(s, ret, err);

	if (r >= 0 && (*ret)->ops->parent(*ret))
		(*ret)->ops->set_parent(*ret, parent_disk ? parent_disk : parent_open());
	return r;
}

static int close_without_parent(struct disk *d, struct error *err)
{
	if (d->ops->parent(d))
		d->ops->set_parent(d, NULL);
	return disk_close(d, err);
}

/* A good image of the kind that `flags` name. */
static struct store *start_new(unsigned flags)
{
	const struct disk_parent parent = { .id = { { 1 } }, .relative = (char[]){ "p.vhdx" } };
	const struct vhdx_create_options o = {
		.size = flags & START_LARGE && !(flags & START_FIXED) ? 4 * TIB : 8 * MIB,
		.block_size = (uint32_t)(flags & START_LARGE ? 2 * MIB : MIB),
		.logical_sector = flags & START_LARGE ? 4096 : 512,
		.fixed = flags & START_FIXED && !(flags & START_CHILD),
		.parent = flags & START_CHILD ? &parent : NULL,
	};
	struct store *s = new_store(), *result = new_store();
	uint8_t b[4096] = { 1, 2, 3 };
	struct disk *d;

	if (vhdx_store_create(s, &o, NULL) < 0 || open_with_parent(s, &d, NULL) < 0)
		abort();
	for (unsigned i = 0; i < 3; i++)
		if (drive_write(d, b, 4096, o.size / 4 * i, DISK_FUA) < 0)
			abort();
	if (flags & START_DIRTY)
		store_memory_copy(s, result);
	if (close_without_parent(d, NULL) < 0)
		abort();
	if (!(flags & START_DIRTY))
		store_memory_copy(s, result);
	store_memory_free(s);
	return result;
}

static struct store *start_copy(unsigned flags)
{
	struct store *s = new_store();

	if (!starts[flags & STARTS])
		starts[flags & STARTS] = start_new(flags & STARTS);
	store_memory_copy(starts[flags & STARTS], s);
	return s;
}

static void patch(struct store *s, struct reader *r)
{
	uint64_t at = places[reader_u8(r) % ARRAY_SIZE(places)] + (uint64_t)reader_le16(r) * 4;
	size_t n = reader_u8(r);
	const void *bytes = reader_take(r, n);

	if (!reader_ok(r))
		return;
	if (n)
		store_write(s, bytes, n, at);
	else
		store_resize(s, MIN(at, s->size));
}

static void resign(struct store *s, uint64_t at, size_t size)
{
	static uint8_t b[256 * KIB];
	le32 sum = le32_of(0);

	store_read(s, b, size, at);
	memcpy(b + 4, &sum, 4);
	sum = le32_of(crc32c(0, b, size));
	store_write(s, &sum, 4, at + 4);
}

static void resign_all(struct store *s)
{
	for (unsigned n = 0; n < 2; n++) {
		resign(s, VHDX_HEADER_OFFSET(n), VHDX_HEADER_SIZE);
		resign(s, VHDX_REGION_OFFSET(n), VHDX_REGION_SIZE);
	}
	for (unsigned i = 0; i < 32; i++) {
		struct vhdx_log_header h;
		uint64_t at = MIB + i * VHDX_SECTOR;

		store_read(s, &h, sizeof(h), at);
		if (le32_get(h.signature) == VHDX_LOG_SIGNATURE &&
		    le32_get(h.entry_length) <= 64 * KIB && le32_get(h.entry_length) >= 8)
			resign(s, at, le32_get(h.entry_length));
	}
}

static void request(struct disk *d, struct reader *r)
{
	static uint8_t buf[256 * 4096];
	uint8_t kind = reader_u8(r);
	uint32_t sector = d->geometry.logical_sector;
	uint64_t sectors = d->geometry.size / sector, first;
	uint64_t n;

	first = (uint64_t)(((unsigned __int128)sectors * reader_le16(r)) >> 16);
	n = reader_u8(r) + 1u;
	n = MIN(n, sectors - first) * sector;
	if (kind & 0x80)
		n = MIN(n * 64, (sectors - first) * sector);
	switch (kind % 8) {
	case 0:
	case 1:
		drive_read(d, buf, MIN(n, sizeof(buf)), first * sector);
		break;
	case 2:
	case 3:
		drive_write(d, buf, MIN(n, sizeof(buf)), first * sector, kind & 8 ? DISK_FUA : 0);
		break;
	case 4:
		drive_trim(d, n, first * sector);
		break;
	case 5:
		drive_zero(d, n, first * sector);
		break;
	case 6:
		drive_flush(d);
		break;
	case 7: {
		enum disk_extent_kind extent;
		uint64_t length = 1;

		if (!d->ops->extent(d, first * sector, &extent, &length) && !length)
			abort();
		break;
	}
	}
}

static void examine(struct store *s)
{
	struct check_report report = { 0 };
	bool read_only = s->read_only;

	s->read_only = true;
	if (vhdx_check(s, &report, NULL) == 0 && report.blocks_present > report.blocks)
		abort();
	s->read_only = read_only;
}

/* What a tool does with the image; each may be refused, with words. */
static void edit(struct disk *d, struct reader *r)
{
	const struct disk_parent parent = { .id = { { 2 } }, .relative = (char[]){ "q.vhdx" } };
	const struct disk_compact_options o = { .zeros = true };
	struct error err = { 0 };
	int n = 0;

	switch (reader_u8(r) % 4) {
	case 0:
		n = d->ops->resize(d, d->geometry.size + reader_le16(r) * 64 * KIB, &err);
		break;
	case 1:
		n = d->ops->resize(d, reader_le16(r) * 4096, &err);
		break;
	case 2:
		n = d->ops->compact(d, &o, &err);
		break;
	case 3:
		n = d->ops->set_parent_ref(d, &parent, &err);
		break;
	}
	if (n < 0 && !err.message[0])
		abort();
}

static void use(struct store *s, struct reader *r, bool edits)
{
	struct error err = { 0 };
	struct disk *d;

	if (open_with_parent(s, &d, &err) < 0) {
		if (!err.message[0])
			abort();
		return;
	}
	if (edits)
		edit(d, r);
	for (unsigned i = 0; i < REQUESTS_MAX && reader_left(r); i++)
		request(d, r);
	if (edits)
		edit(d, r);
	/* What could be closed can be opened again; a full file system may prevent closing. */
	if (close_without_parent(d, &err) < 0)
		return;
	if (open_with_parent(s, &d, &err) < 0)
		abort();
	close_without_parent(d, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	unsigned flags = reader_u8(&r), patches = reader_u8(&r);
	struct store *s;

	if (!loop && loop_new(0, &loop, NULL) < 0)
		abort();
	s = start_copy(flags);
	for (unsigned i = 0; i < patches && reader_left(&r); i++)
		patch(s, &r);
	if (flags & START_RESIGN)
		resign_all(s);
	s->read_only = flags & START_READ_ONLY;
	if (flags & START_CHECK)
		examine(s);
	use(s, &r, flags & START_EDIT);
	store_memory_free(s);
	return 0;
}
