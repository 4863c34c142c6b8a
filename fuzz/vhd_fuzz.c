// SPDX-License-Identifier: MIT
/*
 * A hostile VHD. The input does not hold an image, but says how to spoil a good one: which of
 * several to start from, a list of patches, and whether checksums are made right again afterwards;
 * then what a guest, or somebody who resizes, does with the disk. Nothing may crash, hang or take
 * memory without limit, and an image that could be written and closed must open again.
 *
 *     byte 0      START_* bits
 *     byte 1      number of patches
 *     patch       u8 place, u16 offset in units of 4 bytes, u8 length (0: cut the file there),
 * bytes then        requests: u8 kind, u16 where (in 65536ths of the disk), u8 sectors
 */
#include "lib/cursor.h"
#include "vhd/disk_drive.h"
#include "vhd/image.h"
#include "vhd/store_memory.h"
#include "vhd/vhd_meta.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define START_READ_ONLY BIT(0)
#define START_DIRTY     BIT(1) /* not closed: the footer at the end is elsewhere */
#define START_LARGE     BIT(2) /* 64 GiB */
#define START_FIXED     BIT(3)
#define START_CHILD     BIT(4)
#define START_RESIGN    BIT(5)
#define START_CHECK     BIT(6) /* examine it before opening */
#define START_PARENT    BIT(7) /* the parent is open */
#define STARTS          (START_DIRTY | START_LARGE | START_FIXED | START_CHILD)

#define FILE_MAX     (96 * MIB)
#define DATA_MAX     (24 * MIB)
#define REQUESTS_MAX 64
#define SIZE         (8 * MIB)

static struct loop *loop;
static struct store *starts[STARTS + 1], *parent;

static struct store *new_store(void)
{
	const struct store_memory_options o = { .size_max = FILE_MAX, .bytes_max = DATA_MAX };
	struct store *s = store_memory_new(loop, &o);

	if (!s)
		abort();
	return s;
}

static struct vhd_create_options options_of(unsigned flags)
{
	return (struct vhd_create_options){
		.size = flags & START_LARGE && !(flags & START_FIXED) ? 64 * GIB : SIZE,
		.block_size = (uint32_t)(flags & START_LARGE ? 2 * MIB : 512 * KIB),
		.kind = flags & START_FIXED   ? VHD_FIXED
			: flags & START_CHILD ? VHD_DIFFERENCING
					      : VHD_DYNAMIC,
		.relative = ".\\parent.vhd",
		.absolute = "C:\\parent.vhd",
		.id = GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
	};
}

/* A good image of the kind that `flags` name. */
static struct store *start_new(unsigned flags)
{
	const struct vhd_create_options o = options_of(flags);
	struct store *s = new_store(), *result = new_store();
	uint8_t b[4096] = { 1, 2, 3 };
	struct disk *d;

	if (vhd_store_create(s, &o, NULL) < 0 || vhd_open(s, &d, NULL) < 0)
		abort();
	for (unsigned i = 0; i < 3; i++)
		if (drive_write(d, b, 4096, o.size / 4 * i, i < 2 ? DISK_FUA : 0) < 0)
			abort();
	if (flags & START_DIRTY)
		store_memory_copy(s, result);
	if (disk_close(d, NULL) < 0)
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

/* Start and end of the file, header, locators, tables, blocks. */
static uint64_t place(const struct store *s, uint8_t which)
{
	static const uint64_t places[] = {
		0, 512, 576 + 512, 4096, 8192, 12288, 16384, 64 * KIB, MIB, 7680, 15872, 20480,
	};

	which %= ARRAY_SIZE(places) + 2;
	if (which < ARRAY_SIZE(places))
		return places[which];
	return s->size - MIN(s->size, which % 2 ? 512u : 2048u);
}

static void patch(struct store *s, struct reader *r)
{
	uint64_t at = place(s, reader_u8(r)) + (uint64_t)reader_le16(r) * 4;
	size_t n = reader_u8(r);
	const void *bytes = reader_take(r, n);

	if (!reader_ok(r))
		return;
	if (n)
		store_write(s, bytes, n, at);
	else
		store_resize(s, MIN(at, s->size));
}

static void footer_resign(struct store *s, uint64_t at)
{
	struct vhd_disk_footer f;

	store_read(s, &f, sizeof(f), at);
	vhd_footer_sign(&f);
	store_write(s, &f, sizeof(f), at);
}

static void resign_all(struct store *s)
{
	struct vhd_disk_header h;

	if (s->size < 2048)
		return;
	footer_resign(s, 0);
	footer_resign(s, s->size - 512);
	store_read(s, &h, sizeof(h), 512);
	vhd_header_sign(&h);
	store_write(s, &h, sizeof(h), 512);
}

static void extent(struct disk *d, uint64_t offset)
{
	enum disk_extent_kind kind;
	uint64_t length = 1;

	if (!d->ops->extent(d, offset, &kind, &length) &&
	    (!length || length > d->geometry.size - offset))
		abort();
}

/* Changes of structures: their errors are words. */
static void restructure(struct disk *d, uint8_t kind, uint64_t size)
{
	struct disk_parent p = { .relative = (char[]){ "..\\other.vhd" } };
	struct error err = { 0 };
	int r = kind & 0x40 ? d->ops->set_parent_ref(d, &p, &err) : d->ops->resize(d, size, &err);

	if (r < 0 && !err.message[0])
		abort();
}

static void request(struct disk *d, struct reader *r)
{
	static uint8_t buf[256 * 512];
	uint8_t kind = reader_u8(r);
	uint64_t sectors = d->geometry.size / 512, first, left, n;

	first = (uint64_t)(((unsigned __int128)sectors * reader_le16(r)) >> 16);
	left = (sectors - first) * 512;
	n = (reader_u8(r) + UINT64_C(1)) * (kind & 0x80 ? 64 : 1) * 512;
	n = MIN(n, left);
	switch (kind % 9) {
	case 0:
	case 1:
		drive_read(d, buf, MIN(n, sizeof(buf)), first * 512);
		break;
	case 2:
	case 3:
		drive_write(d, buf, MIN(n, sizeof(buf)), first * 512, kind & 16 ? DISK_FUA : 0);
		break;
	case 4:
		drive_trim(d, n, first * 512);
		break;
	case 5:
		drive_zero(d, n, first * 512);
		break;
	case 6:
		drive_flush(d);
		break;
	case 7:
		extent(d, first * 512);
		break;
	case 8:
		restructure(d, kind, first * 512 + n);
		break;
	}
}

static void examine(struct store *s)
{
	struct check_report report = { 0 };
	bool read_only = s->read_only;

	s->read_only = true;
	if (vhd_check(s, &report, NULL) == 0 && report.blocks_present > report.blocks)
		abort();
	s->read_only = read_only;
}

static void parent_open(struct disk *d)
{
	struct disk *below;

	if (!d->ops->parent(d))
		return;
	if (!parent) {
		parent = start_new(0);
		parent->read_only = true;
	}
	if (vhd_open(parent, &below, NULL) < 0)
		abort();
	d->ops->set_parent(d, below);
}

static void use(struct store *s, bool with_parent, struct reader *r)
{
	struct error err = { 0 };
	struct disk *d;

	if (vhd_open(s, &d, &err) < 0) {
		if (!err.message[0])
			abort();
		return;
	}
	if (with_parent)
		parent_open(d);
	for (unsigned i = 0; i < REQUESTS_MAX && reader_left(r); i++)
		request(d, r);
	/* What could be closed can be opened again; a full file system may prevent closing. */
	if (disk_close(d, &err) < 0)
		return;
	if (vhd_open(s, &d, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
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
	use(s, flags & START_PARENT, &r);
	store_memory_free(s);
	return 0;
}
