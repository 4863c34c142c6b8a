// SPDX-License-Identifier: MIT
/* See vhd_meta.h. Sections named are those of the specification that vhd_format.h names. */
#include "vhd/vhd_meta.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* --- checksums --- */

uint32_t vhd_checksum(const void *bytes, size_t size, be32 checksum)
{
	const uint8_t *p = bytes, *c = (const uint8_t *)&checksum;
	uint32_t sum = 0;

	for (size_t i = 0; i < size; i++)
		sum += p[i];
	return ~(sum - c[0] - c[1] - c[2] - c[3]);
}

bool vhd_footer_valid(const struct vhd_disk_footer *f)
{
	uint32_t type = be32_get(f->disk_type);

	return be64_get(f->cookie) == VHD_FOOTER_COOKIE &&
	       be32_get(f->checksum) == vhd_checksum(f, sizeof(*f), f->checksum) &&
	       be32_get(f->file_format_version) >> 16 == VHD_VERSION >> 16 &&
	       type >= VHD_TYPE_FIXED && type <= VHD_TYPE_DIFFERENCING;
}

void vhd_footer_sign(struct vhd_disk_footer *f)
{
	f->checksum = be32_of(vhd_checksum(f, sizeof(*f), f->checksum));
}

void vhd_header_sign(struct vhd_disk_header *h)
{
	h->checksum = be32_of(vhd_checksum(h, sizeof(*h), h->checksum));
}

int vhd_header_check(const struct vhd_disk_header *h, struct error *err)
{
	if (be64_get(h->cookie) != VHD_HEADER_COOKIE ||
	    be32_get(h->checksum) != vhd_checksum(h, sizeof(*h), h->checksum))
		return error_set(err, -EINVAL,
				 "the header of the VHD is damaged (signature or checksum)");
	if (be32_get(h->header_version) >> 16 != VHD_VERSION >> 16)
		return error_set(err, -ENOTSUP, "the header of the VHD has a version not known");
	return 0;
}

/* --- footers --- */

static int end_read(struct store *s, struct vhd_footers *f)
{
	int r;

	f->end_at = round_down64(s->size, VHD_SECTOR);
	if (s->size < VHD_FOOTER_OLD_SIZE)
		return 0;
	if (s->size >= VHD_FOOTER_SIZE) {
		r = store_read(s, &f->end, VHD_FOOTER_SIZE, s->size - VHD_FOOTER_SIZE);
		if (r < 0)
			return r;
		f->end_valid = vhd_footer_valid(&f->end);
		if (f->end_valid)
			f->end_at = s->size - VHD_FOOTER_SIZE;
	}
	if (f->end_valid || s->size % VHD_SECTOR != VHD_FOOTER_OLD_SIZE)
		return 0;
	f->end = (struct vhd_disk_footer){ 0 };
	r = store_read(s, &f->end, VHD_FOOTER_OLD_SIZE, s->size - VHD_FOOTER_OLD_SIZE);
	f->end_valid = f->end_short = vhd_footer_valid(&f->end);
	return r;
}

/* A fixed disk ends where its footer begins; others have a header where theirs says. */
static bool fits(struct store *s, const struct vhd_disk_footer *f, uint64_t at)
{
	uint64_t offset = be64_get(f->data_offset);
	be64 cookie;

	if (be32_get(f->disk_type) == VHD_TYPE_FIXED)
		return be64_get(f->current_size) == at;
	return range_inside(offset, VHD_HEADER_SIZE, at) &&
	       store_read(s, &cookie, sizeof(cookie), offset) >= 0 &&
	       be64_get(cookie) == VHD_HEADER_COOKIE;
}

static int behind_find(struct store *s, struct vhd_footers *f)
{
	uint64_t least = s->size - MIN(s->size, VHD_BEHIND_MAX);

	for (uint64_t at = round_down64(s->size, VHD_SECTOR); at >= least + VHD_FOOTER_SIZE;) {
		struct vhd_disk_footer found;
		int r;

		at -= VHD_SECTOR;
		r = store_read(s, &found, sizeof(found), at);
		if (r < 0)
			return r;
		if (!range_inside(at, VHD_FOOTER_SIZE, s->size) || !vhd_footer_valid(&found) ||
		    !fits(s, &found, at))
			continue;
		f->end = found;
		f->end_valid = true;
		f->end_at = at;
		f->behind = s->size - at - VHD_FOOTER_SIZE;
		return 0;
	}
	return 0;
}

bool vhd_footer_behind(struct store *s)
{
	struct vhd_footers f = { 0 };

	return behind_find(s, &f) >= 0 && f.end_valid;
}

int vhd_footers_read(struct store *s, struct vhd_footers *ret, struct error *err)
{
	struct vhd_footers f = { 0 };
	int r = end_read(s, &f);

	if (r >= 0 && s->size >= VHD_FOOTER_SIZE)
		r = store_read(s, &f.copy, VHD_FOOTER_SIZE, 0);
	if (r < 0)
		return error_errno(err, r, "cannot read the image");
	/* In a fixed image the disk begins there. */
	f.copy_valid = vhd_footer_valid(&f.copy) && be32_get(f.copy.disk_type) != VHD_TYPE_FIXED;
	if (!f.end_valid && !f.copy_valid && behind_find(s, &f) < 0)
		return error_set(err, -EIO, "cannot read the end of the image");
	*ret = f;
	return 0;
}

/* --- size and geometry --- */

uint64_t vhd_footer_size(const struct vhd_disk_footer *f)
{
	uint64_t chs = (uint64_t)be16_get(f->cylinders) * f->heads * f->sectors_per_track;
	uint32_t creator = be32_get(f->creator_application);
	uint64_t size = round_down64(be64_get(f->current_size), VHD_SECTOR);

	/* Virtual PC, and QEMU long ago, show the guest what the geometry can express. */
	if (creator != VHD_CREATOR_VIRTUAL_PC && creator != VHD_CREATOR_QEMU)
		return size;
	return chs && chs < VHD_GEOMETRY_MAX ? chs * VHD_SECTOR : size;
}

/* Appendix "CHS Calculation". */
static void geometry_of(uint64_t sectors, struct vhd_disk_footer *f)
{
	uint64_t tracks; /* cylinders times heads */
	unsigned heads, spt;

	sectors = MIN(sectors, VHD_GEOMETRY_MAX);
	if (sectors >= UINT64_C(65535) * 16 * 63) {
		spt = 255;
		heads = 16;
		tracks = sectors / spt;
	} else {
		spt = 17;
		tracks = sectors / spt;
		heads = MAX(4u, (unsigned)((tracks + 1023) / 1024));
		if (tracks >= heads * UINT64_C(1024) || heads > 16) {
			spt = 31;
			heads = 16;
			tracks = sectors / spt;
		}
		if (tracks >= heads * UINT64_C(1024)) {
			spt = 63;
			heads = 16;
			tracks = sectors / spt;
		}
	}
	f->cylinders = be16_of((uint16_t)(tracks / heads));
	f->heads = (uint8_t)heads;
	f->sectors_per_track = (uint8_t)spt;
}

void vhd_footer_set_size(struct vhd_disk_footer *f, uint64_t size)
{
	f->current_size = be64_of(size);
	geometry_of(size / VHD_SECTOR, f);
}

uint32_t vhd_time_now(void)
{
	time_t t = time(NULL);

	return t < VHD_EPOCH ? 0 : (uint32_t)MIN(t - VHD_EPOCH, (time_t)UINT32_MAX);
}

/* --- ids --- */

static void swap_fields(const uint8_t *from, uint8_t *to)
{
	static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

	for (unsigned i = 0; i < 16; i++)
		to[i] = from[order[i]];
}

struct guid vhd_guid_get(const uint8_t bytes[static 16])
{
	struct guid g;

	swap_fields(bytes, g.b);
	return g;
}

void vhd_guid_put(const struct guid *g, uint8_t bytes[static 16])
{
	swap_fields(g->b, bytes);
}
