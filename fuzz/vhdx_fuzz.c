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
#define STARTS          (START_DIRTY | START_LARGE | START_FIXED)

#define FILE_MAX     (96 * MIB)
#define DATA_MAX     (24 * MIB)
#define REQUESTS_MAX 64

static const uint64_t places[] = {
	0,          64 * KIB,   128 * KIB,      192 * KIB,   256 * KIB, MIB,
	MIB + 4096, MIB + 8192, MIB + 12288,    MIB + 16384, 2 * MIB,   2 * MIB + 64 * KIB,
	3 * MIB,    4 * MIB,    2 * MIB - 4096, 5 * MIB,
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

static void copy(struct store *from, struct store *to)
{
	static uint8_t b[4096];

	if (store_resize(to, from->size) < 0)
		abort();
	for (uint64_t at = 0; at < from->size;) {
		enum disk_extent_kind kind;
		uint64_t n;

		store_extent(from, at, &kind, &n);
		for (uint64_t i = 0; kind == DISK_EXTENT_DATA && i < n; i += sizeof(b)) {
			store_read(from, b, sizeof(b), at + i);
			if (store_write(to, b, MIN(sizeof(b), n - i), at + i) < 0)
				abort();
		}
		at += n;
	}
}

/* A good image of the kind that `flags` name. */
static struct store *start_new(unsigned flags)
{
	const struct vhdx_create_options o = {
		.size = flags & START_LARGE && !(flags & START_FIXED) ? 4 * TIB : 8 * MIB,
		.block_size = (uint32_t)(flags & START_LARGE ? 2 * MIB : MIB),
		.logical_sector = flags & START_LARGE ? 4096 : 512,
		.fixed = flags & START_FIXED,
	};
	struct store *s = new_store(), *result = new_store();
	uint8_t b[4096] = { 1, 2, 3 };
	struct disk *d;

	if (vhdx_store_create(s, &o, NULL) < 0 || vhdx_open(s, &d, NULL) < 0)
		abort();
	for (unsigned i = 0; i < 3; i++)
		if (drive_write(d, b, 4096, o.size / 4 * i, DISK_FUA) < 0)
			abort();
	if (flags & START_DIRTY)
		copy(s, result);
	if (disk_close(d, NULL) < 0)
		abort();
	if (!(flags & START_DIRTY))
		copy(s, result);
	store_memory_free(s);
	return result;
}

static struct store *start_copy(unsigned flags)
{
	struct store *s = new_store();

	if (!starts[flags & STARTS])
		starts[flags & STARTS] = start_new(flags & STARTS);
	copy(starts[flags & STARTS], s);
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
	n = MIN(reader_u8(r) + 1u, sectors - first) * sector;
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

static void use(struct store *s, struct reader *r)
{
	struct error err = { 0 };
	struct disk *d;

	if (vhdx_open(s, &d, &err) < 0) {
		if (!err.message[0])
			abort();
		return;
	}
	for (unsigned i = 0; i < REQUESTS_MAX && reader_left(r); i++)
		request(d, r);
	/* What could be closed can be opened again; a full file system may prevent closing. */
	if (disk_close(d, &err) < 0)
		return;
	if (vhdx_open(s, &d, &err) < 0)
		abort();
	disk_close(d, NULL);
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
	use(s, &r);
	store_memory_free(s);
	return 0;
}
